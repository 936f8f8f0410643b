"""What `specdiff record --attach` does: ask every recorder of a server, and build what was stopped."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import manifest
from .discovery import processes
from .errors import UsageError
from .manifest import Scheduler
from .ranks import Rank
from .record import new_run_id, own_version, writable
from .recover import Kept, Outcome, Recovered, is_locked, once_mended, recover_journal
from .remote import Answer, ask


@dataclass(frozen=True, slots=True)
class Attached:
    answers: tuple[Answer, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def well(self) -> bool:
        """Everyone did as asked, and all that was stopped became a recording."""
        told = all(one.error is None and one.said.get("written", True) for one in self.answers)
        return told and all(isinstance(outcome, Recovered) for outcome in self.outcomes)


def attached(
    target: str, act: str, directory: Path | None, options: Mapping[str, Any], *, force: bool
) -> Attached:
    """`act` (start, stop, status, flush) at every recorder of `target`, a process number or a recording's folder.

    Raises UsageError where there is none, or nowhere to record to.
    """
    found = processes(target)
    question: dict[str, Any] = {"do": act}
    if act == "start":
        question |= _start(target, directory, options)
    answers = tuple(ask(process, question) for process in found)
    if act == "start":
        with contextlib.suppress(OSError):  # the recorders, which write there, have said it
            manifest.write(
                Path(question["directory"]), question["run_id"], map(_scheduler, answers)
            )
    outcomes: list[Outcome] = []
    for answer in answers if act in ("stop", "flush") else ():
        outcome = _outcome(act, answer, force)
        outcomes += [] if outcome is None else [outcome]
        outcomes += _kept_rings(answer.journal, force) if act == "stop" and answer.journal else ()
    return Attached(answers, tuple(outcomes))


def _kept_rings(journal: Path, force: bool) -> Iterator[Outcome]:
    """What was kept of that ring while it went on, as a law was broken, say, and nobody has built yet."""
    for kept in sorted(journal.parent.glob(f"{glob.escape(journal.stem)}.*{journal.suffix}")):
        yield recover_journal(kept, force=force)


def _outcome(act: str, answer: Answer, force: bool) -> Outcome | None:
    """None where nothing was to be built: nothing was ever recorded, it was built before, or it goes on."""
    journal, was_ended = answer.journal, act == "stop" and "note" not in answer.said
    if journal is None:
        return None
    if answer.kept is not None:
        return Kept(journal, answer.kept, live=True)
    try:
        is_there = journal.exists() and (act == "stop" or not is_locked(journal))
    except OSError as error:
        why = f"{error.strerror or error}. {once_mended(journal.parent)}"
        return Kept(journal, why, live=False)
    return recover_journal(journal, force=force) if was_ended or is_there else None


def _scheduler(answer: Answer) -> Scheduler:
    said = answer.said
    return Scheduler(
        pid=answer.pid,
        rank=Rank(**said["rank"]) if "rank" in said else None,
        journal=answer.journal.name if answer.journal else None,
        left_out="left_out" in said,
        why=said.get("left_out", answer.error),
    )


def _start(target: str, directory: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """One run id for all of them: they are ranks of one server."""
    if directory is None and target.isdecimal():
        raise UsageError(
            f"--attach {target} start: -o DIR is missing, the folder for the recordings"
        )
    told = {**options, "specdiff_version": own_version()}
    folder = writable(directory or Path(target))
    return {"directory": str(folder), "run_id": new_run_id(), "options": told}
