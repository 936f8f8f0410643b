"""Make a recording that can be shared: apply `pseudonyms` and note that in `derived`."""

from __future__ import annotations

from dataclasses import replace

from .derived import Derived
from .pseudonyms import pseudonymous
from .recording import Recording

_DESCRIPTION = "tokens, request and session ids, rows, the command line and paths replaced"


def redacted(recording: Recording, source: str) -> Recording:
    """Return the redacted recording. `source` is the sha256 of the file that it was read from."""
    step = Derived("redact", source, _DESCRIPTION, requests_left_out=0, tokens_replaced=True)
    redacted = pseudonymous(recording)
    return replace(redacted, derived=(*redacted.derived, step))
