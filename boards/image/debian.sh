# shellcheck shell=bash
# Shared by the scripts for images: the Debian they are made from, and the working folder. Sourced, not run.
# shellcheck disable=SC2034  # Used by the scripts that source this.

# The Debian release that the image is made from.
SUITE=bookworm
COMPONENTS="main non-free-firmware"
WORK=${WORK:-target/image}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DUNLIN_BOARD=${DUNLIN_BOARD:-target/release/dunlin-board}
# A file in an image's tree during the build: the devices whose drivers were removed.
LOST=usr/share/dunlin-drivers-lost
# shellcheck source=boards/common.sh
. "$HERE/../common.sh"
# The packages of every image besides the agent; a board's file adds more ([image] packages).
mapfile -t COMMON_PACKAGES < <(grep -vE '^(#|$)' "$HERE/packages.txt")

# boards_with_image: prints the names of the boards that have an image.
boards_with_image() {
    local board
    for board in $("$DUNLIN_BOARD" list); do
        [[ -z $(board_get "$board" image.boot) ]] || printf '%s\n' "$board"
    done
}

# start_packages BOARD: prints the packages with what runs before the board's kernel. Their files go to the first partition.
start_packages() {
    case $(board_get "$1" image.boot) in
        raspberry-pi) printf '%s\n' raspi-firmware u-boot-rpi ;;
        virt) printf '%s\n' u-boot-qemu ;;
    esac
}
