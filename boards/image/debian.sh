# shellcheck shell=bash
# What the scripts of the image share: the Debian that it is made of, and where the work is done. Sourced, not run.
# shellcheck disable=SC2034  # Used by the scripts that source this.

# The Debian release that the image is made from.
SUITE=bookworm
COMPONENTS="main non-free-firmware"
WORK=${WORK:-target/image}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DUNLIN_BOARD=${DUNLIN_BOARD:-target/release/dunlin-board}
# In an image's tree while it is made: what no driver is left for.
LOST=usr/share/dunlin-drivers-lost
# shellcheck source=boards/common.sh
. "$HERE/../common.sh"
# What the image holds apart from the agent; a board's file adds to it ([image] packages).
mapfile -t COMMON_PACKAGES < <(grep -vE '^(#|$)' "$HERE/packages.txt")

# boards_with_image: the names of the boards that an image is made for.
boards_with_image() {
    local board
    for board in $("$DUNLIN_BOARD" list); do
        [[ -z $(board_get "$board" image.boot) ]] || printf '%s\n' "$board"
    done
}
