#!/usr/bin/env bash
# What the agent takes: size, memory and start, against the aims. Needs no board: the size is the board's program's own,
# instructions are counted under emulation and turned into seconds by an assumption, and memory is that of the same
# profile built for this machine, as an emulator's own memory can't be told from the program's.
#
# BOARD=NAME  MODEL=DIR (the drafter's)
set -euo pipefail
# shellcheck source=boards/cross/common.sh
. "$(dirname "$0")/common.sh"

model=${MODEL:-$root/models/demo/drafter}
# A Cortex-A72 at 1.5 GHz that finishes one instruction a cycle: ours, for code that mostly parses and copies. It decodes
# three a cycle and stays below two in practice.
clock_hz=1500000000
per_cycle=1.0
start_aim_seconds=2
memory_aim_mib=24

read_target
program=$target_dir/board/$triple/dunlin-agent
host=$(host_triple)
[ -x "$program" ] || fail "$program is missing" "make agent BOARD=$BOARD"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Configuration, model and tokenizer are loaded and a token is drafted; then a port where nobody listens ends it.
start=(check --model "$model" --broker mqtt://127.0.0.1:1 --device figures --power none)

loaded() { grep -q '^✓ model' "$1" || fail "the agent loaded no model" "It said:" "$(cat "$1")"; }

plugin() {
	have "$emulator" || fail "$emulator is missing: the static emulator takes no plugin" "apt-get install qemu-user"
	cc -O2 -Wall -shared -fPIC -o "$work/instructions.so" "$root/boards/cross/instructions.c"
}

count_instructions() {
	local cpu
	cpu=$(board_get build.emulated_cpu)
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
		printf "  start to a drafted token: %.0f million instructions (emulated), estimated %.2f s at %.1f a cycle and %.1f GHz (Cortex-A72): %s of %s s\n",
			n / 1e6, s, ipc, hz / 1e9, s <= aim ? "within the aim" : "over the aim", aim }'
}

peak_kib() {
	python3 - "$@" <<-'P'
		import resource, subprocess, sys
		with open(sys.argv[1], "w") as log:
		    subprocess.run(sys.argv[2:], stdout=log, stderr=log)
		print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
	P
}

say_memory() {
	local native=$target_dir/board/$host/dunlin-agent peak model_bytes
	if [ ! -x "$native" ]; then
		say "  memory: not measured; make agent BOARD=host builds the same profile for this machine, which is measured"
		return
	fi
	peak=$(peak_kib "$work/memory.log" "$native" "${start[@]}")
	loaded "$work/memory.log"
	model_bytes=$(cat "$model"/*.onnx | wc -c)
	awk -v peak="$peak" -v model="$model_bytes" -v aim="$memory_aim_mib" -v host="$host" 'BEGIN {
		more = peak / 1024 - model / 1048576
		printf "  memory: at most %.1f MiB (VmHWM, %s), the weights and %.1f MiB: %s of %s MiB beside them\n",
			peak / 1024, host, more, more <= aim ? "within the aim" : "over the aim", aim }'
}

"$root/boards/cross/check.sh" "$program"
say_start
say_memory
