# The two commands of a newcomer, `make results/winrate.png` and `make test`, with the set-up they need.
# `make help` lists the others. Everything else is Snakemake's and DVC's own: `. .venv/bin/activate`, then
# `snakemake`, `dvc repro`, …

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# DEVICE: the builds in .venv, cpu or cuda; by default those that it has, or that suit this machine's driver.
# EXTRAS: flash-attn, deepspeed or both, with a comma; they are compiled, with the toolkit of CUDA.
DEVICE := $(or $(DEVICE),$(patsubst .venv/%.lock.txt,%,$(wildcard .venv/*.lock.txt)),$(shell \
    $(PYTHON) -m prefline.machine.device 2>/dev/null || echo cpu))
ifeq ($(filter cpu cuda,$(DEVICE)),)
$(error DEVICE is $(DEVICE); it can be cpu or cuda)
endif
comma := ,

# PyPI's torch for Linux is the CUDA build; the CPU build comes from wherever pip is configured to look, or
# from PyTorch's own index. The rest comes by uv, in a third of pip's time, or by pip, where pip alone has been
# told of another index.
TORCH := torch==$(shell sed -n 's/^torch = "\(.*\)"/\1/p' envs/direct.toml)
ifeq ($(shell uname -s),Linux)
TORCH := $(TORCH)+cpu
endif
INSTALL_CPU_TORCH := .venv/bin/pip install -q --no-deps "$(TORCH)" || \
    .venv/bin/pip install -q --no-deps --index-url https://download.pytorch.org/whl/cpu "$(TORCH)"

.PHONY: .venv help all test test-slow test-long test-gpu test-cluster lint format pictures docs reruns envs containers FORCE

# Builds for the CPU compute on it, whatever the machine has.
SNAKEMAKE := snakemake$(if $(filter cpu,$(DEVICE)), --resources gpu=0 --)

# `make help` prints the text after ## of each target.
all: .venv ## install .venv, then make everything: policies, win rates, the report
	$(SNAKEMAKE)

help: ## this list
	@awk -F ':.*## ' '/^[^#\t ].*:.*## / { sub("%", "FILE", $$1); printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

results/%: FORCE .venv ## make one result and what it needs: results/winrate.png is the picture
	$(SNAKEMAKE) $@

.venv: .venv/$(DEVICE).lock.txt $(patsubst %,.venv/%.extra,$(subst $(comma), ,$(EXTRAS))) ## install the locked environment; with DEVICE=cuda or cpu, EXTRAS=flash-attn,deepspeed
.venv/cpu.lock.txt .venv/cuda.lock.txt: .venv/%.lock.txt: envs/%.lock.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Prefline needs Python 3.11 or newer: make PYTHON=python3.12")'
	@$(PYTHON) -m prefline.machine.device $*
	$(PYTHON) -m venv --clear .venv
	$(if $(filter cpu,$*),$(INSTALL_CPU_TORCH))
	.venv/bin/pip install -q --no-deps $$(grep '^uv==' $<)
	.venv/bin/uv pip install -q --no-deps --compile-bytecode --python .venv/bin/python -r $< || \
	    .venv/bin/pip install -q --no-deps -r $<
	cp $< $@

.venv/%.extra: .venv/$(DEVICE).lock.txt
	@grep -q "extra == '$*'" $< || { echo "error: no extra $*: they are flash-attn and deepspeed, with DEVICE=cuda" >&2; exit 1; }
	@.venv/bin/python -m prefline.machine.device extras
	.venv/bin/pip install -q --no-deps $$(sed -n "/^$*==/d; s/ ; extra == '$*'//p" $<)
	.venv/bin/pip install -q --no-deps --no-build-isolation $$(sed -n "s/^\($*==.*\) ;.*/\1/p" $<)
	touch $@

# MARKERS: other tests than the fast ones, in pytest's words
test: .venv ## run the fast tests, or those of pytest's markers in MARKERS
	pytest $(if $(MARKERS),-m "$(MARKERS)")

test-slow: .venv ## run whole runs, DVC and killed processes
	pytest -m slow

test-long: .venv ## run every config value under both engines
	pytest -m long

test-gpu: .venv ## run the tests that need a GPU
	pytest -m gpu -n 0

test-cluster: .venv ## run those that start a Slurm, as root on Debian or Ubuntu
	pytest -m cluster

lint: .venv ## check style and imports
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	snakemake --lint
	lint-imports --no-cache --no-logo

format: .venv ## correct the style
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

pictures: all ## draw the pictures of README and docs
	python -m docs.draw
	cp results/winrate.png docs/winrate.png
	cp results/samples/sft/rewards.png docs/rewards.png

docs: .venv ## build the site: docs/_build/html/index.html
	sphinx-build -n -W --keep-going -q -b html docs docs/_build/html

reruns: .venv ## write the table of what runs again: docs/reruns.md
	python -m tools.write_reruns --out docs/reruns.md

envs: .venv ## write the environments from the lock
	python -m tools.lock_envs

containers: .venv ## write the Dockerfiles from the environments
	python -m tools.write_dockerfiles --out containers
