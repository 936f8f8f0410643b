"""Record the rig as if it had a GPU: python tests/device_child.py FILE RIG-ARGUMENTS...

While a hook runs, a batch's tensors claim not to be on the CPU. So do the tensors of a result that
sglang has not waited for yet. FILE gets one line for every operation on such a tensor that on a GPU
would wait for the device, or read a value that is not there yet. The last line of FILE is how often
the recorder checked whether a tensor is on the CPU.

Inside a recorded process, the recorder's modules have their own package name (`capture/inject`).
"""

from __future__ import annotations

import atexit
import dataclasses
import importlib
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

attach = importlib.import_module("specdiff_recorders.capture.attach")

# By then sglang has waited for the copy.
_WAITED = ("resolve.before", "resolve.after", "process.after")
_ASKED_THE_HOST = ("dim", "size", "numel", "__len__", "ndimension")
_seen: list[str] = []
_asked = 0


class _Device(TorchFunctionMode):
    def __init__(self, role: str, things: tuple[Any, ...]) -> None:
        super().__init__()
        self._role = role
        self._tensors = [tensor for thing in things for tensor in _tensors_of(thing, role)]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        global _asked
        given = (one for value in (*args, *(kwargs or {}).values()) for one in _inside(value))
        if any(one is tensor for one in given for tensor in self._tensors):
            attribute = getattr(getattr(func, "__self__", None), "__name__", "")
            if attribute == "is_cpu":
                _asked += 1
                return False
            if not attribute and func.__name__ not in _ASKED_THE_HOST:
                _seen.append(f"{self._role}: {func.__name__}")
        return func(*args, **(kwargs or {}))


def _inside(value: Any) -> Any:
    """Return the values to look at: torch.cat takes a list of tensors."""
    return value if isinstance(value, (list, tuple)) else (value,)


def _tensors_of(thing: Any, role: str) -> Iterator[torch.Tensor]:
    is_batch, is_result = hasattr(thing, "forward_mode"), hasattr(thing, "next_token_ids")
    if not is_batch and (not is_result or role in _WAITED):
        return
    for name, value in vars(thing).items():
        if isinstance(value, torch.Tensor) and not name.endswith("_cpu"):
            yield value
        elif name == "spec_info" and hasattr(value, "__dict__"):
            yield from (one for one in vars(value).values() if isinstance(one, torch.Tensor))


def _watched(role: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def watched(recorder: Any, *args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        given += [one for note in given if isinstance(note, tuple) for one in note]
        with _Device(role, tuple(given)):
            return function(recorder, *args, **kwargs)

    return watched


for role, one in attach.PROBES.items():
    before, after = _watched(f"{role}.before", one.before), _watched(f"{role}.after", one.after)
    attach.PROBES[role] = dataclasses.replace(one, before=before, after=after)
said = Path(sys.argv.pop(1))
atexit.register(lambda: said.write_text("\n".join([*_seen, str(_asked)])))
runpy.run_module("specdiff.fixtures.rig", run_name="__main__", alter_sys=True)
