#!/usr/bin/env bash
# Measures the agent's size, start time and memory against their aims, without a board. The size is that of the program
# itself. The start time is estimated from the instructions counted under emulation. Memory is what the kernel of an
# emulated machine reports, because user-mode emulation would add its own.
#
# BOARD=NAME  MODEL=DIR (the drafter)  KERNEL=FILE (for the emulated machine; by default that of the virt image)
set -euo pipefail
# shellcheck source=boards/cross/target.sh
. "$(dirname "$0")/target.sh"

model=${MODEL:-$root/models/demo/drafter}
# Our assumption: a Cortex-A72 at 1.5 GHz completes one instruction per cycle in code that mostly parses and copies. It can
# decode three per cycle and completes fewer than two in practice.
clock_hz=1500000000
per_cycle=1.0
start_aim_seconds=2
memory_aim_mib=24

read_target
program=$target_dir/board/$triple/dunlin-agent
[[ -x $program ]] || die "$program is missing" "make agent BOARD=$BOARD"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Loads configuration, model and tokenizer and drafts a token; then it ends, because nothing listens on the broker's port.
start=(check --model "$model" --broker mqtt://127.0.0.1:1 --device figures --power none)

loaded() { grep -q '✓.* model: ' "$1" || die "the agent did not load its model" "Its output:" "$(cat "$1")"; }

plugin() {
    have "$emulator" || die "$emulator is missing, and the static emulator can't load plugins" "apt-get install qemu-user"
    cc -O2 -Wall -shared -fPIC -o "$work/instructions.so" "$root/boards/cross/instructions.c"
}

count_instructions() {
    local cpu
    cpu=$(board_get "$BOARD" build.emulated_cpu)
    "$emulator" -L "/usr/$gnu" ${cpu:+-cpu "$cpu"} -plugin "$work/instructions.so,out=$work/$1" "$program" "${@:2}" \
        >"$work/$1.log" 2>&1 || true
    cat "$work/$1"
}

say_start() {
    local instructions
    emulator=${qemu%-static}
    plugin
    instructions=$(count_instructions start "${start[@]}")
    loaded "$work/start.log"
    awk -v n="$instructions" -v hz="$clock_hz" -v ipc="$per_cycle" -v aim="$start_aim_seconds" 'BEGIN {
        s = n / hz / ipc
        printf "  start to a drafted token: %.0f million instructions (emulated), estimated %.2f s at %.1f per cycle and %.1f GHz (Cortex-A72): %s of %s s\n",
            n / 1e6, s, ipc, hz / 1e9, s <= aim ? "within the aim" : "over the aim", aim }'
}

# Copies the emulated machine's kernel, by default out of slot a, the second partition of the virt image.
kernel() {
    local image=$target_dir/image/dunlin-virt.img start
    if [[ -n ${KERNEL:-} ]]; then
        cp "$KERNEL" "$work/kernel"
    elif [[ -e $image ]] && have debugfs && have sfdisk; then
        start=$(sfdisk --dump "$image" | sed -n 's/.*start= *\([0-9]*\).*/\1/p' | sed -n 2p)
        debugfs -R "dump /boot/kernel $work/kernel" "$image?offset=$((start * 512))" 2>/dev/null
    else
        return 1
    fi
}

guest_files() {
    local library
    mkdir -p "$work/guest"/{lib,proc,tmp,dev,models}
    "$gnu-gcc" -static -O1 -Wall -o "$work/guest/init" "$root/boards/cross/memory.c"
    cp "$program" "$work/guest/agent"
    cp -r "$model" "$work/guest/models/drafter"
    cp "$model/../tokenizer.json" "$work/guest/models/"
    for library in ld-linux-aarch64.so.1 libc.so.6 libm.so.6 libgcc_s.so.1 libpthread.so.0 libdl.so.2 librt.so.1; do
        cp -L "/usr/$gnu/lib/$library" "$work/guest/lib/"
    done
    (cd "$work/guest" && find . | cpio --quiet -o -H newc) >"$work/initramfs"
}

not_measured() { say "  memory: not measured: $1"; }

say_memory() {
    local tool peak model_bytes
    [[ $arch == arm64 ]] || { not_measured "the emulated machine is arm64" && return; }
    for tool in qemu-system-aarch64 cpio "$gnu-gcc"; do
        have "$tool" || { not_measured "$tool is missing (apt-get install qemu-system-arm cpio gcc-$gnu libc6-dev-arm64-cross)" && return; }
    done
    kernel || { not_measured "there is no kernel: make image BOARD=virt, or KERNEL=FILE (and apt-get install e2fsprogs fdisk)" && return; }
    guest_files
    timeout 300 qemu-system-aarch64 -M virt -cpu "$(board_get "$BOARD" build.emulated_cpu)" -m 512 -smp 2 -nic none -no-reboot -nographic \
        -kernel "$work/kernel" -initrd "$work/initramfs" -append "console=ttyAMA0 quiet rdinit=/init" \
        </dev/null >"$work/memory.log" 2>&1 || true
    loaded "$work/memory.log"
    peak=$(sed -n 's/^peak_kib \([0-9]*\).*/\1/p' "$work/memory.log")
    model_bytes=$(cat "$model"/*.onnx | wc -c)
    awk -v peak="$peak" -v model="$model_bytes" -v aim="$memory_aim_mib" 'BEGIN {
        more = peak / 1024 - model / 1048576
        printf "  memory: at most %.1f MiB resident (emulated machine), of which %.1f MiB besides the weights: %s of %s MiB\n",
            peak / 1024, more, more <= aim ? "within the aim" : "over the aim", aim }'
}

"$root/boards/cross/check.sh" "$program"
say_start
say_memory
