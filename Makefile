# Every target works on a bare machine: what it needs is made first, and found the next time. PYTHON=... chooses the interpreter.
BIN := .venv/bin
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup environment demo test lint typecheck format bench clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv, and have an engine and the image of the examples.
	@scripts/setup

demo: setup ## Run a notebook in a container, and show what that gives.
	@CONTAINER_KERNELS_AUTOSTART=1 $(BIN)/python examples/demo.py

test: ## Set up every engine that this machine can have, then check and test everything.
	@engines="$$(scripts/setup every)" \
	&& $(MAKE) --no-print-directory lint typecheck \
	&& CONTAINER_KERNELS_TEST_ENGINES="$$engines" $(BIN)/python -m pytest -n 3 --dist loadgroup

lint: environment ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: environment ## Check types.
	$(BIN)/mypy

format: environment ## Format, and repair what can be repaired.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Measure, against plain kernels, plain containers and other provisioners.
	@$(BIN)/python -m pip install --quiet --group bench
	@$(BIN)/container-kernels build python data
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/chart.py
	$(BIN)/python benchmarks/notebook.py
	$(BIN)/python benchmarks/burst.py
	$(BIN)/python benchmarks/refill.py

clean: ## Remove what the other targets made here; images and engines stay.
	rm -rf .venv .cache build dist .mypy_cache .pytest_cache .ruff_cache .coverage examples/results benchmarks/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

environment:
	@scripts/environment
