"""How a stand-in says that a lifted function asked for something a recording does not hold."""

from __future__ import annotations

from ...recorders.errors import NoVerdictError


class Missing(BaseException):
    """Raised inside lifted code. Not an Exception: sglang's own `except Exception` must not swallow it."""

    def __init__(self, what: str, verb: str = "reads") -> None:
        super().__init__(what)
        self.what, self.verb = what, verb


class CannotRunError(NoVerdictError):
    """A lifted path cannot run over this recording."""
