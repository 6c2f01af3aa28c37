#!/usr/bin/env bash
# Unpacks Debian's Rust and another architecture's standard library into target/toolchain, for machines without access to
# rustup. It keeps a package index of its own, because adding an architecture to dpkg would change every later
# `apt-get update` on this machine. Installs nothing and doesn't need root.
#
# usage: debian-rust.sh TARGET
set -euo pipefail
# shellcheck source=boards/cross/target.sh
. "$(dirname "$0")/target.sh"

triple=$1
target_facts
apt_root=$toolchain_dir/apt
host_arch=$(dpkg --print-architecture 2>/dev/null || true)
# rustc-web is the Rust that Debian's browsers are built with; it is newer than the release's rustc.
compiler=rustc-web
library=libstd-rust-web-dev

private_apt() {
    local name mirror security
    # shellcheck disable=SC1091
    name=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
    mirror=${DEBIAN_MIRROR:-$(archive_of Debian)}
    security=${DEBIAN_SECURITY_MIRROR:-$(archive_of Debian-Security)}
    [[ -n $mirror ]] || die "apt on this machine has no source for $name" "Set DEBIAN_MIRROR=URL to a Debian mirror."
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
    apt-get -qq update || die "Debian's package lists can't be fetched (see above)" \
        "This needs network access once. DEBIAN_MIRROR=URL and DEBIAN_SECURITY_MIRROR=URL select other mirrors."
}

# The security index for 32-bit ARM lags behind the others and often doesn't match its signature, so that the library comes
# from the next release. The compiler can't: it needs that release's glibc.
write_sources() {
    local key=/usr/share/keyrings/debian-archive-keyring.gpg secure=$host_arch
    [[ -e $key ]] || die "$key is missing" "apt-get install debian-archive-keyring"
    printf 'deb [signed-by=%s] %s %s main\n' "$key" "$2" "$1"
    [[ $arch == armhf ]] || secure+=,$arch
    if [[ -n $3 ]]; then printf 'deb [arch=%s signed-by=%s] %s %s-security main\n' "$secure" "$key" "$3" "$1"; fi
    if [[ $1 == bookworm ]]; then printf 'deb [arch=%s signed-by=%s] %s trixie main\n' "$arch" "$key" "$2"; fi
}

versions_of() { apt-cache madison "$1" | awk -F'|' '{ gsub(/ /, "", $2); print $2 }' | sort -uVr; }

# Chooses the newest compiler whose upstream version has a library for both architectures. Sets compiler_version and
# library_version.
choose_versions() {
    local of_host of_target upstream
    of_target=$(versions_of "$library:$arch")
    for of_host in $(versions_of "$compiler:$host_arch"); do
        upstream=${of_host%%+*}
        library_version=$({ grep -Fx "$of_host" <<<"$of_target" || grep -F "$upstream+" <<<"$of_target"; } | head -n 1 || true)
        compiler_version=$of_host
        [[ -z $library_version ]] || return 0
    done
    die "no version of Debian's Rust has both a compiler here and a library for $arch" \
        "compiler: $(versions_of "$compiler:$host_arch" | xargs)" "library: $(xargs <<<"$of_target")"
}

# Prints the compiler's own shared libraries; every Debian has its other dependencies.
libraries_of_compiler() {
    apt-cache depends --recurse --important "$compiler:$host_arch" | grep -oE '^(libllvm|libz3|libstd-rust)[^ :]*' |
        grep -vFx "$library" | sort -u
}

# Fetches packages and unpacks them into the compiler's folder. Reuses what an interrupted call has fetched.
fetch_and_unpack() {
    local folder=$apt_root/archives/$1 package
    shift
    say "  fetching $*"
    mkdir -p "$folder"
    (cd "$folder" && apt-get -qq download "$@") ||
        die "Debian's packages can't be fetched (see above)" "Run the command again: it continues with what has been fetched."
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
    "$debian_rust/bin/rustc" -V >/dev/null || die "Debian's rustc doesn't run here (see above)"
    printf '%s\n' "$compiler_version" >"$debian_rust/ready"
}

install_library() {
    fetch_and_unpack "$arch-$library_version" "$library:$arch=$library_version"
    printf 'fn main() {}\n' | "$debian_rust/bin/rustc" --target "$triple" --emit=obj -o "$apt_root/probe.o" - ||
        die "Debian's library $library_version for $arch doesn't match its compiler $compiler_version (see above)"
    touch "$debian_rust/ready-$triple"
}

if [[ -z $host_arch ]] || ! have apt-get; then
    die "Debian's Rust can be used on Debian only" "Install rustup (https://rustup.rs), which can add $triple."
fi
private_apt
choose_versions
install_compiler
install_library
