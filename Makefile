# Needs Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TQDM_DISABLE = 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup dev demo test check wheel pins bench memory architectures sweep clean

# Half the time would go into compiling what is never imported, and into fetching setuptools for each source package.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
PIP := $(INSTALL) --no-deps --no-build-isolation

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -c requirements.lock torch setuptools  # torch brings what its build needs, such as CUDA's libraries
	$(PIP) -r requirements.lock
	$(PIP) -e .
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

# One file at a time on each of three processes (the tiny models gain nothing from threads, and some tests wait for
# processes of their own), whole runs first, so that no process is left alone with them at the end.
test: dev
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# ruff, types, fast tests
WINGS := store model edit evaluate record analysis launch commands bench
check: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p .typecheck && ln -sfn .. .typecheck/afteredit
	$(BIN)/mypy $(WINGS:%=-p afteredit.%) -m afteredit.run
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not gpu and not real"

# dist/: the wheel, and the lock that it is installed with.  The tools that build it are fetched for this alone.
wheel:
	rm -rf build dist
	$(PYTHON) -m venv build/venv
	build/venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	cp requirements.lock dist
	rm -rf build

# Asks the package index, without installing, whether every pin of the locks can be had for other Pythons: as a wheel, or, of
# the pure Python packages that publish none, as source.
SOURCE_ONLY := antlr4-python3-runtime,rouge-score,sqlitedict,word2number
pins: setup
	for python in 3.12 3.13; do $(BIN)/python -m pip install --dry-run --ignore-installed --no-deps --target none --quiet \
		--python-version $$python --only-binary :all: --no-binary $(SOURCE_ONLY) \
		-r requirements.lock -r requirements-dev.lock || exit 1; done

# The table of the presets' memory in docs/models.md: arithmetic, nothing is downloaded.
memory: setup
	$(BIN)/python docs/results/plan/presets.py

# Speed, on an idle machine; ROWS: a folder of the real rows, if at hand.  Writes bench/results.json and the tables of docs/speed.md.
ROWS ?= $(wildcard ../shared/data)
bench: setup
	$(BIN)/python -m afteredit.bench.edits
	$(BIN)/python -m afteredit.bench.evaluation $(ROWS)
	$(BIN)/python -m afteredit.bench.second_moment $(wildcard $(ROWS:%=%/wikitext2*.txt))
	$(BIN)/python -m afteredit.bench.growth
	$(BIN)/python -m afteredit.bench.filled
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
	rm -rf $(VENV) .typecheck .pytest_cache .ruff_cache .mypy_cache *.egg-info build dist
