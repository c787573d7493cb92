# One command a job. Each target sets up .venv by itself the first time (and again when setup.py changes).
PYTHON ?= python3
VENV   ?= .venv
OLDEST ?= .venv-oldest
AUDIT  ?= .venv-audit
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
WORKERS ?= 2

.PHONY: help setup demo quick test test-all test-oldest engines lint audit format bench pictures docs clean
help:
	@echo 'make setup            .venv with everything that the other targets need'
	@echo 'make demo             corpus -> dataset -> training -> evaluation -> sound (about 12 minutes on 2 cores)'
	@echo 'make demo AUDIO=PATH  the same with your own recordings (a file or a folder)'
	@echo 'make quick            the tests that take under a minute: the loop while you work'
	@echo 'make test             the tests, without the slow ones (TensorFlow, then the DSP again on JAX, and PyTorch if installed)'
	@echo 'make test-all         all the tests'
	@echo 'make test-oldest      the tests with the oldest versions within the bounds of setup.py'
	@echo 'make engines          Prism (Go) and the job server of Flink (Maven, Java), whose tests are left out without them'
	@echo 'make lint             ruff and mypy'
	@echo 'make audit            infra/ again with checkov, and with the providers of Terraform that DDSP_TERRAFORM_PROVIDERS names'
	@echo 'make bench            cost of the operations, beside upstream where it is installed'
	@echo 'make docs             the site of the documentation, built strictly into site/'
	@echo 'make pictures         the pictures of the documentation, drawn again'

setup: $(READY)

$(READY): setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed; $$($(PYTHON) --version) was found. Try: make setup PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo 'installing ddsp and what it needs into $(VENV) (about 3 GB, a minute on a fast line)'
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all,dev]' || \
	  { echo 'the tested versions (constraints.txt) are not all to be had here: taking the newest within the bounds of setup.py'; \
	    $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[all,dev]'; }
	@sh infra/install_crepe.sh $(BIN)
	@touch $@

demo: $(READY)
	@$(BIN)/ddsp demo $(if $(AUDIO),--audio '$(AUDIO)') $(DEMO_FLAGS)

# What runs in under a minute: formulas, contracts and messages, without trainings, servers and workers.
QUICK := tests/test_architecture.py tests/ddsp/core/test_core_values.py tests/ddsp/io tests/pipelines/test_options.py \
  tests/pipelines/sources/test_sources.py tests/experiments/cli/test_help.py

quick: $(READY)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile --durations 0 --durations-min 1 $(TEST_FLAGS) $(QUICK)

test: $(READY)
	$(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile $(TEST_FLAGS)
	$(BIN)/python -m pytest --doctest-modules --import-mode prepend $(TEST_FLAGS) ddsp pipelines experiments
	KERAS_BACKEND=jax $(BIN)/python -m pytest -m 'portable and not slow' -n $(WORKERS) --dist loadfile $(TEST_FLAGS) tests/ddsp
	@if ! $(BIN)/python -c 'import torch' 2>/dev/null; then echo 'PyTorch is not installed: its tests are left out'; else \
	  KERAS_BACKEND=torch $(BIN)/python -m pytest -m 'portable and not slow' -n $(WORKERS) --dist loadfile $(TEST_FLAGS) \
	    tests/ddsp/core tests/ddsp/spectral_ops tests/ddsp/losses tests/ddsp/test_processors.py; fi

test-all: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(TEST_FLAGS)
	KERAS_BACKEND=jax $(BIN)/python -m pytest -m portable -n $(WORKERS) --dist loadfile $(TEST_FLAGS) tests/ddsp

# The suite again with the oldest versions that setup.py allows, in an environment of its own.
test-oldest: $(READY)
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --editable '.[all,dev]'
	$(OLDEST)/bin/python -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile $(TEST_FLAGS)

# Into a cache of this user; what is not to be had is named and left out.
engines: $(READY)
	-PYTHON=$(BIN)/python sh infra/flink/get_engines.sh prism
	-PYTHON=$(BIN)/python sh infra/flink/get_engines.sh flink

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# checkov holds other versions than ddsp does: an environment of its own.
audit: $(READY)
	test -x $(AUDIT)/bin/checkov || { $(PYTHON) -m venv $(AUDIT) && \
	  $(BIN)/uv pip install --quiet --python $(AUDIT)/bin/python 'checkov>=3.2,<4'; }
	$(BIN)/python -m pytest -rs $(TEST_FLAGS) tests/infra

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks $(BENCH_FLAGS)

pictures: $(READY)
	$(BIN)/python -m docs.pictures

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(OLDEST) $(AUDIT) site build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
