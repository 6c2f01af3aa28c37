#!/usr/bin/env bash
# Fetches a board's packages of the lock into the cache and checks each against its hash.
# Usage: fetch.sh LOCK BOARD; prints nothing but progress. The files are $WORK/cache/SHA256.deb.
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

# cached SHA256: whether the cache holds that file unharmed; a harmed one is removed.
cached() {
    local file=$WORK/cache/$1.deb
    [[ -f $file ]] || return 1
    sha256sum --status -c <<<"$1  $file" || {
        rm -f "$file"
        return 1
    }
}

# Takes what came whole into the cache; says what did not come.
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
        printf 'image: the mirror did not give %d locked packages:\n' $#
        printf '  %s\n' "$@"
        grep -E '^(E|Err):' "$WORK/fetch.log" | head -n 3 || true
        cat <<EOF
Debian keeps a version until some time after its next one. What helps, if the network is up:
  make lock-image                        writes the lock anew, with the versions of today
  make image BOARD=… LOCK=latest         builds once with the versions of today, the lock stays
  MIRROR=… MIRROR_SECURITY=… make image  takes the locked versions from a mirror that keeps old ones (a snapshot mirror)
EOF
    } >&2
    # Told apart from other failures, so that a caller may fall back on LOCK=latest.
    exit 3
}

main "$@"
