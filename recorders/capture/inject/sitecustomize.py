"""Runs at the start of every Python process under `specdiff record`.

It installs the import hook and then runs the sitecustomize module that it hides, if there is one.
"""

import contextlib
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _install() -> None:
    """Load the recorders folder by its path, under a private name, and install the import hook."""
    import importlib
    import importlib.util

    name, folder = "specdiff_recorders", os.path.dirname(os.path.dirname(_HERE))
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )
        if spec is None or spec.loader is None:
            return
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    importlib.import_module(name + ".capture.importhook").install()


def _run_next() -> None:
    """Run the `sitecustomize` that this one hides, as if Python had found it. Its errors propagate."""
    import importlib.util
    from importlib.machinery import PathFinder

    # Search only the entries after ours. A sitecustomize before ours may be what ran us; running it
    # again would run us again, and so on.
    paths = [os.path.abspath(path or os.curdir) for path in sys.path]
    last = max((at for at, path in enumerate(paths) if path == _HERE), default=-1)
    spec = PathFinder.find_spec("sitecustomize", sys.path[last + 1 :])
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if os.environ.get("SPECDIFF_RECORD_DIR") and sys.version_info >= (3, 10):
    # Never prevent the process from starting. If the recorder is missing, the parent reports it.
    with contextlib.suppress(Exception):
        _install()
_run_next()
