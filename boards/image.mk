# Bootable images. The work is done by boards/image/*.sh, which say what they need.

# DEVICE is a whole card's device, or a file; MODEL another drafter's directory; FIRMWARE a folder of firmware that Debian
# lacks; CARD a folder with a board's dunlin.txt. LOCK=latest leaves the lock of Debian's packages aside, LOCK=or-latest does so where the mirror has them no longer.
export MODEL FIRMWARE LOCK MIRROR MIRROR_SECURITY
# The image of BOARD=, and its copy with the set-up file of CARD=.
IMAGE = $(TARGET_DIR)/image/dunlin-$(basename $(notdir $(BOARD)))
CARD_IMAGE = $(IMAGE)$(if $(CARD),-$(notdir $(CARD:/=)))
IMAGE_ENV = WORK="$(TARGET_DIR)/image" DUNLIN_BOARD="$(BINS)/dunlin-board"

.PHONY: image test-image lock-image flash need-board need-image

image: need-board need-image ## Bootable SD image of BOARD= into target/image/, without root: CARD= MODEL= FIRMWARE= LOCK=latest MIRROR= MIRROR_SECURITY=
	@$(if $(CARD),boards/image/card.sh --check "$(CARD)")
	@$(IMAGE_ENV) boards/image/build.sh --check "$(BOARD)"
	@$(MAKE) --no-print-directory package BOARD="$(BOARD)" PACKAGES="agent $(if $(MODEL),,model-demo)"
	@$(IMAGE_ENV) boards/image/build.sh "$(BOARD)" $$(ls -t $(TARGET_DIR)/packages/dunlin-agent_*_arm64.deb | head -n 1) \
		$(if $(MODEL),,$$(ls -t $(TARGET_DIR)/packages/dunlin-model-demo_*_all.deb | head -n 1))
	@$(if $(CARD),boards/image/card.sh "$(IMAGE).img" "$(CARD)" "$(CARD_IMAGE).img")

test-image: need-board need-image ## What an image is not made of: wrong boards, packages, models, locks, and no space
	@$(IMAGE_ENV) boards/image/test.sh

lock-image: need-board ## Write anew which Debian packages the images are made of
	@$(IMAGE_ENV) boards/image/lock.sh boards/image/packages.lock

flash: need-board ## Write the image of BOARD= onto a card, and read it back: DEVICE=/dev/sdX or a file, CARD=
	@[ -n "$(DEVICE)" ] || { echo "DEVICE= is missing: the card's device (lsblk lists them), or a file"; exit 2; }
	@as=; if [ -b "$(DEVICE)" ] && [ ! -w "$(DEVICE)" ]; then as="$(SUDO)"; fi; \
	$$as "$(BINS)/dunlin-board" flash "$(CARD_IMAGE).img" "$(DEVICE)"

need-board: need-cargo
	@$(CARGO) build --release --locked --quiet -p dunlin-board

need-image:
	@SUDO="$(SUDO)" boards/need.sh image
