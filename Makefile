# What developers type. `make` alone lists it.
.PHONY: help install test lint bench bench-quick bench-kernels bench-compare readme compare

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

compare: ## the lab's five epochs, in fastmlp and in PyTorch, five seeds, and the README's table of them (an hour)
	fastmlp compare --epochs 5 --batch-size 5 --seeds 5 --out bench/results/compare
	python -m bench.compared README.md bench/results/compare/compare.json
