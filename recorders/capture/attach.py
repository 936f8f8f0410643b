"""Attach the probes to a loaded sglang: find each site, wrap it, and write what was found to a note."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..run import Site
from . import (
    batch_probes,
    finish_probes,
    request_probes,
    sent_probes,
    session_probes,
    step_probes,
    trainer_probes,
)
from .config import Config
from .fingerprint import function_hash
from .probe import MARK, wrap
from .process_state import ProcessState
from .sites import SITES, HookSite
from .startup import Startup

PROBES = {
    **batch_probes.PROBES,
    **finish_probes.PROBES,
    **request_probes.PROBES,
    **sent_probes.PROBES,
    **session_probes.PROBES,
    **step_probes.PROBES,
    **trainer_probes.PROBES,
}
# The roles whose function is a method of the scheduler, so that `self` tells which scheduler it is.
_ON_SCHEDULER = frozenset({"arrive", "launch", "process", "abort", "pause", "continue", "weights"})


@dataclass(frozen=True, slots=True)
class LocatedSite:
    """A site in this sglang. `function` is `owner.name` as it was before the hook."""

    site: HookSite
    place: str
    owner: Any
    name: str
    function: Callable[..., Any]


def attach(config: Config) -> ProcessState | None:
    """Hook the scheduler of this process. Return None if it is hooked already (see `plugin`)."""
    found = {site.role: _find(site) for site in SITES}
    init = found["init"]
    if init is not None and hasattr(init.function, MARK):
        return None
    state = ProcessState(config, [site for site in SITES if found[site.role] is None])
    if not state.missing_essential:
        startup = Startup(state)
        for item in found.values():
            if item is not None:
                _patch(item, state, startup)
    state.sites = lambda: tuple(_describe(site, found[site.role]) for site in SITES)
    state.note.open()
    return state


def _find(site: HookSite) -> LocatedSite | None:
    """Return the first place that exists, or None.

    Modules that are already loaded are tried before others are imported.
    """
    for load in (sys.modules.get, _import):
        for place in site.places:
            module_name, qualified = place.split(":")
            owner: Any = load(module_name)
            *path, name = qualified.split(".")
            for part in path:
                owner = getattr(owner, part, None)
            function = getattr(owner, name, None)
            if callable(function):
                return LocatedSite(site, place, owner, name, function)
    return None


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _patch(found: LocatedSite, state: ProcessState, startup: Startup) -> None:
    role = found.site.role
    if role == "init":
        wrapper = startup.wrap(found.function)
    else:
        current = state.of_scheduler if role in _ON_SCHEDULER else state.of_process
        wrapper = wrap(found.function, role, PROBES[role], current)
    setattr(found.owner, found.name, wrapper)
    if not isinstance(found.owner, type):
        _rebind(found.function, wrapper)


def _rebind(original: Any, wrapper: Any) -> None:
    """Replace a module function in every sglang module that imported it by name."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "sglang":
            for key, value in list(getattr(module, "__dict__", {}).items()):
                if value is original:
                    setattr(module, key, wrapper)


def _describe(site: HookSite, found: LocatedSite | None) -> Site:
    """Describe a site as it is now. `attached` is read back from the class or module."""
    if found is None:
        return Site(site.role, site.places[-1], False, site.essential, None)
    now = getattr(found.owner, found.name, None)
    attached = getattr(now, MARK, None) == site.role
    return Site(site.role, found.place, attached, site.essential, function_hash(found.function))
