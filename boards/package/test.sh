#!/usr/bin/env bash
# Installs, upgrades, removes and purges this machine's packages in a clean Debian without a network, and checks what each
# step leaves behind. Run as root; the Debian is a folder under target/ and is removed afterwards.
#
# SUITE=bookworm   the Debian release
# MIRROR=URL       the mirror; by default that of apt
# VERIFIER=NAME    the verifier's package: dunlin-verifier, or dunlin-verifier-llamacpp, whose target then runs on llama.cpp
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=boards/common.sh
. "$here/../common.sh"
suite=${SUITE:-bookworm}
arch=$(dpkg --print-architecture)
archive=$target_dir/package-test/debian-$suite-$arch.tar
debian=$target_dir/package-test/debian
verifier=${VERIFIER:-dunlin-verifier}

# Made once. The packages under test need systemd; everything else is in every Debian.
make_debian() {
    [[ ! -e $archive ]] || return 0
    say "Making a clean Debian $suite; this takes a minute, once"
    mkdir -p "$target_dir/package-test"
    mmdebstrap --quiet --variant=apt --include=systemd,udev --format=tar "$suite" "$archive.new" "deb $(mirror debian) $suite main"
    mv "$archive.new" "$archive"
}

# Makes a copy of the package $1 with version $2 and, if $3 is given, that line added to its configuration.
newer() {
    local dir=$target_dir/package-test/newer name=$1 version=$2 line=${3:-}
    rm -rf "$dir"
    dpkg-deb -R "$debian/root/packages/${name}.deb" "$dir"
    sed -i "s/^Version: .*/Version: $version/" "$dir/DEBIAN/control"
    if [[ -n $line ]]; then printf '%s\n' "$line" >>"$dir/etc/dunlin/agent.toml"; fi
    dpkg-deb --root-owner-group -Znone -b "$dir" "$debian/root/packages/$name-$version.deb" >/dev/null
    rm -r "$dir"
}

unpack() {
    local name found
    rm -rf "$debian"
    mkdir -p "$debian"
    tar -C "$debian" -xf "$archive"
    mkdir "$debian/root/packages"
    for name in dunlin-agent "$verifier" dunlin-model-demo; do
        found=$(find "$target_dir/packages" -name "${name}_*_$arch.deb" -o -name "${name}_*_all.deb" | sort -V | tail -n 1)
        [[ -n $found ]] || die "$name is not in $target_dir/packages" "make package BOARD=host PACKAGES=${name#dunlin-} builds it."
        cp "$found" "$debian/root/packages/$name.deb"
    done
    printf '%s\n' "$verifier" >"$debian/root/verifier"
    newer dunlin-agent 99.1
    newer dunlin-agent 99.2 '# A line of a newer version.'
    cp "$here/in-debian.sh" "$here/../common.sh" "$debian/root/"
}

# Boots the same Debian as a container, with a systemd of its own, and tests the services in it.
boots() {
    if ! command -v systemd-nspawn >/dev/null || [[ ! -d /sys/fs/cgroup ]]; then
        say "skipped starting the services (systemd-container is missing, or this machine has no control groups)"
        return
    fi
    say "Booting the clean Debian with both services"
    chroot "$debian" /bin/bash -c "cd /root/packages && apt-get install -y --no-install-recommends \
        ./dunlin-agent.deb ./$verifier.deb ./dunlin-model-demo.deb" >"$target_dir/package-test/boot.log" 2>&1 || die "the packages can't be installed" "See $target_dir/package-test/boot.log."
    cp -r "$root/models/demo/target" "$debian/usr/share/dunlin/models/demo/target"
    printf '127.0.0.1 localhost\n' >"$debian/etc/hosts"
    cp "$here/in-services.sh" "$debian/root/"
    printf '[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nExecStart=/bin/bash /root/in-services.sh\n' \
        >"$debian/etc/systemd/system/test.service"
    ln -s ../test.service "$debian/etc/systemd/system/multi-user.target.wants/test.service"
    rm -rf "$debian/run" && mkdir "$debian/run"
    timeout 180 systemd-nspawn --quiet --directory="$debian" --register=no --keep-unit --private-network --boot \
        </dev/null >>"$target_dir/package-test/boot.log" 2>&1 || true
    cat "$debian/root/services.log"
    [[ -e "$debian/root/services.ok" ]] || die "the services failed (see above)" "The log of the boot is $target_dir/package-test/boot.log."
}

[[ $(id -u) == 0 ]] || die "entering another Debian needs root" "Run it with sudo."
make_debian
unpack
trap 'rm -rf "$debian"' EXIT
# Without a network, so that a missing dependency fails instead of being fetched.
unshare --net --pid --fork --mount --kill-child --mount-proc="$debian/proc" chroot "$debian" /bin/bash /root/in-debian.sh
boots
