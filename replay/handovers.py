"""Check that a decode side was recorded with the handovers of its requests, where their books begin."""

from __future__ import annotations

from ..recorders.errors import NoVerdictError
from ..recorders.recording import Recording


def require_handovers(recording: Recording) -> None:
    """Raise NoVerdictError for a decode side without recorded handovers: no path could know where its books begin."""
    run = recording.run
    if not run.decode_side or any(site.name == "prebuilt" and site.attached for site in run.sites):
        return
    raise NoVerdictError(
        "cannot run: this recording of the decode side of a disaggregated server does not contain the handovers of its "
        f"requests (specdiff {run.specdiff_version} had no hook on ScheduleBatch.prepare_for_prebuilt). Record it again"
    )
