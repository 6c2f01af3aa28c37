#!/usr/bin/env bash
# Copies an image and puts a board's set-up file on the copy's first partition, so that its card is ready to boot.
#
# usage: card.sh --check DIR     (only checks the folder)
#        card.sh IMAGE DIR COPY  (DIR holds dunlin.txt, as `dunlin-fleet card NAME --into DIR/dunlin.txt` writes it)
set -euo pipefail
# shellcheck source=boards/image/debian.sh
. "$(dirname "$0")/debian.sh"

# The partition begins where build.sh puts it.
FAT=@@4M
# A board reads no larger file.
SETUP_BYTES_MAX=16384

main() {
    local check='' image copy folder
    case $1 in
        --check) check=yes folder=$2 ;;
        *) image=$1 folder=$2 copy=$3 ;;
    esac
    local setup=$folder/dunlin.txt
    [[ -f $setup ]] || die "$setup is missing" "dunlin-fleet card NAME --into $setup"
    (($(stat -c %s "$setup") <= SETUP_BYTES_MAX)) || die "$setup is larger than the $SETUP_BYTES_MAX bytes that a board reads"
    grep -qiE '^[[:blank:]]*name[[:blank:]]*=[[:blank:]]*[^[:blank:]]' "$setup" || die "$setup names no board" "dunlin-fleet card NAME --into $setup"
    [[ -z $check ]] || return 0
    # The copy holds the board's keys.
    umask 077
    rm -f "$copy" "$copy.sha256"
    cp --sparse=always "$image" "$copy.new"
    MTOOLS_SKIP_CHECK=1 mcopy -o -i "$copy.new$FAT" "$setup" ::dunlin.txt
    mv "$copy.new" "$copy"
    (cd "$(dirname "$copy")" && sha256sum "$(basename "$copy")" >"$(basename "$copy").sha256")
    say "Wrote $copy, with the keys of $setup: keep it to yourself"
}

main "$@"
