# What developers type. `make` alone lists it.
.PHONY: help install test fuzz lint notebook bench bench-products bench-quick bench-kernels bench-compare readme compare
.PHONY: cuda-compile gpu test-gpu-venv test-short test-oldest

SUITES ?= headline lab unshifted dense networks predict threads accuracy
AGAINST ?=
MINUTES ?= 12
STEPS ?=
OUT ?= bench/results
# The kernels, the simulated GPU and what people import: none of it needs PyTorch.
SHORT = $(addprefix tests/test_,$(addsuffix .py,cuda cuda_launch cuda_missing contract network lists vector_math mlp \
	modelfile data optimizers initializers callbacks))
PYTHON ?= python3
# From the checkout, installed or not: a machine with a GPU and no network has what it has.
HERE = PYTHONPATH=$(CURDIR) $(PYTHON) -m

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: ## install the checkout with everything that developing needs
	pip install -e '.[dev,bench]'

test: ## run the tests
	pytest

test-short: ## run the tests of the kernels, the simulated GPU and the classes
	pytest $(SHORT)

# Python 3.11 or 3.12, where one is here: for newer ones the oldest NumPy has no wheel.
test-oldest: ## run those with the oldest releases that pyproject.toml allows, on Python 3.11 or 3.12 (or PYTHON=...)
	for python in $(if $(filter file,$(origin PYTHON)),python3.11 python3.12) $(PYTHON); do \
		"$$python" -c "" 2>/dev/null && break; done; \
	work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && "$$python" -m venv "$$work" && \
		"$$work/bin/python" .ci/oldest > "$$work/requirements.txt" && "$$work/bin/pip" install --quiet -r "$$work/requirements.txt" . && \
		NUMBA_CACHE_DIR="$$work/cache" "$$work/bin/pytest" $(SHORT)

fuzz: ## test with 20,000 random files, inputs and interrupts (minutes); FASTMLP_FUZZ_SEED=1 draws others
	FASTMLP_FUZZ=$${FASTMLP_FUZZ:-20000} pytest tests/test_fuzz.py

lint: ## check style and types (types need an install without -e)
	ruff check .
	ruff format --check .
	cd tests && mypy -p fastmlp --config-file ../pyproject.toml

notebook: ## run the lab as a notebook, lab.ipynb (with QUICK=--quick in a minute)
	python -m fastmlp.lab_notebook lab.ipynb $(QUICK)

bench: $(addprefix bench-suite-,$(SUITES)) bench-products readme ## measure all suites and rewrite the tables (hours; leave the machine alone)

bench-suite-%: ## measure one suite: bench-suite-lab
	fastmlp bench --suite $* --out bench/results/$*.json

bench-products: ## measure the products of a wide layer beside the vendors' libraries
	python -m fastmlp.bench.products --out bench/results/products.json

bench-quick: ## a look in a minute
	fastmlp bench --quick

bench-kernels: ## time the kernels one by one and keep the run in .benchmarks/
	pytest bench --benchmark-enable --benchmark-autosave

bench-compare: ## the same against a kept run: the last one, or AGAINST=0001
	@ls .benchmarks/*/*.json >/dev/null 2>&1 || { echo "no run is kept yet; make bench-kernels keeps one" >&2; exit 2; }
	pytest bench --benchmark-enable --benchmark-compare$(if $(AGAINST),=$(AGAINST)) --benchmark-group-by=fullname \
		--benchmark-columns=median,iqr,min,rounds

readme: ## rewrite the tables of README.md and bench/RESULTS.md from the committed results
	python -m fastmlp.bench.tables

compare: ## the lab's five epochs, in fastmlp and in PyTorch, three seeds, and the README's table of them (40 minutes)
	fastmlp compare --epochs 5 --batch-size 5 --seeds 3 --out bench/results/compare
	python -m fastmlp.bench.compared README.md bench/results/compare/compare.json

cuda-compile: ## compile every CUDA kernel for three architectures, without a GPU, and keep the table
	$(HERE) fastmlp.bench.cuda_compile --go-on --out bench/results/cuda_compile.json

gpu: ## all that there is to do on a GPU: right results, speed, contract, sanitizer (MINUTES=6, STEPS="2 3", OUT=folder)
	$(HERE) fastmlp.bench.gpu --minutes $(MINUTES) --steps "$(STEPS)" --out "$(OUT)"

# What a machine with a GPU has, PyTorch and JAX left out.
GPU_PACKAGES = numpy numba 'numba-cuda[cu13]' typer rich scikit-learn matplotlib pillow safetensors pytest hypothesis

test-gpu-venv: ## run what make gpu does before it needs a GPU with the newest releases, on Python 3.12 (or PYTHON=...)
	for python in $(if $(filter file,$(origin PYTHON)),python3.12) $(PYTHON); do "$$python" -c "" 2>/dev/null && break; done; \
	work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && "$$python" -m venv "$$work" && \
		"$$work/bin/pip" install --quiet $(GPU_PACKAGES) && PYTHONPATH=$(CURDIR) NUMBA_CACHE_DIR="$$work/cache" \
		FASTMLP_GPU_PYTHON="$$work/bin/python" "$$work/bin/python" -m pytest -o addopts=-ra tests/test_gpu_machine.py
