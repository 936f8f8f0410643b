"""Check one law, given by name, for one path over one recording."""

from __future__ import annotations

from ...recorders.errors import UsageError
from ...recorders.recording import Recording
from ..columns.shared import Columns
from ..explain import Toggles
from ..spec import Path
from ..verdict import ledger_of
from .check import LAWS, outcome_of
from .law import Law, LawOutcome


def law_of(name: str) -> Law:
    """Return the law with this name. Raises UsageError if there is none."""
    found = next((law for law in LAWS if law.name == name), None)
    if found is None:
        raise UsageError(f"no law {name!r}; there are: {', '.join(law.name for law in LAWS)}.")
    return found


def check_law(law: Law, recording: Recording, path: Path) -> LawOutcome:
    """Check the law for this path. Raises NoVerdictError if the path cannot run this recording."""
    columns = Columns(recording)
    return outcome_of(law, columns, ledger_of(columns, Toggles(columns), path))
