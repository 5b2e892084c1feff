# `make demo` and `make test` install everything that they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODE_STAMP := tests/clients/node_modules/.package-lock.json

# `make test ISA=avx2` computes like a processor without AVX-512, in all libraries.
LIBRARIES_avx2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 OPENBLAS_CORETYPE=Haswell
LIBRARIES_baseline := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 OPENBLAS_CORETYPE=Nehalem

# `make test TRANSPORT=grpcio` runs the servers of all tests with that transport.

# Each process runs one test file at a time, in the order of `tests/support/tiers.py`.
PROCESSES := 2
PYTEST = $(if $(ISA),env LEADLINE_SIMD_ISA=$(ISA) $(LIBRARIES_$(ISA))) \
	$(if $(TRANSPORT),env LEADLINE_TRANSPORT=$(TRANSPORT)) $(BIN)/python -m pytest --quiet \
	--numprocesses=$(PROCESSES) --dist=loadfile --no-loadscope-reorder

# Tests start hundreds of processes: compile each module once, and ignore the caller's setting.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo check test unit faults hostile bench-serving lint types protos sync format image image-test clean help
.DEFAULT_GOAL := help

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Leadline needs Python 3.11 or newer; select one with PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## Start a server, train with live progress, predict, show misclassified images.
	$(BIN)/leadline demo

check: lint types unit  ## Check style and types, and run the tests that need no server, in a minute.

$(NODE_STAMP): tests/clients/package-lock.json
	@if command -v npm >/dev/null; then npm ci --prefix tests/clients --loglevel=error && touch $@; \
		else echo "npm is missing: the tests of Node.js clients are skipped"; fi

test: lint types $(NODE_STAMP)  ## Check style and types, then run every test.
	$(PYTEST) --durations=20

unit: PROCESSES := 3  # these tests mostly wait
unit: $(STAMP)  ## Run the tests that need no server, browser or build.
	$(PYTEST) -m 'not system and not other_isa'

faults: $(STAMP)  ## Kill processes, cut connections, fill disks and damage files for 90 minutes; print the results.
	$(BIN)/python tests/faults/run.py

hostile: $(STAMP)  ## Attack servers over both transports for 30 minutes; print the effect on other callers.
	$(BIN)/python tests/hostile/run.py

bench-serving: $(STAMP)  ## Compare serving with Triton and MLServer; see docs/benchmarks.md.
	for mode in "" --engine --beside-training --processes --overload; do \
		$(BIN)/python benchmarks/serving.py $$mode || exit 1; \
	done

lint: $(STAMP)  ## Check the style of the code and the contract, and the imports between packages.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo --cache-dir .cache/imports
	$(BIN)/buf lint

types: $(STAMP)  ## Check the types.
	$(BIN)/mypy

format: $(STAMP)  ## Format the code.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format --write

protos: $(STAMP)  ## Generate the stubs of the contract.
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python protos/generate.py

sync: $(STAMP)  ## Generate the synchronous client from the asynchronous one.
	$(BIN)/python client/generate_sync.py

image:  ## Build the container image with buildah.
	deploy/build-image.sh

image-test:  ## Build the image, start it, train an epoch in it.
	deploy/image-test.sh

clean:  ## Remove the environment and every cache.
	rm -rf $(VENV) tests/clients/node_modules .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
