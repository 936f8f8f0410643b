"""The second way to attach: sglang's plugin entry point (`sglang.srt.plugins`, from 0.5.11 on).

It works on a server that has specdiff installed. The first way is `inject/sitecustomize.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

from .config import DIR

PRIVATE = "specdiff_recorders"  # `inject/sitecustomize.py` loads the folder under the same name


def register() -> None:
    """Install the import hook if a recording was requested.

    sglang calls this in every process that loads plugins.
    """
    if not os.environ.get(DIR):
        return
    if PRIVATE not in sys.modules:
        _load(Path(__file__).parents[1])
    importlib.import_module(f"{PRIVATE}.capture.importhook").install()


def _load(folder: Path) -> None:
    """Load the recorders folder under its private name, so that both ways to attach share one copy."""
    spec = importlib.util.spec_from_file_location(
        PRIVATE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[PRIVATE] = module
    spec.loader.exec_module(module)
