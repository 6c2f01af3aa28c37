# Shared by the scripts of the image: sourced, never run.
# shellcheck shell=bash disable=SC2034

# The Debian release that the image is made from.
SUITE=bookworm
COMPONENTS="main non-free-firmware"
WORK=${WORK:-target/image}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DUNLIN_BOARD=${DUNLIN_BOARD:-target/release/dunlin-board}
# In an image's tree while it is made: what no driver is left for.
LOST=usr/share/dunlin-drivers-lost
# shellcheck source=boards/mirror.sh
. "$HERE/../mirror.sh"
# What the image holds apart from the agent; a board's file adds to it ([image] packages).
mapfile -t COMMON_PACKAGES < <(grep -vE '^(#|$)' "$HERE/packages.txt")

say() { printf '%s\n' "$*"; }
die() {
    printf 'image: %s\n' "$*" >&2
    exit 1
}

# need COMMAND PACKAGE: fails with what to install where the command is missing.
need() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || die "$1 is missing: apt-get install $2"
}

# board_get BOARD KEY: the key's value, a list one item a line, nothing where it is absent.
board_get() { "$DUNLIN_BOARD" get "$1" "$2"; }

# boards_with_image: the names of the boards that an image is made for.
boards_with_image() {
    local board
    for board in $("$DUNLIN_BOARD" list); do
        [[ -z $(board_get "$board" image.boot) ]] || printf '%s\n' "$board"
    done
}

# mirror debian|security: the address of the archive, MIRROR= and MIRROR_SECURITY= before what this machine's apt uses.
mirror() {
    local given label
    case $1 in
        debian) given=${MIRROR:-} label=Debian ;;
        security) given=${MIRROR_SECURITY:-} label=Debian-Security ;;
        *) die "no archive is called $1" ;;
    esac
    given=${given:-$(archive_of "$label")}
    [[ -n $given ]] ||
        die "this machine's apt knows no $label archive: say MIRROR= and MIRROR_SECURITY= (a Debian mirror, its security mirror)"
    printf '%s\n' "${given%/}"
}
