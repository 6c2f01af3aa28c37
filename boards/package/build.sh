#!/usr/bin/env bash
# Makes the Debian packages for a board's architecture, into target/packages/.
#
# usage: build.sh [agent] [model-demo] [verifier]   (by default all that exist for the architecture)
#        build.sh verifier-llamacpp                 (of what `make verifier-llamacpp` built on this machine)
# BOARD=NAME
# PREBUILT=1          uses the programs in target/board/<triple>/ as they are
# PACKAGE_VERSION=V   replaces the version in Cargo.toml
# PACKAGE_DIR=DIR     the output folder
# SOURCE_DATE_EPOCH   the date of all files; by default that of the last commit
set -euo pipefail
# shellcheck source=boards/cross/target.sh
. "$(dirname "$0")/../cross/target.sh"

here=$root/boards/package
work=$target_dir/package-build
out=${PACKAGE_DIR:-$target_dir/packages}
version=${PACKAGE_VERSION:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")}

need_tools() {
    local missing
    missing=$("$root/boards/need.sh" --missing package) || die "packages can't be built here" "apt-get install $missing"
}

# Prints the date of the last commit, or that of the changelog outside a git checkout.
source_date() {
    git -C "$root" log -1 --format=%ct 2>/dev/null || stat -c %Y "$root/CHANGELOG.md"
}

# Prints the path of the program $1 for the board; builds it unless PREBUILT is set.
program() {
    local path=$target_dir/board/$triple/dunlin-$1
    if [[ -z ${PREBUILT:-} ]]; then
        "$root/boards/cross/build.sh" --can || "$root/boards/cross/toolchain.sh" >&2
        "$root/boards/cross/build.sh" "$1" >&2
    fi
    [[ -x $path ]] || die "$path is missing" "make $1 BOARD=$BOARD builds it."
    [[ "$(machine_of "$path")" == "$machine" ]] || die "$path is not for $triple" "make $1 BOARD=$BOARD rebuilds it."
    printf '%s\n' "$path"
}

# Prints the packages whose libraries a program is linked with, as for Depends.
libraries() {
    local library
    printf 'libc6 (>= %s)' "$(glibc_needed "$1")"
    for library in $(readelf --wide --dynamic "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
        case $library in
            libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | ld-linux*) ;;
            libgcc_s.so.1) printf ', libgcc-s1' ;;
            libstdc++.so.6) printf ', libstdc++6' ;;
            *) die "$1 is linked with $library, whose package is unknown" "Add it to boards/package/build.sh." ;;
        esac
    done
}

# Prints the newest section of CHANGELOG.md in the format of Debian's changelog.
changelog() {
    printf '%s (%s) unstable; urgency=medium\n\n' "$1" "$version"
    awk '/^## /{section++} section == 1' "$root/CHANGELOG.md" | awk '
        /^- /{if (item) print item; item = substr($0, 3); next}
        /^  /{item = item " " substr($0, 3); next}
        {if (item) print item; item = ""}
        END{if (item) print item}' | tr -d '`' | while read -r item; do
        fold -s -w 74 <<<"$item" | sed -e '1s/^/  * /' -e '2,$s/^/    /' -e 's/ *$//'
    done
    printf '\n -- %s  %s\n' "$maintainer" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
}

# Builds a package from a folder with its files under stage/, by debian/rules; $3 may be another folder than debian/ of its own.
assemble() {
    local name=$1 arch=$2 dir=$work/$1 debian=${3:-$here/${1#dunlin-}/debian}
    cp -r "$debian" "$dir/debian"
    maintainer=$(sed -n 's/^Maintainer: //p' "$dir/debian/control")
    changelog "$name" >"$dir/debian/changelog"
    if ! (cd "$dir" && dpkg-buildpackage --build=binary --no-check-builddeps --no-sign \
        --host-arch "$arch" >../"$name.log" 2>&1); then
        tail -n 20 "$work/$name.log" >&2
        die "dpkg-buildpackage could not build $name" "Its output is in $work/$name.log."
    fi
    mkdir -p "$out"
    mv "$work/${name}_${version}"_*.deb "$out/"
}

begin() {
    rm -rf "${work:?}/$1"
    mkdir -p "$work/$1/stage"
}

agent() {
    local path stage=$work/dunlin-agent/stage
    path=$(program agent)
    begin dunlin-agent
    install -D -m 755 "$path" "$stage/usr/bin/dunlin-agent"
    install -D -m 644 "$here/agent/agent.toml" "$stage/etc/dunlin/agent.toml"
    install -D -m 644 "$here/agent/modules.conf" "$stage/usr/lib/modules-load.d/dunlin-agent.conf"
    install -D -m 755 "$here/agent/generator" "$stage/lib/systemd/system-generators/dunlin-agent"
    install -d -m 755 "$stage/usr/share/dunlin/boards"
    install -m 644 "$root"/boards/*.toml "$stage/usr/share/dunlin/boards/"
    cp -r "$here/agent/man" "$work/dunlin-agent/man"
    printf '%s\n' "$(libraries "$path")" >"$work/program.depends"
    assemble dunlin-agent "$arch"
}

verifier() {
    local path stage=$work/dunlin-verifier/stage
    path=$(program verifier)
    begin dunlin-verifier
    install -D -m 755 "$path" "$stage/usr/bin/dunlin-verifier"
    install -D -m 644 "$here/verifier/verifier.toml" "$stage/etc/dunlin/verifier.toml"
    cp -r "$here/verifier/man" "$work/dunlin-verifier/man"
    printf '%s\n' "$(libraries "$path")" >"$work/program.depends"
    assemble dunlin-verifier "$arch"
}

# The verifier with llama.cpp: its packaging is that of the verifier under another name, with a control file of its own.
verifier_llamacpp() {
    local name=dunlin-verifier-llamacpp path=$target_dir/llamacpp/release/dunlin-verifier file
    local dir=$work/$name stage=$work/$name/stage from=$work/$name/packaging
    is_native || die "$name is built for this machine's architecture alone" "Use BOARD=host."
    [[ -x $path ]] || die "$path is missing" "make verifier-llamacpp builds it."
    begin "$name"
    install -D -m 755 -s "$path" "$stage/usr/bin/dunlin-verifier"
    install -D -m 644 "$here/verifier/verifier.toml" "$stage/etc/dunlin/verifier.toml"
    cp -r "$here/verifier/man" "$dir/man"
    cp -r "$here/verifier/debian" "$from"
    cp "$here/verifier-llamacpp/debian/control" "$from/control"
    # The service keeps its name, so that both packages have the same one.
    install -D -m 644 "$from/dunlin-verifier.service" "$stage/lib/systemd/system/dunlin-verifier.service"
    rm "$from/dunlin-verifier.service"
    for file in "$from"/dunlin-verifier.*; do mv "$file" "$from/$name.${file##*/dunlin-verifier.}"; done
    sed -i "s/^dunlin-verifier: /$name: /" "$from/$name.lintian-overrides"
    printf '%s\n' "$(libraries "$path")" >"$work/program.depends"
    assemble "$name" "$arch" "$from"
}

model_demo() {
    local file models=$root/models/demo stage=$work/dunlin-model-demo/stage/usr/share/dunlin/models/demo
    begin dunlin-model-demo
    for file in tokenizer.json prompts.json drafter/model.toml drafter/drafter.onnx; do
        install -D -m 644 "$models/$file" "$stage/$file"
    done
    # Independent of the architecture, so that every board's build gives the same bytes.
    assemble dunlin-model-demo "$(dpkg --print-architecture)"
}

need_tools
read_target
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(source_date)}
if (($# == 0)); then
    # A 32-bit process can't address a target model.
    case $arch in armhf) set -- agent model-demo ;; *) set -- agent model-demo verifier ;; esac
fi
for package in "$@"; do
    case $package in
        agent | verifier) "$package" ;;
        model-demo) model_demo ;;
        verifier-llamacpp) verifier_llamacpp ;;
        *) die "unknown package $package; use agent, model-demo, verifier or verifier-llamacpp" ;;
    esac
done
ls -l "$out"
