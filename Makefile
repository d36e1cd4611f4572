# Needs Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TQDM_DISABLE = 1

.PHONY: setup dev demo test check bench architectures sweep clean

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.lock
	$(PIP) --no-build-isolation -e .
	touch $@

# The tools of tests and checks: pytest, ruff, mypy, a W&B server.
dev: $(VENV)/.installed-dev

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(PIP) -r requirements-dev.lock
	touch $@

# The story: real edits on a real model, by ROME as it was published and by the faithful ROME, and what each leaves of
# eight abilities.
demo: setup
	$(BIN)/python run.py -m experiment=demo
	$(BIN)/python -m afteredit.analysis report runs/demo --out runs/demo/report

# One file at a time on each of two processes (the tiny models gain nothing from threads), whole runs first, so that
# neither process is left alone with them at the end.
test: dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# ruff, types, fast tests
WINGS := store model edit evaluate record analysis launch commands bench
check: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p .typecheck && ln -sfn .. .typecheck/afteredit
	$(BIN)/mypy $(WINGS:%=-p afteredit.%) -m afteredit.run
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not gpu and not real"

# Speed, on an idle machine; ROWS: a folder of the real rows, if at hand.  Writes bench/results.json and the tables of docs/speed.md.
ROWS ?= $(wildcard ../shared/data)
bench: setup
	$(BIN)/python -m afteredit.bench.edits
	$(BIN)/python -m afteredit.bench.evaluation $(ROWS)
	$(BIN)/python -m afteredit.bench.second_moment $(wildcard $(ROWS:%=%/wikitext2*.txt))
	$(BIN)/python -m afteredit.bench.growth
	$(BIN)/python -m afteredit.bench.overhead
	$(BIN)/python -m afteredit.bench.overhead n_edits=50

# Tries the architectures of tests/tiny/supported.py and writes docs/architectures.md.
architectures: dev
	$(BIN)/python -m afteredit.tests.tiny.supported > docs/architectures.md

# Registers the grid with W&B and prints the agents' command; SWEEP: another of sweeps/*.yaml.
SWEEP ?= sweep.yaml
sweep: setup
	$(BIN)/wandb sweep $(SWEEP)

clean:
	rm -rf $(VENV) .typecheck .pytest_cache .ruff_cache .mypy_cache *.egg-info build
