"""`specdiff record --attach`: send a request to every recorder of a server, build what it ended."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import run_manifest
from .discovery import processes
from .errors import UsageError
from .ranks import Rank
from .record import new_run_id, own_version, writable
from .recover import (
    NotRecovered,
    Recovered,
    RecoveryOutcome,
    fix_then_recover,
    is_locked,
    recover_journal,
)
from .remote import ControlAnswer, ask
from .run_manifest import SchedulerEntry


@dataclass(frozen=True, slots=True)
class Attached:
    answers: tuple[ControlAnswer, ...]
    outcomes: tuple[RecoveryOutcome, ...]

    @property
    def ok(self) -> bool:
        """Whether every process did what was requested and every ended journal became a recording."""
        carried_out = all(
            one.error is None and one.fields.get("written", True) for one in self.answers
        )
        return carried_out and all(isinstance(outcome, Recovered) for outcome in self.outcomes)


def attached(
    target: str, act: str, directory: Path | None, options: Mapping[str, Any], *, force: bool
) -> Attached:
    """Send `act` (start, stop, status or flush) to every recorder of `target`.

    `target` is a process number or the folder of a recording. After a stop or a flush, the
    journals that ended are built into recordings.

    Raises UsageError if no process with a recorder is found, or if `start` has no folder to
    record into.
    """
    found = processes(target)
    request: dict[str, Any] = {"do": act}
    if act == "start":
        request |= _start(target, directory, options)
    answers = tuple(ask(process, request) for process in found)
    if act == "start":
        # The recorders write into the same folder and have reported any error themselves.
        with contextlib.suppress(OSError):
            run_manifest.write(
                Path(request["directory"]), request["run_id"], map(_scheduler, answers)
            )
    outcomes: list[RecoveryOutcome] = []
    for answer in answers if act in ("stop", "flush") else ():
        outcome = _outcome(act, answer, force)
        outcomes += [] if outcome is None else [outcome]
        outcomes += _kept_rings(answer.journal, force) if act == "stop" and answer.journal else ()
    return Attached(answers, tuple(outcomes))


def _kept_rings(journal: Path, force: bool) -> Iterator[RecoveryOutcome]:
    """Build the copies of this ring that were kept while it ran (e.g. when a law broke)."""
    for kept in sorted(journal.parent.glob(f"{glob.escape(journal.stem)}.*{journal.suffix}")):
        yield recover_journal(kept, force=force)


def _outcome(act: str, answer: ControlAnswer, force: bool) -> RecoveryOutcome | None:
    """Build the journal that a process ended.

    Return None if there is nothing to build: nothing was recorded, the journal was built before,
    or the recording is still running.
    """
    journal, was_ended = answer.journal, act == "stop" and "note" not in answer.fields
    if journal is None:
        return None
    if answer.kept is not None:
        return NotRecovered(journal, answer.kept, live=True)
    try:
        is_there = journal.exists() and (act == "stop" or not is_locked(journal))
    except OSError as error:
        why = f"{error.strerror or error}. {fix_then_recover(journal.parent)}"
        return NotRecovered(journal, why, live=False)
    return recover_journal(journal, force=force) if was_ended or is_there else None


def _scheduler(answer: ControlAnswer) -> SchedulerEntry:
    fields = answer.fields
    return SchedulerEntry(
        pid=answer.pid,
        rank=Rank(**fields["rank"]) if "rank" in fields else None,
        journal=answer.journal.name if answer.journal else None,
        left_out="left_out" in fields,
        why=fields.get("left_out", answer.error),
    )


def _start(target: str, directory: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a start request. All processes get one run id: they are ranks of one server."""
    if directory is None and target.isdecimal():
        raise UsageError(
            f"--attach {target} start: -o DIR is missing. Name the folder for the recordings with it"
        )
    all_options = {**options, "specdiff_version": own_version()}
    folder = writable(directory or Path(target))
    return {"directory": str(folder), "run_id": new_run_id(), "options": all_options}
