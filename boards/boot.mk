# The image of the board "virt" booted in an emulated machine, with a broker, a verifier and a power sensor around it.

# What the random moments of the power cuts are drawn from.
BOOT_SEED ?= 1
BOOT_IMAGE ?= $(TARGET_DIR)/image/dunlin-virt.img
BOOT_OUT ?= $(TARGET_DIR)/boot

.PHONY: test-boot need-boot

test-boot: build need-boot ## Boot the virt image in QEMU: set-up, replies, energy, power cuts: BOOT_SEED= BOOT_IMAGE=
	@[ -f "$(BOOT_IMAGE)" ] || $(MAKE) --no-print-directory image BOARD=virt
	@PATH="$$PATH:/usr/sbin:/sbin" $(BINS)/dunlin-test-boot --seed $(BOOT_SEED) --image "$(BOOT_IMAGE)" --out "$(BOOT_OUT)"

need-boot:
	@SUDO="$(SUDO)" boards/boot/need.sh
