# What developers type. `make` alone lists it.
.PHONY: help install test lint notebook bench bench-quick bench-kernels bench-compare readme

RESULTS ?= bench/results/headline.json bench/results/lab.json

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: ## install the checkout with everything that developing needs
	pip install -e '.[dev,bench]'

test: ## run the tests
	pytest

lint: ## check style and types (types need an install without -e)
	ruff check .
	ruff format --check .
	cd tests && mypy -p fastmlp --config-file ../pyproject.toml

notebook: ## run the lab as a notebook, lab.ipynb (with QUICK=--quick in a minute)
	python -m fastmlp.lab_notebook lab.ipynb $(QUICK)

bench: ## measure all contenders and rewrite the README's table (half an hour; leave the machine alone)
	python -m bench --suite headline --out bench/results/headline.json
	python -m bench --suite lab --out bench/results/lab.json
	python -m bench.tables README.md $(RESULTS)

bench-quick: ## a look in a minute
	python -m bench --suite quick

bench-kernels: ## time the kernels one by one and keep the run
	pytest bench --benchmark-enable --benchmark-autosave

bench-compare: ## the same, against the last kept run
	pytest bench --benchmark-enable --benchmark-compare

readme: ## rewrite the README's table from the committed results
	python -m bench.tables README.md $(RESULTS)
