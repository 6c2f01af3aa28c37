# Debian packages for a board's architecture, and their test. The work is done by boards/package/*.sh.

# Which packages: agent, model-demo, verifier, and verifier-llamacpp of what `make verifier-llamacpp` built; all of the first three that there are for the architecture where it is empty.
PACKAGES ?=
# As root of a chroot only; nothing here changes this machine.
TEST_PACKAGE := $(if $(SUDO),$(SUDO) --preserve-env) env PATH="$(PATH):/usr/sbin:/sbin" CARGO_TARGET_DIR="$(abspath $(TARGET_DIR))"

.PHONY: package check-package test-package test-package-llamacpp need-packager need-package-tests

package: need-cargo need-packager ## Debian packages for BOARD= into target/packages/: agent, demo model, verifier; PACKAGES= picks, PREBUILT=1 builds no program
	@CARGO="$(CARGO)" BOARD="$(BOARD)" boards/package/build.sh $(PACKAGES)

check-package: need-cargo need-package-tests ## Of the packages for BOARD= that are there: lintian, the same bytes twice, the agent starts under emulation
	@CARGO="$(CARGO)" BOARD="$(BOARD)" boards/package/check.sh

test-package: need-package-tests ## Install, upgrade, remove and purge the packages in a clean Debian, boot it and ask; lintian; sandboxes
	@$(MAKE) --no-print-directory package BOARD=host PACKAGES="agent model-demo verifier"
	@CARGO="$(CARGO)" BOARD=host boards/package/check.sh
	@$(TEST_PACKAGE) boards/package/test.sh

test-package-llamacpp: verifier-llamacpp need-package-tests ## The same with dunlin-verifier-llamacpp, whose target runs on llama.cpp
	@$(MAKE) --no-print-directory package BOARD=host PACKAGES="agent model-demo verifier-llamacpp"
	@VERIFIER=dunlin-verifier-llamacpp $(TEST_PACKAGE) boards/package/test.sh

need-packager:
	@SUDO="$(SUDO)" boards/need.sh package

need-package-tests:
	@SUDO="$(SUDO)" boards/need.sh package_tests
