# The two commands of a newcomer, `make results/winrate.png` and `make test`, with the set-up they need.
# Everything else is Snakemake's and DVC's own: `. .venv/bin/activate`, then `snakemake`, `dvc repro`, …

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# PyPI's torch for Linux is the CUDA build; the CPU build comes from wherever pip is configured to look, or
# from PyTorch's own index. The rest comes by uv, in a third of pip's time, or by pip, where pip alone has been
# told of another index.
TORCH := torch==$(shell sed -n 's/^torch = "\(.*\)"/\1/p' envs/direct.toml)
ifeq ($(shell uname -s),Linux)
TORCH := $(TORCH)+cpu
endif

.PHONY: .venv all test test-slow test-long test-gpu test-cluster lint format pictures docs dvc.yaml envs containers FORCE

all: .venv
	snakemake

results/%: FORCE .venv
	snakemake $@

.venv: .venv/cpu.lock.txt
.venv/cpu.lock.txt: envs/cpu.lock.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Prefline needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install -q --no-deps "$(TORCH)" || \
	    .venv/bin/pip install -q --no-deps --index-url https://download.pytorch.org/whl/cpu "$(TORCH)"
	.venv/bin/pip install -q --no-deps $$(grep '^uv==' $<)
	.venv/bin/uv pip install -q --no-deps --compile-bytecode --python .venv/bin/python -r $< || \
	    .venv/bin/pip install -q --no-deps -r $<
	cp $< $@

# MARKERS: other tests than the fast ones, in pytest's words
test: .venv
	pytest $(if $(MARKERS),-m "$(MARKERS)")

test-slow: .venv
	pytest -m slow

test-long: .venv
	pytest -m long

test-gpu: .venv
	pytest -m gpu -n 0

test-cluster: .venv
	pytest -m cluster

lint: .venv
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	snakemake --lint
	lint-imports --no-cache --no-logo

format: .venv
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

pictures: all
	python -m docs.draw
	cp results/winrate.png docs/winrate.png
	cp results/samples/sft/rewards.png docs/rewards.png

# The site: docs/_build/html/index.html
docs: .venv
	sphinx-build -n -W --keep-going -q -b html docs docs/_build/html

dvc.yaml: .venv
	python -m tools.describe_workflow --dvc dvc.yaml --reruns docs/reruns.md

envs: .venv
	python -m tools.lock_envs

containers: .venv
	python -m tools.write_dockerfiles --out containers
