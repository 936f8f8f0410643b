"""How a stand-in reports that a lifted function asked for something that a recording does not hold."""

from __future__ import annotations

from ...recorders.errors import NoVerdictError


class Missing(BaseException):
    """Raised inside lifted code.

    It is not an Exception, so that sglang's own `except Exception` does not catch it.
    """

    def __init__(self, what: str, verb: str = "reads") -> None:
        super().__init__(what)
        self.what, self.verb = what, verb


class CannotRunError(NoVerdictError):
    """A lifted path cannot run over this recording."""
