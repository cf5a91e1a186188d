# scresist: `make demo` shows it, `make test` proves it. Each sets up what it needs.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv/bin
ENGINE ?= docker
TOOLS := core scvi typist tumour micro evidence report
# compiled modules are kept inside the environment: a process without them compiles for seconds
unexport PYTHONDONTWRITEBYTECODE
export PYTEST_ADDOPTS ?= -p no:cacheprovider

.PHONY: help setup demo test test-all lint unit pipeline code docs lock images bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: ## the Python environment, Nextflow and Java, inside this clone
	@if [[ -z "$(PYTHON)" ]]; then echo "[setup] python3 is not on PATH. Mend: apt-get install python3 python3-venv" >&2; exit 1; fi
	@$(PYTHON) containers/setup.py

demo: setup ## a simulated cohort from raw counts to the report, in results/demo
	@mkdir -p .cache/demo
	@$(VENV)/nextflow -log .cache/demo/nextflow.log run . -profile demo --outdir results/demo -work-dir .cache/demo/work -ansi-log false -resume
	@$(VENV)/python tests/show_demo.py results/demo

lint: setup ## ruff, nextflow lint, shell syntax
	@$(VENV)/ruff check .
	@$(VENV)/python tests/lint_nextflow.py
	@bash -n .ci/run

unit: setup ## kernels, scripts, conventions; without slow ones
	@$(VENV)/python -m pytest tests/unit -q -n 2 --dist loadfile -m 'not slow and not real'

pipeline: setup ## Nextflow runs: stub, demo with recovery floors, re-running, bad input
	@$(VENV)/python -m pytest tests/pipeline -q -m 'not slow and not real'

test: lint unit pipeline ## everything that must hold before a change lands, real data included where they are
	@$(VENV)/python -m pytest tests -q -n 2 --dist loadfile -m 'real and not slow'

test-all: lint ## make test and the slow ones
	@$(VENV)/python -m pytest tests -q

code: setup ## refresh conf/code.config after an edit in bin/scresist
	@$(VENV)/python conf/build_code.py

docs: setup ## refresh the generated parts of docs/
	@$(VENV)/python docs/build_parameters.py

lock: setup ## resolve containers/*/requirements.in to pinned, hashed requirements.txt
	@$(VENV)/python containers/lock.py

images: ## build every image: make images [ENGINE=podman] [BASE=image] [PREFIX=scresist]
	@ENGINE="$(ENGINE)" bash containers/build.sh $(TOOLS)

bench: setup ## time our kernels against stock tools, as ratios in the same run; copy number and expression at 91,770 cells, communication at 30,000
	@for name in bench bench_enrichment bench_dose_response bench_expression bench_communication bench_cnv; do $(VENV)/python tests/$$name.py; done

clean: ## remove results and caches, keep the environment
	@rm -rf results .cache .nextflow .nextflow.log*
