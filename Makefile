# Start with `make demo` and `make test`. They need only python3, pip and make.

PYTHON ?= python3
VENV ?= .venv
# For torch's CPU build on Linux: make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)

.PHONY: demo test fidelity hunt faults bench bench-record soak gpu-capture lint types wheel clean

# Replay the bundled recordings under the old and the fixed books. They differ, so exit code 1 is success.
demo: $(VENV)/demo
	@$(BIN)/specdiff replay; code=$$?; \
	if [ $$code -ne 1 ]; then echo "demo: expected exit 1 (differs), got $$code" >&2; exit 1; fi

# Run the tests. They record sglang's real scheduler on this CPU; the first run downloads its releases (about 170 MB) into
# the cache. Test files run in parallel, because the tests of a file share recordings. Use JOBS=0 with a debugger.
JOBS ?= 2
# Two test processes and the schedulers that they start take turns on the cores; more threads only get in their way.
test: export OMP_NUM_THREADS ?= 1
test: $(VENV)/test
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --durations 30 --durations-min 3 $(ARGS)

# Compare each release's server with its own lifted functions, 50 runs each: make fidelity ARGS="--releases 0.5.23 --seeds 3"
fidelity: $(VENV)/test
	$(BIN)/python tests/fidelity.py $(ARGS)

# Search at random for divergences and breaches in a release's real scheduler, and shrink what is found.
RELEASE ?= 0.5.23
MINUTES ?= 10
hunt: $(VENV)/test
	$(BIN)/python tests/hunt.py --release $(RELEASE) --minutes $(MINUTES) $(ARGS)

# Run all fault-injection trials (kills, damaged files, failing disks); `make test` runs a few of each.
faults: $(VENV)/test
	SPECDIFF_FAULTS=full $(BIN)/python -m pytest $(ARGS) tests/test_faults_*.py

# Time loading a release, compared with ast.parse of the same files, and time writing a recorded step.
bench: $(VENV)/test
	$(BIN)/python tests/bench_lift.py $(ARGS)
	$(BIN)/python tests/bench_durability.py

# Measure what recording costs a scheduler, by number of running requests, with the recorder on and off in turn.
bench-record: $(VENV)/test
	$(BIN)/python tests/bench_record.py $(ARGS)

# Run a server for minutes, recorded and not recorded in turn: same outputs, nothing dropped, flat memory.
soak: $(VENV)/test
	$(BIN)/python tests/soak.py $(ARGS)

# Record and check sglang on this machine's GPU (docs/gpu.md). Without a GPU, say so and exit.
gpu-capture: $(VENV)/demo
	$(BIN)/python -m specdiff.fixtures.gpu capture $(ARGS)

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test
	mkdir -p .dev && ln -sfn .. .dev/specdiff
	$(BIN)/mypy

# Build the wheel, install it in a venv of its own and run it from another folder.
wheel: $(VENV)/test
	rm -rf build/wheel build/smoke && mkdir -p build/smoke
	$(BIN)/python -m build --quiet --wheel --outdir build/wheel
	$(PYTHON) -m venv build/smoke/venv
	build/smoke/venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		$(PIP_ARGS) build/wheel/*.whl
	cd build/smoke && VENV=venv sh ../../tests/smoke.sh

clean:
	rm -rf $(VENV) build .dev *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

$(VENV)/test: $(VENV)/demo fixtures/rig/requirements.txt
	$(PIP) --editable ".[dev]" --requirement fixtures/rig/requirements.txt
	@touch $@
