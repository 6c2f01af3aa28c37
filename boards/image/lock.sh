#!/usr/bin/env bash
# Writes the lock of the images: every Debian package they need, with its version, hash and path in the archive.
#
# usage: lock.sh FILE
set -euo pipefail
# shellcheck source=boards/image/debian.sh
. "$(dirname "$0")/debian.sh"

main() {
    local file=$1
    need apt-get apt
    prepare_apt
    say "Reading the package lists of $SUITE for arm64"
    apt-get update -qq
    local board closure=$WORK/lock.closure
    : >"$closure"
    mapfile -t boards < <(boards_with_image)
    [[ ${#boards[@]} -gt 0 ]] || die "no file in boards/ has an [image] table with boot"
    for board in "${boards[@]}"; do
        closure_of "$board" >>"$closure"
    done
    header "${boards[*]}" >"$file.tmp"
    lines "${#boards[@]}" <"$closure" >>"$file.tmp"
    mv "$file.tmp" "$file"
    say "Wrote $file: $(grep -vc '^#' "$file") packages for ${boards[*]}"
}

# Sets up a separate apt, for arm64 only and with nothing installed; this machine's apt stays unchanged.
prepare_apt() {
    local root keyring=/usr/share/keyrings/debian-archive-keyring.gpg debian security
    [[ -r $keyring ]] || die "$keyring is missing" "apt-get install debian-archive-keyring"
    debian=$(mirror debian) security=$(mirror security)
    mkdir -p "$WORK/apt"
    root=$(realpath "$WORK/apt")
    mkdir -p "$root"/{lists/partial,cache/archives/partial,etc/apt.conf.d,etc/preferences.d}
    : >"$root/status"
    cat >"$root/etc/sources.list" <<EOF
deb [signed-by=$keyring] $debian $SUITE $COMPONENTS
deb [signed-by=$keyring] $debian $SUITE-updates $COMPONENTS
deb [signed-by=$keyring] $security $SUITE-security $COMPONENTS
EOF
    cat >"$root/conf" <<EOF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
Acquire::ForceHash "SHA256";
Acquire::Languages "none";
Dir::State "$root";
Dir::State::Lists "$root/lists";
Dir::State::status "$root/status";
Dir::Cache "$root/cache";
Dir::Etc "$root/etc";
Dir::Etc::sourcelist "sources.list";
EOF
    export APT_CONFIG=$root/conf
}

# closure_of BOARD: prints a line "BOARD URI FILE SHA256" per package. Those of its start are fetched but not installed.
closure_of() {
    local board=$1
    local -a packages start
    mapfile -t packages < <(board_get "$board" image.packages)
    mapfile -t start < <(start_packages "$board")
    {
        apt-get install -y --print-uris '?essential?not(?exact-name(apt))' "${COMMON_PACKAGES[@]}" "${packages[@]}"
        apt-get download --print-uris "${start[@]}"
    } | sed -nE "s/^'([^']+)' ([^ ]+) [0-9]+ SHA256:([0-9a-f]+)\$/$board \1 \2 \3/p"
}

header() {
    cat <<EOF
# The Debian packages of the images, by make lock-image. Boards: $1
# epoch $(date +%s)
# sha256 package version architecture archive path boards
EOF
}

# Merges the boards' lines and sorts them; "all" stands for every board.
lines() {
    local count=$1 debian security
    debian=$(APT_CONFIG='' mirror debian) security=$(APT_CONFIG='' mirror security)
    awk -v count="$count" -v debian="$debian/" -v security="$security/" '
        function unquoted(text) { gsub(/%3a/, ":", text); gsub(/%2b/, "+", text); gsub(/%7e/, "~", text); return text }
        {
            archive = index($2, security) == 1 ? "security" : "debian"
            path = substr($2, length(archive == "security" ? security : debian) + 1)
            split(substr($3, 1, length($3) - 4), part, "_")
            line = $4 " " part[1] " " unquoted(part[2]) " " part[3] " " archive " " path
            boards[line] = boards[line] (boards[line] == "" ? "" : ",") $1
            seen[line]++
        }
        END { for (line in boards) print line, seen[line] == count ? "all" : boards[line] }' |
        LC_ALL=C sort -k2,2
}

main "$@"
