# make study [STUDY="full tiny"] [CORES=16]   set up, run a study, leave results/<study>/report.html
# make bench   measure against peers, in an environment of their own, into results/bench.json
# make bench-gpu   measure on this machine's NVIDIA GPU with this machine's torch, into results/bench_gpu.json
# make docs    build the site of the documentation, in an environment of its own, into build/site
# make test | test-slow | test-cluster | lint | format | schema | lock | clean-venv

PYTHON ?= python3
STUDY ?= quick
CORES ?= $(shell $(PYTHON) -c "import os; print(os.cpu_count())")
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
DOCS_VENV := .venv-docs
export PIP_DISABLE_PIP_VERSION_CHECK := 1

overlays := $(foreach name,$(filter-out quick,$(STUDY)),studies/$(name).yaml)
configfiles := $(if $(overlays),--configfile $(overlays))
PIP_INSTALL = $(BIN)/python -m pip install --quiet --require-hashes --no-deps
UV_COMPILE = uv pip compile --override overrides.in --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: study bench bench-gpu docs test test-slow test-cluster lint format schema lock clean-venv

study: $(VENV)/.ready
	$(BIN)/python -m headstrong plan --study $(STUDY) --count
	$(BIN)/snakemake --cores $(CORES) $(configfiles)

test: $(VENV)/.ready-to-test
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(VENV)/.ready-to-test
	$(BIN)/python -m pytest -m slow --ignore tests/cluster

# On a real SLURM on this machine. Without its packages, and as nobody who may install them, the tests are skipped.
test-cluster: $(VENV)/.ready-to-test
	sh tests/cluster/install.sh
	$(BIN)/python -m pytest tests/cluster

bench: $(BENCH_VENV)/.ready
	PYTHONPATH=src $(BENCH_VENV)/bin/python -m benchmarks.bench --output results/bench.json $(BENCH)

# Needs torch, torchvision, numpy, h5py, pandas and scipy, nothing of ours installed. Ends in ten minutes; the next call goes on.
bench-gpu:
	PYTHONPATH=src $(PYTHON) -m benchmarks.bench_gpu --output results/bench_gpu.json $(BENCH)
docs: $(DOCS_VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build --strict --quiet

lint: $(VENV)/.ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: $(VENV)/.ready-to-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

schema: $(VENV)/.ready
	$(BIN)/python -m headstrong schema > config.schema.json

lock:
	cd envs && $(UV_COMPILE) requirements-dev.in -o requirements-dev.lock
	cd envs && $(UV_COMPILE) -c requirements-dev.lock requirements.in -o requirements.lock
	cd envs && $(UV_COMPILE) --override overrides-bench.in -c requirements-dev.lock requirements-bench.in -o requirements-bench.lock
	cd envs && $(UV_COMPILE) requirements-docs.in -o requirements-docs.lock

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'headstrong needs Python 3.11 or later: make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)

# The package itself is installed editable, so that `.venv/bin/python -m headstrong` and the scripts run by hand.
$(VENV)/.ready: envs/requirements.lock pyproject.toml | $(VENV)/bin/python
	$(PIP_INSTALL) -r envs/requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-index --no-build-isolation --editable .
	touch $@

$(VENV)/.ready-to-test: envs/requirements-dev.lock $(VENV)/.ready
	$(PIP_INSTALL) -r envs/requirements-dev.lock
	touch $@

# The peers, beside the same versions of everything that headstrong runs on.
$(BENCH_VENV)/.ready: envs/requirements-bench.lock
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --require-hashes --no-deps -r envs/requirements-bench.lock
	touch $@

# What the site is built with reads docstrings from the source and runs none of it.
$(DOCS_VENV)/.ready: envs/requirements-docs.lock
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --require-hashes --no-deps -r envs/requirements-docs.lock
	touch $@

clean-venv:
	rm -rf $(VENV) $(BENCH_VENV) $(DOCS_VENV)
