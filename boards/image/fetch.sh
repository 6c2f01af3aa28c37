#!/usr/bin/env bash
# Fetches a board's locked packages into the cache, as $WORK/cache/SHA256.deb, and checks their hashes.
#
# usage: fetch.sh LOCK BOARD
set -euo pipefail
# shellcheck source=boards/image/debian.sh
. "$(dirname "$0")/debian.sh"

main() {
    local lock=$1 board=$2 sha name version archive path boards debian security
    local -a wanted=()
    debian=$(mirror debian) security=$(mirror security)
    mkdir -p "$WORK/cache"
    while read -r sha name version _ archive path boards; do
        [[ $boards == all || ,$boards, == *,$board,* ]] || continue
        cached "$sha" || wanted+=("${!archive}/$path" "$WORK/cache/$sha.part" "SHA256:$sha")
    done < <(grep -v '^#' "$lock")
    [[ ${#wanted[@]} -gt 0 ]] || return 0
    say "Fetching $((${#wanted[@]} / 3)) packages from $debian and $security"
    /usr/lib/apt/apt-helper download-file "${wanted[@]}" >"$WORK/fetch.log" 2>&1 || true
    keep "$lock" "$board"
}

# cached SHA256: succeeds if the cache has that file intact; removes a damaged one.
cached() {
    local file=$WORK/cache/$1.deb
    [[ -f $file ]] || return 1
    sha256sum --status -c <<<"$1  $file" || {
        rm -f "$file"
        return 1
    }
}

# Moves completely fetched files into the cache and reports those that are missing.
keep() {
    local lock=$1 board=$2 sha name version archive path boards
    local -a gone=()
    while read -r sha name version _ archive path boards; do
        [[ $boards == all || ,$boards, == *,$board,* ]] || continue
        [[ ! -f $WORK/cache/$sha.deb ]] || continue
        if [[ -f $WORK/cache/$sha.part ]] && sha256sum --status -c <<<"$sha  $WORK/cache/$sha.part"; then
            mv "$WORK/cache/$sha.part" "$WORK/cache/$sha.deb"
        else
            rm -f "$WORK/cache/$sha.part"
            gone+=("$name $version ($archive: $path)")
        fi
    done < <(grep -v '^#' "$lock")
    [[ ${#gone[@]} -eq 0 ]] || lacking "${gone[@]}"
}

lacking() {
    {
        printf 'error: the mirror did not provide %d locked packages:\n' $#
        printf '  %s\n' "$@"
        grep -E '^(E|Err):' "$WORK/fetch.log" | head -n 3 || true
        cat <<EOF
Debian's mirrors drop a version some time after the next one appears. If the network works, use one of:
  make lock-image                        writes a new lock with today's versions
  make image BOARD=… LOCK=latest         builds once with today's versions and keeps the lock
  MIRROR=… MIRROR_SECURITY=… make image  fetches the locked versions from a mirror that keeps old ones (a snapshot mirror)
EOF
    } >&2
    # A code of its own, so that a caller can fall back to today's packages.
    exit 3
}

main "$@"
