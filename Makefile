# The one entry point, for people and for the check before landing. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The board that a target is for: a file in boards/.
BOARD ?= rpi4

export CROSS_CONFIG := $(CURDIR)/cross.toml
# What `make demo` writes about; an empty one means the default.
export PROMPT PAIR POLICY SEED TEMPERATURE MAX_TOKENS POWER

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BINS := $(TARGET_DIR)/release
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
VENV := $(TARGET_DIR)/venv

include $(wildcard boards/*.mk)

.PHONY: help build demo smollm2 test nightly check format lint shell commits no-std licences sim identity kills failover acl-matrix rollout radio evaluate energy bench race paper-size families relay meter docs fuzz clean test-x86 test-remote test-llamacpp verifier-llamacpp \
	need-cargo need-mosquitto need-race need-lint need-python need-npm need-qemu-x86

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

FIRST_BUILD := echo "First build: about 300 crates, tract and candle among them; 5 to 10 minutes on 2 cores."
build: need-cargo ## Build dunlin-agent, dunlin-verifier and the demo (the first build takes some minutes)
	@[ -x $(BINS)/dunlin-demo ] || $(FIRST_BUILD)
	$(CARGO) build --release --locked

# The three programs of a demo, with the features that the whole workspace gives their dependencies.
DEMO := -p dunlin-agent -p dunlin-verifier -p dunlin-stand --bin dunlin-agent --bin dunlin-verifier --bin dunlin-demo
demo: need-cargo $(if $(filter smollm2,$(PAIR)),smollm2) ## Broker, verifier and agent on one prompt, then the target alone: PAIR=smollm2 PROMPT= POLICY= SEED= TEMPERATURE= MAX_TOKENS= POWER=
	@[ -x $(BINS)/dunlin-demo ] || $(FIRST_BUILD)
	$(CARGO) build --release --locked $(DEMO)
	@$(BINS)/dunlin-demo

smollm2: need-python ## The target of PAIR=smollm2, which answers questions: fetched once (93 MB), checked and rounded to Q8_0
	@VENV=$(VENV) models/smollm2/fetch.sh $(TARGET_DIR)/models/smollm2

test: build need-mosquitto ## All tests
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --release --locked --no-fail-fast; \
	else \
		$(CARGO) test --release --locked --no-fail-fast; \
	fi

# What hangs on the bits of floats: the engines' tests and those of the demo pair's rows, on processors that this one isn't.
# Of the golden texts eight, and of the radio's table the default policy's line: the whole takes over 15 minutes a processor.
X86_CPUS ?= Haswell qemu64
X86_RUNNER := CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER
test-x86: build need-qemu-x86 ## The engines' tests on x86-64 with AVX2 and without AVX, under emulation: X86_CPUS=
	@for cpu in $(X86_CPUS); do \
		echo "As $$cpu:"; \
		env $(X86_RUNNER)="qemu-x86_64 -cpu $$cpu" CANDLE_NUM_THREADS=1 DUNLIN_GOLDEN_PROMPTS=8 \
			DUNLIN_RADIO=default $(CARGO) test --release --locked --no-fail-fast \
			--test models --test real_rows --test radio -- --nocapture; \
	done

nightly: ## What takes too long for every change: the pair that is fetched, Arm under emulation, the map, the race, failing verifiers, rollouts to 1000 boards, models of the paper's size, other families of models, a target on llama-server and on llama.cpp, packages, wrong images, a board in QEMU, two builds compared
	$(MAKE) --no-print-directory licences
	$(MAKE) --no-print-directory demo PAIR=smollm2
	$(MAKE) --no-print-directory evaluate PLAN=map
	$(MAKE) --no-print-directory race
	$(MAKE) --no-print-directory failover
	$(MAKE) --no-print-directory rollout
	$(MAKE) --no-print-directory paper-size
	$(MAKE) --no-print-directory verifier-llamacpp
	$(MAKE) --no-print-directory families FAMILIES="--llamacpp $(TARGET_DIR)/llamacpp/release/dunlin-verifier"
	$(MAKE) --no-print-directory test-remote
	$(MAKE) --no-print-directory test-llamacpp
	$(MAKE) --no-print-directory test-arm
	$(MAKE) --no-print-directory test-x86
	$(MAKE) --no-print-directory test-package
	$(MAKE) --no-print-directory test-package-llamacpp
	$(MAKE) --no-print-directory test-image
	$(MAKE) --no-print-directory test-boot BOOT_SEED=$$(date +%s)
	$(MAKE) --no-print-directory test-boot BOOT_SEED=$$(date +%s) BOOT_BOARD=rpi3
	$(MAKE) --no-print-directory reproducible BOARD=virt

check: format lint layers relay shell commits no-std docs ## Formatting, lints of Rust and shell, layers, commit form, and the proof that the core needs no operating system

format: need-cargo
	$(CARGO) fmt --all --check
	@find agent broker-verifier crates fuzz -name '*.rs' -not -path '*/target/*' -print0 | xargs -0 awk -f .ci/imports.awk

lint: need-cargo
	$(CARGO) clippy --release --locked --all-targets -- -D warnings

shell: need-lint
	@boards/check-shell.sh

# The last commit before the rule on the form of commits (CONTRIBUTING.md).
COMMIT_BASE := c1be764f4bf0a707d84f4cfadb8f4c71d872cdb8
commits:
	@.ci/commits $(COMMIT_BASE)

.PHONY: layers
layers: need-cargo ## Who may depend on whom, names that types share, circles between files
	@python3 -B crates/layers_test.py
	@python3 -B crates/layers.py

# The build for a bare-metal target is the real proof; where that target can't be had, a crate with its own
# panic handler shows the same on any host.
BARE := thumbv7em-none-eabihf
no-std: need-cargo
	$(CARGO) check --release --locked -p dunlin-bare --features proof
	@if [ -d "$$(rustc --print target-libdir --target $(BARE) 2>/dev/null)" ]; then \
		$(CARGO) check --release --locked -p dunlin-wire -p dunlin-hlm --target $(BARE); \
	else \
		echo "Skipped the build for $(BARE), which is not installed here (rustup target add $(BARE))."; \
	fi

docs: ## Links, paths and make targets that the documents name, and the demo's picture
	@command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3"; exit 1; }
	@docs/check.py

licences: need-cargo ## Licences and advisories of all dependencies: cargo-deny, or the stored list where its database is missing
	@CARGO="$(CARGO)" .ci/licences

sim: need-cargo ## The protocol under fire with ten times the seeds of `make test`; SIM_SEED=N replays one
	DUNLIN_SIM_RUNS=$(or $(SIM_RUNS),160000) $(if $(SIM_SEED),DUNLIN_SIM_SEED=$(SIM_SEED)) \
		$(CARGO) test --release --locked -p dunlin-sim --test under_fire -- --nocapture

identity: build need-mosquitto ## 100 prompts x 3 seeds x 3 temperatures through mosquitto: text equal to the target's, token for token
	$(CARGO) test --release --locked -p dunlin-stand --test stand identity -- --nocapture

kills: build need-mosquitto ## kill -9 of broker, link and verifier in the middle of generations
	$(CARGO) test --release --locked -p dunlin-stand --test stand kills -- --nocapture

# Strikes of each kind.
FAILOVER ?= 20
failover: build need-mosquitto ## Three verifiers, eight agents, kill -9 and SIGSTOP: identical texts, and how long the gaps in them are; FAILOVER= strikes
	DUNLIN_FAILOVER=$(FAILOVER) $(CARGO) test --release --locked -p dunlin-stand --test stand failover -- --nocapture --test-threads 1

# What the test found stands in a file, so that it is shown whole, and last.
ACL_MATRIX := $(TARGET_DIR)/tmp/acl-matrix.txt
acl-matrix: need-cargo need-mosquitto ## Who may publish and receive what at a mosquitto with the files of dunlin-fleet: every role, topic and receiver, by delivery
	@rm -f $(ACL_MATRIX)
	@status=0; $(CARGO) test --release --locked -p dunlin-fleet --test matrix || status=$$?; \
		if [ -f $(ACL_MATRIX) ]; then cat $(ACL_MATRIX); fi; exit $$status

# Decides what is left to chance.
ROLLOUT_SEED ?= 1
rollout: need-cargo ## 1000 boards in virtual time: bad releases, a storm, kills, a poisoned store: report.json and pictures in target/rollout; ROLLOUT_SEED=
	$(CARGO) run --release --locked -p dunlin-fleet-sim -- $(TARGET_DIR)/rollout $(ROLLOUT_SEED)

radio: build ## The table of frames and bytes per committed token
	$(CARGO) test --release --locked -p dunlin-evaluate --test radio -- --nocapture

# A plan is a name in crates/evaluate/plans or a file. One thread for each target: the cells fill the cores.
PLAN ?= quick
OUT ?= $(TARGET_DIR)/evaluation/$(basename $(notdir $(PLAN)))
evaluate: build ## All policies side by side, with a report: PLAN=quick (a minute), full, risk or a file; OUT= BERTSCORE=
	@CANDLE_NUM_THREADS=1 $(BINS)/dunlin-evaluate --out "$(OUT)" \
		--plan "$(if $(wildcard $(PLAN)),$(PLAN),crates/evaluate/plans/$(PLAN).toml)" \
		$(if $(BERTSCORE),--bertscore "$(BERTSCORE)")

bench: build need-mosquitto need-python ## Speed against onnxruntime and llama.cpp on the same weights, as ratios
	CARGO="$(CARGO)" VENV="$(VENV)" bench/run.sh

# `short`, or flags of bench/race.sh.
RACE ?=
race: build need-race need-python ## Our policies beside llama.cpp's server over a link with delay and loss, as ratios; RACE=short takes a minute
	@VENV="$(VENV)" bench/race.sh $(if $(filter short,$(RACE)),--short,$(RACE))

# Options of bench/paper/paper.py: --kinds q4_k_m or q8_0, --keep the models (7 GB).
PAPER ?=
paper-size: need-cargo need-python ## Models of the paper's size with random weights: memory, replies, times beside llama.cpp; SIZE=small takes a minute; full takes 10 minutes, 16 GB of memory and 9 GB of disk
	@CARGO="$(CARGO)" VENV="$(VENV)" PAPER="$(PAPER)" SIZE="$(SIZE)" bench/paper/run.sh

# Options of bench/families/families.py: --write writes the table in docs/models.md, --llamacpp PROGRAM tries a second engine.
FAMILIES ?=
families: build need-python need-npm ## Models, chat templates and tokenizers of other families against transformers; FAMILIES=--write (needs 7 GB)
	@CARGO="$(CARGO)" FAMILIES="$(FAMILIES)" bench/families/run.sh

test-remote: build smollm2 ## A target on llama-server, which is built once (10 to 20 minutes): replies equal to the server's own
	@VENV="$(VENV)" bench/remote/run.sh

# llama.cpp takes 10 minutes to build, and cmake and libclang; so its crate is no default member. The tests and the verifier are
# built from one set of packages, or else llama.cpp would be built for each.
LLAMACPP := CARGO="$(CARGO)" VENV="$(VENV)" bench/llamacpp/run.sh
LLAMACPP_PACKAGES := -p dunlin-lm-llamacpp -p dunlin-verifier --features dunlin-verifier/llamacpp

verifier-llamacpp: need-cargo need-python ## dunlin-verifier with the engine llama.cpp, as target/llamacpp/release/dunlin-verifier (the first build takes 15 minutes)
	CARGO_TARGET_DIR="$(TARGET_DIR)/llamacpp" $(LLAMACPP) build --release --locked $(LLAMACPP_PACKAGES)

# Its threads spin while they wait, so the tests run one after the other.
test-llamacpp: need-cargo need-python ## The suite of all engines on llama.cpp in process, and the verifier's own tests with it
	CARGO_TARGET_DIR="$(TARGET_DIR)/llamacpp" $(LLAMACPP) test --release --locked $(LLAMACPP_PACKAGES) --lib --test models --test llamacpp -- --test-threads 1

relay: ## The delay, loss and bounds of that link
	@python3 -B bench/race/link_test.py
	@python3 -B bench/race/relay_test.py

energy: need-cargo ## The energy ledger against the truth: errors over rate, shape and trouble, as tables
	$(CARGO) test --release --locked -p dunlin-power --test suite integration -- --nocapture --test-threads 1

meter: need-cargo ## What measuring costs: the meter's processor time, and the drafter's speed beside it
	$(CARGO) bench --profile release --locked -p dunlin-stand --bench meter

fuzz: need-cargo ## Each decoder under libFuzzer for FUZZ_SECONDS (needs nightly and cargo-fuzz)
	@for target in up down open reply presence energy setup fleet object enrol topic document gguf tokenizer template safetensors; do \
		$(CARGO) +nightly fuzz run $$target -- -max_total_time=$(or $(FUZZ_SECONDS),30); \
	done

clean: ## Remove what was built
	$(CARGO) clean

need-cargo:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: see https://rustup.rs, or apt-get install rustup"; exit 1; }

need-mosquitto:
	@SUDO="$(SUDO)" boards/need.sh test

need-race:
	@SUDO="$(SUDO)" boards/need.sh race

need-lint:
	@SUDO="$(SUDO)" boards/need.sh lint

need-qemu-x86:
	@command -v qemu-x86_64 >/dev/null || { \
		echo "Installing the emulator of x86-64"; \
		$(SUDO) apt-get update -qq; $(SUDO) apt-get install -y -qq --no-install-recommends qemu-user; }

need-npm:
	@command -v npm >/dev/null || { echo "npm is missing: apt-get install npm"; exit 1; }

need-python:
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "python3 with venv is missing: apt-get install python3 python3-venv"; exit 1; }
