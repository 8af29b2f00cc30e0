# make install | demo | test | check: each alone is enough on a machine with Python 3.11+, git and make.
PYTHON ?= python3
PORT ?= 7860
# Address of an index with CPU-only wheels of torch and torchvision, for an installation without the CUDA libraries.
TORCH_INDEX ?=

BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install demo test test-cluster fuzz soak check format

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; choose one with make PYTHON=...")'
	@echo "Installing into .venv: some minutes, and several GB without TORCH_INDEX."
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable ".[app,dev]"
	@touch $@

demo: install
	L2D_PORT=$(PORT) $(BIN)/python -m app

# Three processes, each with a row of neighbours that share what was prepared for them: on two cores, one works while another waits.
test: install
	$(BIN)/python -m pytest -n 3 --dist worksteal

test-cluster: install
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[app,dev,ray]"
	$(BIN)/python -m pytest -m cluster

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What a stranger may send: everything that the API documents and forbids, and damaged pictures. Some minutes.
fuzz: install
	$(BIN)/python -m pytest -m "slow or not slow" -s tests/app/test_fuzz.py

# 20,000 requests to a real server: memory flat, no file descriptor lost. Some minutes.
soak: install
	$(BIN)/python -m pytest -m slow -s tests/app/test_soak.py
