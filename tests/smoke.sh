#!/bin/sh
# Try the installed wheel from a folder outside the repository. Run as `VENV=path sh smoke.sh`.
set -eu
run="$VENV/bin/specdiff"
"$run" --help >/dev/null
"$run" replay >replay.txt && code=0 || code=$?
[ "$code" -eq 1 ] || { echo "smoke: replay without arguments exited with $code, expected 1 (differs)" >&2; exit 1; }
for fix in 22651 23456 24851 25818 26126; do
    grep -q "^#$fix" replay.txt || { echo "smoke: the bundled recordings do not show #$fix" >&2; exit 1; }
done
recording=$("$VENV/bin/python" -c "from specdiff.cli.inputs import bundled; print(bundled() / '0.5.23-new-weights.h5')")
"$run" export "$recording" --format scenario -o smoke.toml >/dev/null
# No sglang is installed that could play it. The message names a requirements file of the wheel.
"$run" export "$recording" --format pytest --law weights -o test_smoke.py 2>law.txt && code=0 || code=$?
needs=$(sed -n 's/^Run: pip install -r //p' law.txt)
[ "$code" -eq 125 ] && [ -f "$needs" ] || { echo "smoke: export --law exited $code: $(cat law.txt)" >&2; exit 1; }
"$VENV/bin/python" - <<'PY'
import pathlib, specdiff.recorders.capture as capture

inject = pathlib.Path(capture.__file__).parent / "inject" / "sitecustomize.py"
assert inject.is_file(), f"the wheel lacks {inject}"
PY
echo "smoke: the installed wheel replays its bundled recordings"
