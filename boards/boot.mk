# The image of the board "virt" booted in an emulated machine, with a broker, a verifier and a power sensor around it.

# What the random moments of the power cuts are drawn from.
BOOT_SEED ?= 1
# Another image than the one of these sources.
BOOT_IMAGE ?=
BOOT_OUT ?= $(TARGET_DIR)/boot

.PHONY: test-boot need-boot

test-boot: build need-boot ## Boot the virt image in QEMU: set-up, replies, energy, power cuts: BOOT_SEED= BOOT_IMAGE=
	$(if $(BOOT_IMAGE),,@$(MAKE) --no-print-directory image BOARD=virt)
	@PATH="$$PATH:/usr/sbin:/sbin" $(BINS)/dunlin-test-boot --seed $(BOOT_SEED) --out "$(BOOT_OUT)" \
		--image "$(or $(BOOT_IMAGE),$(TARGET_DIR)/image/dunlin-virt.img)"

need-boot:
	@SUDO="$(SUDO)" boards/need.sh boot
