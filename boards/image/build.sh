#!/usr/bin/env bash
# Writes the bootable image of a board, without root or loop devices.
# Usage: build.sh BOARD DEB…; the .deb files are ours: the agent, its model. build.sh --check BOARD only looks whether it
# could be made.
# MODEL=DIR puts that model beside them; FIRMWARE=DIR adds firmware that Debian lacks, its files as below
# /usr/lib/firmware; LOCK=latest takes today's Debian packages,
# LOCK=or-latest only where locked ones are gone; MIRROR=, MIRROR_SECURITY= say from where.
set -euo pipefail
# shellcheck source=boards/image/debian.sh
. "$(dirname "$0")/debian.sh"

# What the build needs at its worst: cache, tree, file systems, and the image with its compressed copy.
SPACE_MIB=5120
FAT_MIB=256
# Slots end on whole MiB, and the card's image on a power of two, as the emulated one must.
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
        say "$WORK/$name.img is there, made of the same"
        return
    fi
    "$HERE/inside.sh" --can || die "see above: packages can't be configured here"
    empty "$build"
    settings "$board" "$lock" "$build"
    overlay "$board" "$build"
    debs_of "$lock" "$board" installed >"$build/debian"
    "$HERE/inside.sh" "$HERE/tree.sh" "$build" "$build/debian" "$@"
    boot_partition "$board" "$lock" "$build"
    disk "$build"
    finish "$build" "$name" "$inputs"
}

# inputs_of BOARD LOCK DEB…: a hash of all that an image is made of. The same inputs give the same image.
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

# tar_of DIR OPTION…: what is in a folder, with names and modes.
tar_of() { tar -C "$1" --sort=name --owner=0 --group=0 --mtime=@0 "${@:2}" -cf - .; }

# made_of NAME INPUTS: whether that image is there, whole, and made of these.
made_of() {
    local file
    [[ -f $WORK/$1.inputs && $(<"$WORK/$1.inputs") == "$2" ]] || return 1
    for file in "$1.img" "$1.img.zst"; do
        (cd "$WORK" && sha256sum --status -c "$file.sha256") 2>/dev/null || return 1
    done
}

# Fetches what the image is made of; sets lock.
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
        *) die "LOCK=$LOCK means nothing: leave it out, or latest, or or-latest (latest where the mirror lacks locked packages)" ;;
    esac
}

locked() {
    check_lock "$lock" "$1"
    "$HERE/fetch.sh" "$lock" "$1"
}

latest() {
    lock=$WORK/latest.lock
    say "NOT FROM THE LOCK: with the Debian packages of today; nobody can make the same image again"
    "$HERE/lock.sh" "$lock"
    "$HERE/fetch.sh" "$lock" "$1"
}

check_tools() {
    local missing
    missing=$("$HERE/../need.sh" --missing image) || die "missing here: apt-get install $missing"
}

# Everything that can be refused is refused before anything is fetched or built.
check_inputs() {
    local board=$1 deb free
    "$DUNLIN_BOARD" check "$board" >/dev/null || exit 2
    [[ -n $(board_get "$board" image.boot) ]] ||
        die "no image is made for $board (its file has no [image] with boot); there are: $(boards_with_image | xargs)"
    shift
    for deb in "$@"; do check_package "$deb"; done
    [[ -z ${MODEL:-} ]] || check_model "$MODEL"
    [[ -z ${FIRMWARE:-} || -d $FIRMWARE ]] || die "FIRMWARE=$FIRMWARE is no folder: it holds files as /usr/lib/firmware does, such as brcm/NAME.bin"
    mkdir -p "$WORK"
    free=$(df --output=avail -m "$WORK" | tail -n 1)
    ((free >= SPACE_MIB)) || die "$WORK has $((free)) MiB free, and an image needs $SPACE_MIB: free some, or say WORK= for another place"
}

# The agent's package must be arm64, and so must the program in it.
check_package() {
    local deb=$1 arch machine
    [[ -r $deb ]] || die "$deb is missing: make package BOARD=…"
    arch=$(dpkg-deb -f "$deb" Architecture)
    [[ $arch == arm64 || $arch == all ]] || die "$deb is for $arch, and the images are arm64: make package BOARD= of the same board"
    [[ $arch == arm64 ]] || return 0
    machine=$({ dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/bin/dunlin-agent || true; } 2>/dev/null | od -An -tx1 -j18 -N2 | tr -d ' ')
    [[ -z $machine || $machine == b700 ]] || die "the program in $deb is not an arm64 one (its machine is 0x$machine): build it for the board"
}

check_model() {
    local file
    for file in drafter/drafter.onnx drafter/model.toml tokenizer.json; do
        [[ -s $1/$file ]] || die "MODEL=$1 is no drafter's model: it has no $file (its shape is that of models/demo)"
    done
}

check_lock() {
    grep -qE '^# epoch [0-9]+$' "$1" || die "$1 has no line '# epoch SECONDS': make lock-image writes it anew"
    local name
    ! grep -vE '^#' "$1" | grep -nvE '^[0-9a-f]{64}( [^ ]+){6}$' || die "the lines above of $1 are no packages: make lock-image"
    for name in "${COMMON_PACKAGES[@]}" $(board_get "$2" image.packages); do
        awk -v board="$2" -v name="$name" '$2 == name && ($7 == "all" || index("," $7 ",", "," board ",")) { found = 1 }
            END { exit !found }' "$1" || die "$1 has no $name for $2: make lock-image writes it anew"
    done
}

# debs_of LOCK BOARD installed|firmware: their files in the cache.
debs_of() {
    awk -v board="$2" -v which="$3" -v cache="$WORK/cache/" '
        /^#/ { next }
        $7 != "all" && index("," $7 ",", "," board ",") == 0 { next }
        ($2 == "raspi-firmware") == (which == "firmware") { print cache $1 ".deb" }' "$1"
}

# What a build that was cut short left may be the other user's of a namespace.
empty() {
    [[ ! -e $1 ]] || "$HERE/inside.sh" rm -rf "$1"
    mkdir -p "$1"
}

# uuid TEXT: one that stays the same for the same text.
uuid() {
    local hash
    hash=$(sha256sum <<<"$1")
    printf '%s-%s-5%s-a%s-%s\n' "${hash:0:8}" "${hash:8:4}" "${hash:13:3}" "${hash:17:3}" "${hash:20:12}"
}

# Numbers that both sides of the build go by.
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
EOF
}

# The files that make a Debian this image, and what is the board's own.
overlay() {
    local board=$1 build=$2 firmware to=$2/overlay/usr/lib/firmware
    mkdir -p "$build/overlay"
    cp -r "$HERE/root/." "$build/overlay"
    echo "$board" >"$build/overlay/etc/dunlin-board"
    for firmware in $(debs_of "$lock" "$board" firmware); do
        dpkg-deb -x "$firmware" "$build/firmware"
        mkdir -p "$to"
        cp -r "$build/firmware/lib/firmware/." "$to"
    done
    [[ -z ${FIRMWARE:-} ]] || { mkdir -p "$to" && cp -rL "$FIRMWARE/." "$to"; }
    [[ -z ${MODEL:-} ]] || {
        mkdir -p "$build/overlay/usr/share/dunlin/models"
        cp -rL "$MODEL" "$build/overlay/usr/share/dunlin/models/own"
        mkdir -p "$build/overlay/etc/systemd/system/dunlin-first-boot.service.d"
        printf '[Service]\nEnvironment="MODEL=--model /usr/share/dunlin/models/own/drafter"\n' \
            >"$build/overlay/etc/systemd/system/dunlin-first-boot.service.d/model.conf"
    }
    # Whatever the mask of who builds, services must read it.
    find "$build/overlay" -type f -perm /u+x -exec chmod 0755 {} + -o -type f -exec chmod 0644 {} + -o -type d -exec chmod 0755 {} +
}

# The first partition: what the firmware reads, a folder a slot, and the set-up file.
boot_partition() {
    local board=$1 lock=$2 build=$3 slot partition boot=$3/boot
    # shellcheck source=/dev/null
    . "$build/settings"
    say "Writing the boot partition"
    for slot in a:02 b:03; do
        partition=${slot#*:}
        command_line "$board" "$DISK_ID-$partition" >"$boot/${slot%%:*}/cmdline.txt"
    done
    if [[ $(board_get "$board" image.boot) == raspberry-pi ]]; then
        raspberry_pi "$board" "$build"
    fi
    [[ ! -f $HERE/dunlin.txt ]] || cp "$HERE/dunlin.txt" "$boot/"
    find "$boot" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    rm -f "$build/boot.fat"
    truncate -s "${FAT_MIB}M" "$build/boot.fat"
    export SOURCE_DATE_EPOCH MTOOLS_SKIP_CHECK=1 TZ=UTC
    mkfs.fat -F 32 -n DUNLIN --invariant -i "$DISK_ID" "$build/boot.fat" >/dev/null
    (cd "$boot" && LC_ALL=C && mcopy -s -m -i ../boot.fat ./* ::)
}

command_line() {
    printf 'console=tty1 %s root=PARTUUID=%s ro rootwait fsck.repair=yes net.ifnames=0 panic=10\n' \
        "$(board_get "$1" image.kernel_arguments | xargs)" "$2"
}

# config.txt starts slot a; tryboot.txt, read once after `reboot "0 tryboot"`, starts slot b.
raspberry_pi() {
    local board=$1 build=$2 tree slot
    cp "$build"/firmware/usr/lib/raspi-firmware/{bootcode.bin,start.elf,start4.elf,start_cd.elf,start4cd.elf,fixup.dat,fixup4.dat,fixup_cd.dat,fixup4cd.dat} "$build/boot/"
    cp "$build/firmware/usr/share/doc/raspi-firmware/copyright" "$build/boot/LICENCE.firmware"
    for tree in "$build"/boot/a/*.dtb; do
        [[ $(fdtget "$tree" /soc/i2c@7e804000 status) == okay ]] || die "the bus of the pin header is off in $(basename "$tree"): no sensor could be read"
    done
    for slot in a:config b:tryboot; do
        {
            printf '# Read by the firmware. Slot %s.\nos_prefix=%s/\n' "${slot%%:*}" "${slot%%:*}"
            printf 'arm_64bit=1\nupstream_kernel=1\nkernel=kernel\ninitramfs initrd followkernel\n'
            board_get "$board" image.config
        } >"$build/boot/${slot#*:}.txt"
    done
}

# The card: four partitions in the old table, which every Raspberry Pi's firmware reads.
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

# The names are given at the end, so that they never name half an image.
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

# Beside the file, where dunlin-board flash looks for it.
checksum() {
    (cd "$WORK" && sha256sum "$1" >"$1.sha256.new" && mv "$1.sha256.new" "$1.sha256")
}

main "$@"
