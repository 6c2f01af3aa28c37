# shellcheck shell=bash
# What every script in boards/ shares. Sourced, not run.
# shellcheck disable=SC2034  # Used by the scripts that source this.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target_dir=${CARGO_TARGET_DIR:-$root/target}
CARGO=${CARGO:-cargo}
# Debian keeps the tools for disks and file systems where a user's PATH doesn't look.
PATH=$PATH:/usr/sbin:/usr/local/sbin:/sbin

say() { printf '%s\n' "$*"; }

# die MESSAGE HINT…: ends the script with code 1; each hint is printed on its own line below the message.
die() {
    printf 'error: %s\n' "$1" >&2
    (($# == 1)) || printf '  %s\n' "${@:2}" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# need COMMAND PACKAGE: ends the script where the command is missing; PACKAGE is the Debian package that has it.
need() { have "$1" || die "$1 is missing" "apt-get install $2"; }

# install_packages PACKAGE…: installs Debian packages. SUDO= is the command put before apt-get; the default is sudo for
# every user but root.
install_packages() {
    local sudo apt
    have apt-get || die "these packages are missing, and there is no apt-get to install them: $*" \
        "Install them with your system's package manager; the names are Debian's."
    sudo=${SUDO-$([[ $(id -u) == 0 ]] || echo sudo)}
    read -ra apt <<<"$sudo apt-get"
    printf 'Installing %s\n' "$*" >&2
    # The package lists are often new enough, and fetching them takes longer than the packages.
    "${apt[@]}" install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return
    { "${apt[@]}" update -qq && "${apt[@]}" install -y -qq --no-install-recommends "$@" >/dev/null; } ||
        die "apt-get could not install $*" "Is there a network? Do 'apt-get update' and 'apt-cache policy $1' work?"
}

# board_get BOARD KEY: the key's value, a list as one item per line, nothing where it is absent. DUNLIN_BOARD names a
# dunlin-board that is built already.
board_get() {
    if [[ -n ${DUNLIN_BOARD:-} ]]; then
        "$DUNLIN_BOARD" get "$1" "$2"
        return
    fi
    (cd "$root" && env -u RUSTC -u RUSTDOC -u RUSTFLAGS CARGO_TARGET_DIR="$target_dir" \
        "$CARGO" run --quiet --release --locked -p dunlin-board -- get "$1" "$2")
}

# archive_of LABEL: the address from which this machine's apt gets the archive with that label (Debian,
# Debian-Security); nothing where apt has none.
archive_of() {
    # shellcheck disable=SC2016  # Variables of apt, not of the shell.
    apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' | sed -n "s|/*$||; s/^$1|//p" | head -n 1
}

# mirror debian|security: the address of that archive. MIRROR= and MIRROR_SECURITY= come before what apt uses.
mirror() {
    local given label
    case $1 in
        debian) given=${MIRROR:-} label=Debian ;;
        security) given=${MIRROR_SECURITY:-} label=Debian-Security ;;
        *) die "unknown archive $1: use debian or security" ;;
    esac
    given=${given:-$(archive_of "$label")}
    [[ -n $given ]] || die "apt on this machine has no $label archive" \
        "Set MIRROR= and MIRROR_SECURITY= to a Debian mirror and its security mirror."
    printf '%s\n' "${given%/}"
}
