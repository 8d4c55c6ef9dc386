# Thin: what each target runs stands in deploy/setup, CMakeLists.txt and tests/.
BUILD ?= build/release
JOBS ?= $(shell nproc)
SETUP := deploy/setup/install_dependencies.sh
CMAKE := cmake -G Ninja -Wno-dev
export PENSTOCK_DEPS ?= $(HOME)/.cache/penstock/deps
export PENSTOCK_BUILD := $(abspath $(BUILD))

# Lets ccache serve a checkout in another folder.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

.DEFAULT_GOAL := help
.PHONY: help setup configure build configure-cuda build-cuda check-cuda gpu-bundle gpu-test gpu-bench demo experiment-demo serve test parity sanitize fuzz bench format lint clean

help: ## this list
	@echo 'Penstock: a gRPC server for Mixture-of-Experts models with a router per request.'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

setup:
	@$(SETUP) build

configure: setup
	@mkdir -p $(BUILD)
	@$(CMAKE) -S . -B $(BUILD) > $(BUILD)/configure.log || { cat $(BUILD)/configure.log; exit 1; }

build: configure ## the server, the clients and the tests, in build/release
	@ninja -C $(BUILD) -j$(JOBS)

configure-cuda:
	@$(SETUP) build cuda
	@mkdir -p build/cuda
	@$(CMAKE) -S . -B build/cuda -DPENSTOCK_CUDA=ON > build/cuda/configure.log || { cat build/cuda/configure.log; exit 1; }

build-cuda: configure-cuda ## the same with the GPU engine (H100), in build/cuda; needs no GPU
	@ninja -C build/cuda -j$(JOBS)

check-cuda: configure-cuda ## compiles and links every GPU kernel with its suite, and the model on them; needs no GPU
	@ninja -C build/cuda -j$(JOBS) kernels_cuda_test cuda_model_test

gpu-bundle: build-cuda ## what a machine with an H100 runs, in build/gpu-bundle: programs, their libraries, run.sh
	@deploy/gpu/bundle.sh build/cuda build/gpu-bundle

# Both on a machine with a GPU, from a build of its own.
gpu-test: ## the suites that need an H100
	@BIN=build/cuda/bin SUITES=build/cuda/gpu_suites.txt deploy/gpu/run.sh test

gpu-bench: ## the figures of BENCHMARKS.md that need an H100
	@BIN=build/cuda/bin deploy/gpu/run.sh bench

demo: configure ## a real model under six routers at once, over gRPC, measured live
	@$(SETUP) demo
	@ninja -C $(BUILD) -j$(JOBS) penstock penstock-cli
	@deploy/demo/demo.sh

experiment-demo: configure ## experiments between routers of that model: an A/A run, and two damaged routers that guardrails halt
	@$(SETUP) demo
	@ninja -C $(BUILD) -j$(JOBS) penstock penstock-cli penstock-bench
	@deploy/demo/experiment.py

serve: configure ## the demo model on the default ports, until Ctrl-C
	@$(SETUP) demo
	@ninja -C $(BUILD) -j$(JOBS) penstock
	@deploy/demo/demo.sh --serve

test: ## every test that needs no GPU
	@$(SETUP) build test demo
	@$(MAKE) --no-print-directory build
	ctest --test-dir $(BUILD) --output-on-failure -j$(JOBS)

parity: ## live against Hugging Face transformers and tokenizers (fetches 2 GB)
	@$(SETUP) build test demo oracle
	@$(MAKE) --no-print-directory build
	$(PENSTOCK_DEPS)/oracle/bin/python -m pytest -q tests/parity

sanitize: ## the torch-free layers under AddressSanitizer, UBSan and ThreadSanitizer
	@$(SETUP) build test
	tests/sanitize.sh $(JOBS)

fuzz: ## every parser for a minute each (libFuzzer), from the kept corpus; FUZZ_SECONDS=60
	@$(SETUP) build lint
	tests/fuzz/fuzz.sh $(JOBS)

bench: configure ## the figures of BENCHMARKS.md (CPU), beside Hugging Face transformers
	@$(SETUP) demo oracle
	@ninja -C $(BUILD) -j$(JOBS) penstock penstock-cli penstock-bench stream_bench forward_bench experiment_simulation ledger_simulation assignment_bench
	tests/bench/bench.sh

format: ## clang-format over our sources
	@$(SETUP) lint
	git ls-files '*.h' '*.cc' '*.cu' '*.cuh' '*.proto' | xargs clang-format-14 -i

lint: ## clang-tidy and clang-format, without changing anything
	@$(SETUP) build lint
	@$(MAKE) --no-print-directory configure
	@ninja -C $(BUILD) penstock_proto > /dev/null
	git ls-files '*.h' '*.cc' '*.cu' '*.cuh' '*.proto' | xargs clang-format-14 --dry-run -Werror
	run-clang-tidy-14 -quiet -p $(BUILD) -j $(JOBS) '$(CURDIR)/(kernels|routers|server|clients)/.*\.cc$$'

clean: ## remove what was built here; the shared dependencies stay
	rm -rf build
