# Two commands are all a user needs: make demo, make test.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench clean

help:            ## Show what there is
	@grep -hE '^[a-z-]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e '.[audit,text,train,test,bench]'
	@touch $@

setup: $(READY)  ## Make .venv and install

demo: $(READY)   ## Fetch the embedded weights and run the main job
	@$(BIN)/manylens pull embedded
	@$(BIN)/manylens doctor
	$(BIN)/manylens ask "Cut out the cat and tell me what it is" examples/cat.jpg -o out/

lint: $(READY)   ## Style, types and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint       ## Style, types, floors and every test, on real weights
	$(BIN)/pytest

bench: $(READY)  ## List the measured claims
	$(BIN)/python -m benchmarks

clean:           ## Remove what was built
	rm -rf $(VENV) build dist out .mypy_cache .ruff_cache .pytest_cache
