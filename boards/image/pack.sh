#!/usr/bin/env bash
# Packs a tree into the image's file systems. Run by inside.sh, as root of its namespace.
#
# usage: pack.sh BUILD ROOT   (BUILD has settings and boot/)
set -euo pipefail
# shellcheck source=boards/image/debian.sh
. "$(dirname "$0")/debian.sh"

# The most of it that boot.cmd reads.
ARGUMENTS_BYTES_MAX=1024

main() {
    # shellcheck source=/dev/null
    . "$1/settings"
    boot_files "$1" "$2"
    filesystems "$1" "$2"
}

# Gives the slot all that it is started with: kernel, initrd, the board's device trees and the kernel's arguments. The first
# partition gets the device trees too, for what runs before the slot is chosen.
boot_files() {
    local build=$1 root=$2 tree start=$2/boot/start
    mkdir "$start"
    mv "$root"/boot/vmlinuz-* "$start/kernel"
    mv "$root/boot/initrd" "$start/initrd"
    printf 'arguments=%s\n' "$ARGUMENTS" >"$start/arguments.env"
    (($(stat -c %s "$start/arguments.env") <= ARGUMENTS_BYTES_MAX)) || die "the kernel's arguments are longer than $ARGUMENTS_BYTES_MAX bytes" "See kernel_arguments in the board's file."
    mkdir -p "$build/boot"
    for tree in $DEVICE_TREES; do
        install -D -m 0644 "$root"/usr/lib/linux-image-*/"$tree" "$start/dtb/$tree"
        install -m 0644 "$start/dtb/$tree" "$build/boot/"
    done
    find "$root/boot" -mindepth 1 -maxdepth 1 ! -name firmware ! -name start -exec rm -rf {} +
    mv "$start"/* "$root/boot"
    rmdir "$start"
    chmod -R u=rwX,go=rX "$root/boot"
    cp "$root/usr/share/dunlin-image-packages" "$build/packages"
    rm -rf "$root"/usr/lib/linux-image-* "${root:?}/$LOST"
}

filesystems() {
    local build=$1 root=$2 data=$1/data
    say "Writing the file systems"
    rm -rf "$data"
    mkdir -p "$data"/{systemd,network,ssh,dunlin/{etc,credstore,lib}}
    chmod 0700 "$data"/{ssh,network,dunlin/credstore}
    chown "$(stat -c %u:%g "$root/var/lib/dunlin" 2>/dev/null || echo 0:0)" "$data/dunlin/lib"
    ext4 "$build/root-a.ext4" "$ROOT_MIB" dunlin-a "$UUID_A" '^has_journal' "$root"
    ext4 "$build/root-b.ext4" "$ROOT_MIB" dunlin-b "$UUID_B" '^has_journal'
    ext4 "$build/data.ext4" "$DATA_MIB" dunlin-data "$UUID_DATA" has_journal "$data"
    rm -rf "$data"
}

# ext4 FILE MIB LABEL UUID FEATURES [TREE]: makes a file system with the contents of the tree.
ext4() {
    local file=$1 mib=$2 label=$3 uuid=$4 features=$5 tree=${6:-}
    rm -f "$file"
    truncate -s "${mib}M" "$file"
    E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs -q -F -t ext4 -b 4096 -m 0 -L "$label" -U "$uuid" \
        -E "hash_seed=$uuid,root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0" -O "$features" \
        ${tree:+-d "$tree"} "$file" || die "the tree doesn't fit into $mib MiB"
    one_time "$file" 2>"$file.log" >&2 || die "$file: $(tail -n 1 "$file.log")"
    rm "$file.log"
}

# Sets every timestamp in the file system to the image's date, so that equal trees give equal bytes. mke2fs fills the first
# inodes without gaps.
one_time() {
    local inodes inode field
    inodes=$(dumpe2fs -h "$1" | awk -F: '/^Inode count/ { all = $2 } /^Free inodes/ { free = $2 } END { print all - free }')
    for inode in 2 $(seq 11 "$inodes"); do
        for field in atime ctime mtime; do
            echo "set_inode_field <$inode> $field @$SOURCE_DATE_EPOCH"
        done
    done | E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH debugfs -w -f - "$1"
}

main "$@"
