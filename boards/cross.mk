# Cross builds: what they need, the programs, and what is measured of them. The work is done by boards/cross/*.sh.

export ARM_ONLY ARM_CASES ARM_GOLDEN_PROMPTS ARM_ALL
CROSS := CARGO="$(CARGO)" BOARD="$(BOARD)" boards/cross

.PHONY: toolchain agent verifier reproducible figures test-arm need-figures

toolchain: need-cargo ## Install what builds for BOARD= need: standard library, linker, zig, emulator
	@$(CROSS)/toolchain.sh

agent: need-cargo ## dunlin-agent for BOARD=, into target/board/<triple>/: BUILD_WITH=native, cross, zig or gnu forces a way
	@$(CROSS)/build.sh agent

verifier: need-cargo ## dunlin-verifier for BOARD=
	@$(CROSS)/build.sh verifier

reproducible: need-cargo ## Build the agent for BOARD= in two folders and compare the bytes
	@$(CROSS)/reproducible.sh

figures: need-figures agent ## Size, memory and start of the agent for BOARD=, against the aims
	@$(CROSS)/figures.sh

test-arm: need-cargo ## The core's and the models' tests as arm64 (and the core's as armv7) under emulation: ARM_ONLY=armv7
	@CARGO="$(CARGO)" boards/cross/test-arm.sh

need-figures:
	@SUDO="$(SUDO)" boards/need.sh figures
