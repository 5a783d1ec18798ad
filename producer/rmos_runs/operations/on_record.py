"""Doing something on record: an act from before its first step to its end, whatever ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable
from rmos_shared.jobs.acts import ActKind, ActOutcome
from rmos_shared.jobs.ledger import JobLedger

#: What an act over HTTP came through.
GATEWAY = "gateway"


@dataclass(slots=True)
class Progress:
    """How far an act has come; whoever does it counts."""

    #: None: the broker is away, and the act is on no record.
    act_id: str | None
    #: None: the ledger's own steps count.
    done: int | None = None
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Doing:
    """What somebody is about to do."""

    kind: ActKind
    by: str
    #: Ids, filters, names of files; never a secret.
    about: Mapping[str, Any]
    why: str = ""
    found: int = 1
    #: What it came through on this machine.
    caller: str = "cli"
    #: Of an act that is to be recorded once, however often it is done.
    act_id: str | None = None


@contextmanager
def on_record(
    ledger: JobLedger | None, doing: Doing, *, unrecorded: Callable[[], None] | None = None
) -> Iterator[Progress]:
    """Write down what is about to be done, let the block do it, and write down how it ended.

    Without ``unrecorded`` nothing is done that cannot be written down. With it, it is called when the broker
    is away or damaged, and the block runs all the same.

    Raises:
        BrokerUnavailable: it cannot be written down, and nothing was done.
    """
    progress = Progress(None)
    try:
        if ledger is not None:
            progress.act_id = ledger.acts.begin(
                doing.kind,
                by=doing.by,
                why=doing.why,
                about=doing.about,
                found=doing.found,
                caller=doing.caller,
                act_id=doing.act_id,
            )
    except (BrokerUnavailable, BrokerDamaged):
        if unrecorded is None:
            raise
    if progress.act_id is None and unrecorded is not None:
        unrecorded()
    outcome = ActOutcome.FAILED
    try:
        yield progress
        outcome = ActOutcome.COMPLETE
    except (KeyboardInterrupt, GeneratorExit):
        outcome = ActOutcome.STOPPED
        raise
    finally:
        if ledger is not None and progress.act_id is not None:
            with suppress(BrokerUnavailable, BrokerDamaged):
                ledger.acts.end(progress.act_id, outcome, refused=progress.refused, done=progress.done)


def recorded(
    pieces: Iterator[bytes], ledger: JobLedger, doing: Doing, unrecorded: Callable[[], None]
) -> Iterator[bytes]:
    """Yield what is taken away, on record from before its first piece; who stops reading stops the act."""
    with on_record(ledger, doing, unrecorded=unrecorded) as progress:
        yield from pieces
        progress.done = doing.found
