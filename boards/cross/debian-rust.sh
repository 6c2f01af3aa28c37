#!/usr/bin/env bash
# Unpacks Debian's Rust with the standard library of another architecture below target/toolchain, where rustup can't be
# had. It uses a package index of its own: adding an architecture to this machine's dpkg would touch every
# `apt-get update` here from then on. Nothing is installed, and root isn't needed.
#
# usage: debian-rust.sh TARGET
set -euo pipefail
# shellcheck source=boards/cross/target.sh
. "$(dirname "$0")/target.sh"

triple=$1
target_facts
apt_root=$toolchain_dir/apt
host_arch=$(dpkg --print-architecture 2>/dev/null || true)
# rustc-web is Debian's current Rust for its own browsers, newer than the release's rustc.
compiler=rustc-web
library=libstd-rust-web-dev

private_apt() {
    local name mirror security
    # shellcheck disable=SC1091
    name=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
    mirror=${DEBIAN_MIRROR:-$(archive_of Debian)}
    security=${DEBIAN_SECURITY_MIRROR:-$(archive_of Debian-Security)}
    [[ -n $mirror ]] || die "apt on this machine has no source for $name" "DEBIAN_MIRROR=URL names a mirror of Debian."
    mkdir -p "$apt_root"/{lists,archives}/partial
    : >"$apt_root/status"
    write_sources "$name" "$mirror" "$security" >"$apt_root/sources.list"
    cat >"$apt_root/apt.conf" <<EOF
Dir::Etc::SourceList "$apt_root/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$apt_root/lists";
Dir::State::Status "$apt_root/status";
Dir::Cache::Archives "$apt_root/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Architecture "$host_arch";
APT::Architectures { "$host_arch"; "$arch"; };
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
EOF
    export APT_CONFIG=$apt_root/apt.conf
    apt-get -qq update || die "Debian's package lists can't be fetched (above)" \
        "This needs a network once. DEBIAN_MIRROR=URL and DEBIAN_SECURITY_MIRROR=URL name other mirrors."
}

# The security index of 32-bit ARM lags behind that of the others and often doesn't match its own signature; the next
# release has the library. Only the library: the next release's compiler wants its glibc.
write_sources() {
    local key=/usr/share/keyrings/debian-archive-keyring.gpg secure=$host_arch
    [[ -e $key ]] || die "$key is missing" "apt-get install debian-archive-keyring"
    printf 'deb [signed-by=%s] %s %s main\n' "$key" "$2" "$1"
    [[ $arch == armhf ]] || secure+=,$arch
    if [[ -n $3 ]]; then printf 'deb [arch=%s signed-by=%s] %s %s-security main\n' "$secure" "$key" "$3" "$1"; fi
    if [[ $1 == bookworm ]]; then printf 'deb [arch=%s signed-by=%s] %s trixie main\n' "$arch" "$key" "$2"; fi
}

versions_of() { apt-cache madison "$1" | awk -F'|' '{ gsub(/ /, "", $2); print $2 }' | sort -uVr; }

# The newest compiler whose upstream version both architectures' libraries have. Sets compiler_version, library_version.
choose_versions() {
    local of_host of_target upstream
    of_target=$(versions_of "$library:$arch")
    for of_host in $(versions_of "$compiler:$host_arch"); do
        upstream=${of_host%%+*}
        library_version=$({ grep -Fx "$of_host" <<<"$of_target" || grep -F "$upstream+" <<<"$of_target"; } | head -n 1 || true)
        compiler_version=$of_host
        [[ -z $library_version ]] || return 0
    done
    die "Debian has no Rust here whose library for $arch is of the compiler's version" \
        "compiler: $(versions_of "$compiler:$host_arch" | xargs)" "library: $(xargs <<<"$of_target")"
}

# Its own shared libraries; the rest of what it needs is on every Debian.
libraries_of_compiler() {
    apt-cache depends --recurse --important "$compiler:$host_arch" | grep -oE '^(libllvm|libz3|libstd-rust)[^ :]*' |
        grep -vFx "$library" | sort -u
}

# Fetches packages and unpacks them into the compiler's folder. What came of an interrupted call is used again.
fetch_and_unpack() {
    local folder=$apt_root/archives/$1 package
    shift
    say "  fetching $*"
    mkdir -p "$folder"
    (cd "$folder" && apt-get -qq download "$@") ||
        die "Debian's packages can't be fetched (above)" "What has come is kept: the same command goes on from here."
    for package in "$folder"/*.deb; do
        dpkg -x "$package" "$debian_rust" || die "$package can't be unpacked" "Is the disk full? Remove the file and try again."
    done
    rm -rf "$folder"
}

wrappers() {
    mkdir -p "$debian_rust/bin"
    for tool in rustc rustdoc; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "'$debian_rust/usr/lib/$1'" "'$debian_rust/usr/bin/$tool'" \
            >"$debian_rust/bin/$tool"
        chmod +x "$debian_rust/bin/$tool"
    done
}

install_compiler() {
    local needs
    if [[ -e "$debian_rust/ready" ]] && [[ "$(cat "$debian_rust/ready")" == "$compiler_version" ]]; then return; fi
    rm -rf "$debian_rust"
    mapfile -t needs < <(libraries_of_compiler)
    fetch_and_unpack "compiler-$compiler_version" "$compiler=$compiler_version" "$library=$compiler_version" "${needs[@]}"
    wrappers "$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)"
    "$debian_rust/bin/rustc" -V >/dev/null || die "Debian's rustc doesn't run here (above)"
    printf '%s\n' "$compiler_version" >"$debian_rust/ready"
}

install_library() {
    fetch_and_unpack "$arch-$library_version" "$library:$arch=$library_version"
    printf 'fn main() {}\n' | "$debian_rust/bin/rustc" --target "$triple" --emit=obj -o "$apt_root/probe.o" - ||
        die "Debian's library $library_version for $arch doesn't fit its compiler $compiler_version (above)"
    touch "$debian_rust/ready-$triple"
}

if [[ -z $host_arch ]] || ! have apt-get; then
    die "this isn't a Debian: its Rust can't be used here" "Install rustup (https://rustup.rs), which can add $triple."
fi
private_apt
choose_versions
install_compiler
install_library
