# One command a job. Each target sets up .venv by itself the first time (and again when setup.py changes).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
WORKERS ?= 2

.PHONY: help setup demo test test-all lint format bench docs pictures clean
help:
	@echo 'make setup            .venv with everything that the other targets need'
	@echo 'make demo             corpus -> dataset -> training -> evaluation -> sound (about 12 minutes on 2 cores)'
	@echo 'make demo AUDIO=PATH  the same with your own recordings (a file or a folder)'
	@echo 'make test             the tests, without the slow ones (TensorFlow, then the DSP again on JAX, and PyTorch if installed)'
	@echo 'make test-all         all the tests'
	@echo 'make lint             ruff and mypy'
	@echo 'make bench            cost of the operations, beside upstream where it is installed'
	@echo 'make docs             the documentation site, in site/'
	@echo 'make pictures         the pictures in docs/, drawn again'

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

test: $(READY)
	$(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile $(TEST_FLAGS)
	KERAS_BACKEND=jax $(BIN)/python -m pytest -m 'portable and not slow' -n $(WORKERS) --dist loadfile $(TEST_FLAGS) tests/ddsp
	@if ! $(BIN)/python -c 'import torch' 2>/dev/null; then echo 'PyTorch is not installed: its tests are left out'; else \
	  KERAS_BACKEND=torch $(BIN)/python -m pytest -m 'portable and not slow' -n $(WORKERS) --dist loadfile $(TEST_FLAGS) \
	    tests/ddsp/core tests/ddsp/spectral_ops tests/ddsp/losses tests/ddsp/test_processors.py; fi

test-all: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(TEST_FLAGS)
	KERAS_BACKEND=jax $(BIN)/python -m pytest -m portable -n $(WORKERS) --dist loadfile $(TEST_FLAGS) tests/ddsp

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks $(BENCH_FLAGS)

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

pictures: $(READY)
	$(BIN)/python -m docs.pictures

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
