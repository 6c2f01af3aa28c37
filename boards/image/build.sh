#!/usr/bin/env bash
# Writes the bootable image of a board, without root or loop devices.
#
# usage: build.sh BOARD DEB…      (the .deb files are our own: the agent, its model)
#        build.sh --check BOARD   (only checks whether the image could be made)
# MODEL=DIR                      adds this model
# FIRMWARE=DIR                   adds firmware that Debian lacks, laid out as in /usr/lib/firmware
# LOCK=latest|or-latest          uses today's Debian packages: always, or only if locked ones are no longer available
# MIRROR=URL MIRROR_SECURITY=URL  Debian's mirrors; by default those of apt
set -euo pipefail
# shellcheck source=boards/image/debian.sh
. "$(dirname "$0")/debian.sh"

# The most that a build needs: cache, tree, file systems, and the image with its compressed copy.
SPACE_MIB=5120
FAT_MIB=256
# Partitions are aligned to whole MiB, and the image's size is a power of two, which the emulated card requires.
START_MIB=4

main() {
    local check=
    [[ $1 != --check ]] || {
        check=yes
        shift
    }
    local board=$1 path=$1
    shift
    check_tools
    check_inputs "$board" "$@"
    [[ -z $check ]] || return 0
    board=$(board_get "$path" name)
    local name=dunlin-$board lock=$HERE/packages.lock build=$WORK/build/$board inputs
    packages "$board"
    inputs=$(inputs_of "$board" "$lock" "$@")
    if made_of "$name" "$inputs"; then
        say "$WORK/$name.img is up to date"
        return
    fi
    "$HERE/inside.sh" --can || die "packages can't be configured here (see above)"
    empty "$build"
    settings "$board" "$lock" "$build"
    overlay "$board" "$build"
    debs_of "$lock" "$board" installed >"$build/debian"
    "$HERE/inside.sh" "$HERE/tree.sh" "$build" "$build/debian" "$@"
    boot_partition "$board" "$build"
    disk "$build"
    finish "$build" "$name" "$inputs"
}

# inputs_of BOARD LOCK DEB…: prints a hash of everything that an image is made from. Equal inputs give equal images.
inputs_of() {
    local board=$1 lock=$2 key dir
    shift 2
    {
        for key in boot packages device_trees config kernel_arguments; do
            printf '%s: %s\n' "$key" "$(board_get "$board" "image.$key" | xargs)"
        done
        cat "$lock" "$@"
        tar_of "$HERE" --exclude=./packages.lock
        for dir in "${MODEL:-}" "${FIRMWARE:-}"; do
            echo "${dir:+there is one}"
            [[ -z $dir ]] || tar_of "$dir" -h
        done
    } | sha256sum | cut -d ' ' -f 1
}

# tar_of DIR OPTION…: writes a folder's contents, with names and modes, as tar.
tar_of() { tar -C "$1" --sort=name --owner=0 --group=0 --mtime=@0 "${@:2}" -cf - .; }

# made_of NAME INPUTS: succeeds if the image exists, is intact and was made from these inputs.
made_of() {
    local file
    [[ -f $WORK/$1.inputs && $(<"$WORK/$1.inputs") == "$2" ]] || return 1
    for file in "$1.img" "$1.img.zst"; do
        (cd "$WORK" && sha256sum --status -c "$file.sha256") 2>/dev/null || return 1
    done
}

# Fetches the image's Debian packages. Sets lock to the lock that was used.
packages() {
    local board=$1 code=0
    case ${LOCK:-} in
        '') locked "$board" ;;
        latest) latest "$board" ;;
        or-latest)
            (locked "$board") || code=$?
            [[ $code == 0 || $code == 3 ]] || exit "$code"
            [[ $code == 0 ]] || latest "$board"
            ;;
        *) die "unknown LOCK=$LOCK; use latest, or-latest or nothing" \
            "or-latest uses today's packages only if the mirror no longer has the locked ones." ;;
    esac
}

locked() {
    check_lock "$lock" "$1"
    "$HERE/fetch.sh" "$lock" "$1"
}

latest() {
    lock=$WORK/latest.lock
    say "NOT FROM THE LOCK: using today's Debian packages, so this image can't be reproduced"
    "$HERE/lock.sh" "$lock"
    "$HERE/fetch.sh" "$lock" "$1"
}

check_tools() {
    local missing
    missing=$("$HERE/../need.sh" --missing image) || die "programs are missing" "apt-get install $missing"
}

# All inputs are checked before anything is fetched or built.
check_inputs() {
    local board=$1 deb free
    "$DUNLIN_BOARD" check "$board" >/dev/null || exit 2
    [[ -n $(board_get "$board" image.boot) ]] ||
        die "board $board has no image: its file has no [image] table with boot" "Boards with an image: $(boards_with_image | xargs)"
    shift
    for deb in "$@"; do check_package "$deb"; done
    [[ -z ${MODEL:-} ]] || check_model "$MODEL"
    [[ -z ${FIRMWARE:-} || -d $FIRMWARE ]] || die "FIRMWARE=$FIRMWARE is not a folder" "It is laid out as /usr/lib/firmware, such as brcm/NAME.bin."
    mkdir -p "$WORK"
    free=$(df --output=avail -m "$WORK" | tail -n 1)
    ((free >= SPACE_MIB)) || die "$WORK has $((free)) MiB free, and an image needs $SPACE_MIB" "Free some space, or set WORK= to another folder."
}

# Checks that the agent's package is for arm64, and that the program in it is too.
check_package() {
    local deb=$1 arch machine
    [[ -r $deb ]] || die "$deb is missing" "make package BOARD=…"
    arch=$(dpkg-deb -f "$deb" Architecture)
    [[ $arch == arm64 || $arch == all ]] || die "$deb is for $arch, and images are arm64" "make package with the same BOARD="
    [[ $arch == arm64 ]] || return 0
    machine=$({ dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/bin/dunlin-agent || true; } 2>/dev/null | od -An -tx1 -j18 -N2 | tr -d ' ')
    [[ -z $machine || $machine == b700 ]] || die "the program in $deb is not for arm64 (its ELF machine is 0x$machine)" "Build it for the board."
}

check_model() {
    local file
    for file in drafter/drafter.onnx drafter/model.toml tokenizer.json; do
        [[ -s $1/$file ]] || die "MODEL=$1 is not a drafter model: it has no $file" "It is laid out as models/demo."
    done
}

check_lock() {
    grep -qE '^# epoch [0-9]+$' "$1" || die "$1 has no line '# epoch SECONDS'" "make lock-image writes a new lock."
    local name
    ! grep -vE '^#' "$1" | grep -nvE '^[0-9a-f]{64}( [^ ]+){6}$' || die "the lines above of $1 are not packages" "make lock-image writes a new lock."
    for name in "${COMMON_PACKAGES[@]}" $(board_get "$2" image.packages) $(start_packages "$2"); do
        awk -v board="$2" -v name="$name" '$2 == name && ($7 == "all" || index("," $7 ",", "," board ",")) { found = 1 }
            END { exit !found }' "$1" || die "$1 has no $name for $2" "make lock-image writes a new lock."
    done
}

# debs_of LOCK BOARD installed|start: prints the paths of these packages in the cache.
debs_of() {
    awk -v board="$2" -v which="$3" -v start=" $(start_packages "$2" | xargs) " -v cache="$WORK/cache/" '
        /^#/ { next }
        $7 != "all" && index("," $7 ",", "," board ",") == 0 { next }
        (index(start, " " $2 " ") > 0) == (which == "start") { print cache $1 ".deb" }' "$1"
}

# An interrupted build may have left files that belong to another user id of the namespace.
empty() {
    [[ ! -e $1 ]] || "$HERE/inside.sh" rm -rf "$1"
    mkdir -p "$1"
}

# uuid TEXT: prints a UUID derived from the text.
uuid() {
    local hash
    hash=$(sha256sum <<<"$1")
    printf '%s-%s-5%s-a%s-%s\n' "${hash:0:8}" "${hash:8:4}" "${hash:13:3}" "${hash:17:3}" "${hash:20:12}"
}

# Writes the sizes and ids that the steps inside and outside the namespace share.
settings() {
    local board=$1 lock=$2 build=$3 seed root_mib=512 model_mib=0 total
    [[ -z ${MODEL:-} ]] || model_mib=$(du -sm "$MODEL" | cut -f 1)
    root_mib=$((root_mib + model_mib * 5 / 4))
    total=2048
    while ((total < START_MIB + FAT_MIB + 2 * root_mib + 256)); do total=$((total * 2)); done
    seed="$board $(sha256sum <"$lock")"
    cat >"$build/settings" <<EOF
SOURCE_DATE_EPOCH=$(sed -n 's/^# epoch //p' "$lock")
ROOT_MIB=$root_mib
DATA_MIB=$((total - START_MIB - FAT_MIB - 2 * root_mib))
TOTAL_MIB=$total
DISK_ID=$(uuid "$seed disk" | cut -c 1-8)
UUID_A=$(uuid "$seed a")
UUID_B=$(uuid "$seed b")
UUID_DATA=$(uuid "$seed data")
DEVICE_TREES="$(board_get "$board" image.device_trees | xargs)"
ARGUMENTS=$(printf %q "console=tty1 $(board_get "$board" image.kernel_arguments | paste -sd ' ') ro rootwait fsck.repair=yes net.ifnames=0 panic=10")
EOF
}

# Collects the files that turn Debian into this image, and those of the board.
overlay() {
    local board=$1 build=$2 deb to=$2/overlay/usr/lib/firmware
    mkdir -p "$build/overlay"
    cp -r "$HERE/root/." "$build/overlay"
    echo "$board" >"$build/overlay/etc/dunlin-board"
    for deb in $(debs_of "$lock" "$board" start); do
        dpkg-deb -x "$deb" "$build/start"
    done
    [[ ! -d $build/start/lib/firmware ]] || { mkdir -p "$to" && cp -r "$build/start/lib/firmware/." "$to"; }
    [[ -z ${FIRMWARE:-} ]] || { mkdir -p "$to" && cp -rL "$FIRMWARE/." "$to"; }
    [[ -z ${MODEL:-} ]] || {
        mkdir -p "$build/overlay/usr/share/dunlin/models"
        cp -rL "$MODEL" "$build/overlay/usr/share/dunlin/models/own"
        mkdir -p "$build/overlay/etc/systemd/system/dunlin-first-boot.service.d"
        printf '[Service]\nEnvironment="MODEL=--model /usr/share/dunlin/models/own/drafter"\n' \
            >"$build/overlay/etc/systemd/system/dunlin-first-boot.service.d/model.conf"
    }
    # Services must be able to read the files, whatever the umask of the build.
    find "$build/overlay" -type f -perm /u+x -exec chmod 0755 {} + -o -type f -exec chmod 0644 {} + -o -type d -exec chmod 0755 {} +
}

# Writes the first partition: what runs before a slot's kernel, the state files, and the set-up file. No update changes it but
# the state files.
boot_partition() {
    local board=$1 build=$2 boot=$2/boot
    # shellcheck source=/dev/null
    . "$build/settings"
    export SOURCE_DATE_EPOCH MTOOLS_SKIP_CHECK=1 TZ=UTC
    say "Writing the boot partition"
    case $(board_get "$board" image.boot) in
        raspberry-pi) raspberry_pi "$board" "$build" ;;
        virt) cp "$build/start/usr/lib/u-boot/qemu_arm64/u-boot.bin" "$boot/" ;;
    esac
    cp "$build"/start/usr/share/doc/u-boot-*/copyright "$boot/LICENCE.u-boot"
    mkimage -A arm64 -T script -C none -n Dunlin -d "$HERE/boot.cmd" "$boot/boot.scr" >/dev/null || die "boot.cmd can't be packed"
    state good=a >"$boot/good.env"
    state left=0 >"$boot/try.env"
    [[ ! -f $HERE/dunlin.txt ]] || cp "$HERE/dunlin.txt" "$boot/"
    find "$boot" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    rm -f "$build/boot.fat"
    truncate -s "${FAT_MIB}M" "$build/boot.fat"
    mkfs.fat -F 32 -n DUNLIN --invariant -i "$DISK_ID" "$build/boot.fat" >/dev/null
    (cd "$boot" && LC_ALL=C && mcopy -s -m -i ../boot.fat ./* ::)
}

# state LINE: prints a state file of U-Boot: the line, padded to one sector, so that it is always written as a whole.
state() {
    printf '%s\n' "$1"
    head -c $((512 - ${#1} - 1)) /dev/zero
}

# The firmware starts U-Boot with the board's device tree, and U-Boot the slot's kernel with the slot's.
raspberry_pi() {
    local board=$1 build=$2 tree
    cp "$build"/start/usr/lib/raspi-firmware/{bootcode.bin,start.elf,start4.elf,start_cd.elf,start4cd.elf,fixup.dat,fixup4.dat,fixup_cd.dat,fixup4cd.dat} "$build/boot/"
    cp "$build/start/usr/share/doc/raspi-firmware/copyright" "$build/boot/LICENCE.firmware"
    cp "$build/start/usr/lib/u-boot/rpi_arm64/u-boot.bin" "$build/boot/"
    # Its size is the one that U-Boot was built with (CONFIG_ENV_SIZE).
    mkenvimage -s 0x4000 -o "$build/boot/uboot.env" <(grep -v '^#' "$HERE/environment.txt")
    for tree in $DEVICE_TREES; do
        grep -qaF "$tree" "$build/boot/u-boot.bin" "$HERE/boot.cmd" || die "U-Boot knows no board with the device tree $tree" "Name it in boot.cmd where U-Boot calls it otherwise."
    done
    for tree in "$build"/boot/*.dtb; do
        [[ $(fdtget "$tree" /soc/i2c@7e804000 status) == okay ]] || die "the I2C bus of the pin header is disabled in $(basename "$tree"), so no sensor could be read"
    done
    {
        printf '# Read by the firmware.\narm_64bit=1\nupstream_kernel=1\nkernel=u-boot.bin\n'
        board_get "$board" image.config
    } >"$build/boot/config.txt"
}

# Writes the disk: four partitions in an MBR table, which the firmware of every Raspberry Pi can read.
disk() {
    local build=$1 at=$START_MIB part mib
    # shellcheck source=/dev/null
    . "$build/settings"
    say "Writing the disk"
    rm -f "$build/disk"
    truncate -s "${TOTAL_MIB}M" "$build/disk"
    # shellcheck disable=SC2153  # from settings
    sfdisk --quiet "$build/disk" <<EOF
label: dos
label-id: 0x$DISK_ID
start=${START_MIB}MiB, size=${FAT_MIB}MiB, type=c, bootable
size=${ROOT_MIB}MiB, type=83
size=${ROOT_MIB}MiB, type=83
size=${DATA_MIB}MiB, type=83
EOF
    for part in boot.fat:$FAT_MIB root-a.ext4:$ROOT_MIB root-b.ext4:$ROOT_MIB data.ext4:$DATA_MIB; do
        mib=${part#*:}
        dd if="$build/${part%%:*}" of="$build/disk" bs=1M seek="$at" conv=notrunc,sparse status=none
        rm "$build/${part%%:*}"
        at=$((at + mib))
    done
}

# Moves the files to their final names last, so that an image is never half written.
finish() {
    local build=$1 name=$2 inputs=$3
    say "Compressing"
    rm -f "$WORK/$name.inputs"
    zstd -q -T0 -9 -f "$build/disk" -o "$build/disk.zst"
    mv "$build/packages" "$WORK/$name.packages"
    mv "$build/disk.zst" "$WORK/$name.img.zst"
    mv "$build/disk" "$WORK/$name.img"
    checksum "$name.img"
    checksum "$name.img.zst"
    echo "$inputs" >"$WORK/$name.inputs"
    say "Wrote $WORK/$name.img: $(du -m --apparent-size "$WORK/$name.img" | cut -f 1) MiB, compressed $(du -m --apparent-size "$WORK/$name.img.zst" | cut -f 1) MiB"
    cat "$WORK/$name.img.sha256" "$WORK/$name.img.zst.sha256"
}

# Writes a checksum beside the file, where dunlin-board flash looks for it.
checksum() {
    (cd "$WORK" && sha256sum "$1" >"$1.sha256.new" && mv "$1.sha256.new" "$1.sha256")
}

main "$@"
