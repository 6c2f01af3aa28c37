# A board's image booted in the emulated machine that its file names, with a broker, a verifier and, on "virt", a power
# sensor around it.

BOOT_BOARD ?= virt
# What the random moments of the power cuts are drawn from.
BOOT_SEED ?= 1
# Another image than the one of these sources.
BOOT_IMAGE ?=
BOOT_OUT ?= $(TARGET_DIR)/boot/$(basename $(notdir $(BOOT_BOARD)))

.PHONY: test-boot need-boot

test-boot: build need-boot ## Boot an image in QEMU: set-up, replies, energy, power cuts, slots: BOOT_BOARD=virt or rpi3, BOOT_SEED= BOOT_IMAGE=
	$(if $(BOOT_IMAGE),,@$(MAKE) --no-print-directory image BOARD="$(BOOT_BOARD)")
	@PATH="$$PATH:/usr/sbin:/sbin" $(BINS)/dunlin-test-boot --board "$(BOOT_BOARD)" --seed $(BOOT_SEED) --out "$(BOOT_OUT)" \
		--image "$(or $(BOOT_IMAGE),$(TARGET_DIR)/image/dunlin-$(basename $(notdir $(BOOT_BOARD))).img)"

need-boot:
	@SUDO="$(SUDO)" boards/need.sh boot
