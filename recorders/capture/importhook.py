"""Attach as soon as sglang's scheduler module has been imported, at whatever time that is."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .sites import SCHEDULER_MODULE

logger = logging.getLogger("specdiff")


class Finder:
    """A meta-path finder that finds nothing itself.

    It delegates to the later finders, and attaches the recorder after the module was executed.
    """

    def __init__(self) -> None:
        self._busy = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != SCHEDULER_MODULE or self._busy:
            return None
        self._busy = True
        try:
            spec = self._ask_later_finders(name, path, target)
        finally:
            self._busy = False
        if spec is not None and spec.loader is not None:
            _then_attach(spec.loader)
        return spec

    def _ask_later_finders(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        finders: list[Any] = list(sys.meta_path)
        later = finders[finders.index(self) + 1 :] if self in finders else finders
        for finder in later:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find else None
            if spec is not None:
                return spec
        return None


def _then_attach(loader: Any) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        attach_quietly()

    loader.exec_module = exec_module  # only on this loader instance, which loads one module


def attach_quietly() -> None:
    """Attach if a recording was requested. A failure is logged, and the import goes on."""
    try:
        from .attach import attach
        from .config import from_env

        config = from_env(os.environ)
        if config is not None:
            attach(config)
    except Exception as error:
        logger.warning(
            "specdiff: cannot attach to sglang's scheduler, so it is not recorded", exc_info=error
        )


def install() -> None:
    """Install the import hook, or attach at once if the scheduler module is already loaded.

    Calling this more than once has no further effect.
    """
    if SCHEDULER_MODULE in sys.modules:
        attach_quietly()
    elif not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
