# Two commands for everybody: `make demo` and `make test`. Both need python3, pip and make only.

PYTHON ?= python3
VENV ?= .venv
# Another torch, or a CPU build on Linux: make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)

.PHONY: demo test fidelity hunt faults bench bench-record soak gpu-capture lint types wheel clean

# Replays the bundled recordings under the old and the fixed books. They differ: exit 1 is the success.
demo: $(VENV)/demo
	@$(BIN)/specdiff replay; code=$$?; \
	if [ $$code -ne 1 ]; then echo "demo: expected exit 1 (differs), got $$code" >&2; exit 1; fi

# Records sglang's real scheduler on this CPU: the first run fetches its releases (some 170 MB) into the cache.
# Files in parallel, since a file shares what it records; JOBS=0 for a debugger.
JOBS ?= 2
test: $(VENV)/test
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --durations 30 --durations-min 3 $(ARGS)

# Every release against itself, lifted and replayed, 50 runs each: make fidelity ARGS="--releases 0.5.23 --seeds 3"
fidelity: $(VENV)/test
	$(BIN)/python tests/fidelity.py $(ARGS)

# Random scenarios through a release's real scheduler, against itself lifted and every law; shrinks what it finds.
RELEASE ?= 0.5.23
MINUTES ?= 10
hunt: $(VENV)/test
	$(BIN)/python tests/hunt.py --release $(RELEASE) --minutes $(MINUTES) $(ARGS)

# Kills, damaged files and failing disks at full size, counted at the end; the suite has a few of each.
faults: $(VENV)/test
	SPECDIFF_FAULTS=full $(BIN)/python -m pytest $(ARGS) tests/test_faults_*.py

# How long it takes to load a release, beside a plain ast.parse of the same files; what a recorded step costs.
bench: $(VENV)/test
	$(BIN)/python tests/bench_lift.py $(ARGS)
	$(BIN)/python tests/bench_durability.py

# What recording costs a scheduler, by running requests, with the recorder on and off in turn.
bench-record: $(VENV)/test
	$(BIN)/python tests/bench_record.py $(ARGS)

# A server that is recorded and not in turn for minutes: the same outputs, nothing dropped, memory flat.
soak: $(VENV)/test
	$(BIN)/python tests/soak.py $(ARGS)

# Records sglang on this machine's GPU, and judges it (docs/gpu.md); says so and leaves where there is none.
gpu-capture: $(VENV)/demo
	$(BIN)/python -m specdiff.fixtures.gpu capture $(ARGS)

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test
	mkdir -p .dev && ln -sfn .. .dev/specdiff
	$(BIN)/mypy

# Builds the wheel, installs it alone elsewhere and runs it from another folder.
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
