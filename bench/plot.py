"""Curves as SVG: the same data gives the same file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from ratio import Row
from result import Curve

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.hashsalt": "rmos-runs",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "figure.figsize": (6.4, 3.6),
        "figure.constrained_layout.use": True,
    }
)
_GOOD, _BAD = "#2a7f62", "#c0392b"
_ROW_INCHES = 0.32
_HEADROOM = 1.1


def draw(curve: Curve, file: Path) -> None:
    """Write one picture."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the back end is chosen

    figure, axes = plt.subplots()
    for name, points in curve.lines.items():
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, marker="o" if len(points) <= 20 else None, label=name)  # noqa: PLR2004 - else a smear
    if curve.log_x:
        axes.set_xscale("log")
        ticks = sorted({x for points in curve.lines.values() for x, _ in points})
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.minorticks_off()
    if curve.log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, _HEADROOM * max(y for points in curve.lines.values() for _, y in points))
    axes.set(title=curve.title, xlabel=curve.x, ylabel=curve.y)
    if len(curve.lines) > 1:
        axes.legend()
    figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)


def draw_rows(rows: Sequence[Row], file: Path) -> None:
    """Write all rows as one picture: each ratio with its spread, as a share of its mark."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(figsize=(8, 1 + _ROW_INCHES * len(rows)))
    for index, row in enumerate(rows):
        low, middle, high = sorted(_share(row, value) for value in (row.low, row.ratio, row.high))
        color = _GOOD if row.reached else _BAD
        axes.plot([low, high], [index, index], color=color, linewidth=3, alpha=0.5)
        axes.plot(middle, index, "o", color=color)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row.key for row in rows])
    axes.invert_yaxis()
    axes.set(title="Each row as a share of its mark; right of the line is met", xlabel="share of the mark")
    figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)


def _share(row: Row, value: float) -> float:
    return row.reach / value if row.at_most else value / row.reach
