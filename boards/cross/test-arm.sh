#!/usr/bin/env bash
# Runs the tests of wire, hlm, gguf and the models' crates as arm64, and those of wire and hlm as 32-bit ARM, under user-mode
# emulation; then compares the demo drafter's text and scores on three emulated processors with the golden file. On an ARM
# machine, programs for its own architecture run without the emulator.
#
# ARM_ONLY=arm64|armv7 only one of the two
# ARM_CASES=N          cases per property test (each takes ten times as long under emulation)
# ARM_GOLDEN_PROMPTS=N prompts drafted on each processor
# ARM_ALL=1            includes the tests that are skipped for their length
set -euo pipefail
# shellcheck source=boards/cross/target.sh
. "$(dirname "$0")/target.sh"

cases=${ARM_CASES:-16}
prompts=${ARM_GOLDEN_PROMPTS:-8}
# Skipped, because each takes minutes under emulation: tests with tens of thousands of draws, whose noise the coupling's
# tests check bit by bit; tests of the tests, which don't depend on the processor; whole models of the target and of the
# encoder, which run on no board; and three hundred single steps of the drafter.
skipped=(distributed_as share_of_misses is_caught target:: encoder:: drafter::a_long_prompt drafter::chunks_equal)
[[ -z ${ARM_ALL:-} ]] || skipped=()
# The crates that are tested as arm64, always together: with other features the engines would be compiled again.
arm64=(wire hlm gguf lm lm-tract lm-candle)
# The cores of a Pi 3 or Zero 2 W, a Pi 4, and a Pi 5. Only the last has dot products and 16-bit floats.
cpus=(cortex-a53 cortex-a72 cortex-a76)

seconds_since() { printf '%d s' $((SECONDS - $1)); }

# Sets up cargo to build and run for the board $1.
prepare() {
    BOARD=$1
    export BOARD
    "$root/boards/cross/toolchain.sh" std linker emulator
    read_target
    need_std
    variable=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$triple")
    if ! is_native; then export "${variable}_LINKER=$gnu-gcc" "${variable}_RUNNER=$qemu -L /usr/$gnu"; fi
}

run_tests() {
    (cd "$root" && CARGO_TARGET_DIR=$target_dir/arm-test PROPTEST_CASES=$cases DUNLIN_GOLDEN_PROMPTS=$prompts \
        "$CARGO" test --profile arm-test --locked --target "$triple" "$@")
}

tests_of() {
    local from=$SECONDS packages=()
    for package in "$@"; do packages+=(-p "dunlin-$package"); done
    run_tests "${packages[@]}" --no-run
    say "$triple: built in $(seconds_since "$from")"
    from=$SECONDS
    run_tests "${packages[@]}" --no-fail-fast -- "${skipped[@]/#/--skip=}"
    say "$triple: tests of $* ran in $(seconds_since "$from"), $cases cases a property${skipped:+, without ${skipped[*]}}"
}

drafts_on_each_cpu() {
    local cpu from
    for cpu in "${cpus[@]}"; do
        from=$SECONDS
        QEMU_CPU=$cpu run_tests "${arm64[@]/#/-pdunlin-}" --test models the_drafter_drafts_the_same -- --nocapture
        say "$cpu: $(seconds_since "$from")"
    done
}

only=${ARM_ONLY:-both}
case $only in arm64 | armv7 | both) ;; *) die "unknown ARM_ONLY=$only; use arm64 or armv7" ;; esac
begin=$SECONDS
if [[ $only != armv7 ]]; then
    prepare arm64
    tests_of "${arm64[@]}"
    if is_native; then
        say "Skipped other processors' kernels: nothing is emulated on this machine."
    else
        drafts_on_each_cpu
    fi
fi
if [[ $only != arm64 ]]; then
    prepare rpi2
    tests_of wire hlm
fi
say "In all: $(seconds_since "$begin")"
