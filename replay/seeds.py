"""Whether a recording says where its requests begin."""

from __future__ import annotations

from ..recorders.errors import NoVerdictError
from ..recorders.recording import Recording


def require_seeds(recording: Recording) -> None:
    """Raises NoVerdictError for a decode side whose handovers were not recorded: no path could say where its books begin."""
    run = recording.run
    if not run.decode_side or any(site.name == "prebuilt" and site.attached for site in run.sites):
        return
    raise NoVerdictError(
        "cannot run: this is the decode side of a disaggregated server, recorded without the handovers of its "
        f"requests (specdiff {run.specdiff_version} had no hook on ScheduleBatch.prepare_for_prebuilt); record it anew"
    )
