"""A recording that may be passed on: everything replaced that `pseudonyms` knows, and said so."""

from __future__ import annotations

from dataclasses import replace

from .derived import Derived
from .pseudonyms import pseudonymous
from .recording import Recording

_SAYS = "tokens, request and session ids, rows, the command line and paths replaced"


def redacted(recording: Recording, source: str) -> Recording:
    """`source`: sha256 of the file that it was read from."""
    step = Derived("redact", source, _SAYS, requests_left_out=0)
    made = pseudonymous(recording)
    return replace(made, derived=(*made.derived, step))
