"""Curves as SVG: the same data gives the same file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

from lib.ratio import Row
from lib.result import Curve, Flames, Section

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
_OURS, _OTHERS = "#e59866", "#d5d8dc"
_FLAME_INCHES, _FRAME_INCHES, _FLAME_LETTERS = 10, 0.13, 240
_ROW_INCHES = 0.32
_HEADROOM = 1.1


def draw_all(sections: Mapping[str, Section], pictures: Path) -> None:
    """Write every picture of the page into the folder ``pictures``, in place of those that are there."""
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.svg"):
        old.unlink()
    draw_rows([row for section in sections.values() for row in section.rows], pictures / "rows.svg")
    for section in sections.values():
        for curve in section.drawn:
            draw(curve, pictures / f"{curve.name}.svg")
        for flames in section.flames:
            draw_flames(flames, pictures / f"{flames.name}.svg")


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


def draw_flames(flames: Flames, file: Path) -> None:
    """Write a profile as a flame graph: a frame's width is its share of the samples, callers below."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    total = sum(flames.stacks.values())
    spans: dict[tuple[str, ...], tuple[float, float]] = {}
    left = 0.0
    # Sorted, stacks with the same beginning lie side by side.
    for stack, count in sorted(flames.stacks.items()):
        frames = stack.split(";")
        for depth in range(1, len(frames) + 1):
            start, width = spans.get(key := tuple(frames[:depth]), (left, 0.0))
            spans[key] = start, width + count / total
        left += count / total
    deepest = max(map(len, spans))
    figure, axes = plt.subplots(figsize=(_FLAME_INCHES, 0.5 + _FRAME_INCHES * deepest))
    for place, (start, width) in spans.items():
        ours = "(rmos_" in place[-1]
        axes.barh(len(place), width, 1, start, color=_OURS if ours else _OTHERS, edgecolor="white", lw=0.3)
        label = place[-1].partition(" (")[0]
        room = int(width * _FLAME_LETTERS)
        if room > 2:  # noqa: PLR2004 - fewer letters tell nothing
            axes.text(start + 0.002, len(place), label[:room], fontsize=5, va="center", clip_on=True)
    axes.set(title=flames.title, xlabel="share of the samples", yticks=[], xlim=(0, 1))
    axes.grid(visible=False)
    figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)


def _share(row: Row, value: float) -> float:
    return row.reach / value if row.at_most else value / row.reach
