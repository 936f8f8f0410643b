"""The second way in: sglang's plugin entry point (`sglang.srt.plugins`, 0.5.11 on), for a server that has specdiff installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

from .config import DIR

PRIVATE = "specdiff_recorders"  # the name under which `inject/sitecustomize.py` loads it, too


def register() -> None:
    """Called by sglang in every process that loads plugins; does nothing unless a recording was asked for."""
    if not os.environ.get(DIR):
        return
    if PRIVATE not in sys.modules:
        _load(Path(__file__).parents[1])
    importlib.import_module(f"{PRIVATE}.capture.importhook").install()


def _load(folder: Path) -> None:
    """Load the recorders folder under its private name, so that both ways in share one copy of it."""
    spec = importlib.util.spec_from_file_location(
        PRIVATE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[PRIVATE] = module
    spec.loader.exec_module(module)
