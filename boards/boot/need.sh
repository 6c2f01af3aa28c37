#!/usr/bin/env bash
# Installs what an image is booted and looked at with, where it is missing.
#
# usage: need.sh   (SUDO= is put before apt-get)
set -euo pipefail

# Program and the Debian package that has it.
programs=(
	qemu-system-aarch64 qemu-system-arm
	mcopy mtools
	e2fsck e2fsprogs
	ssh openssh-client
	mosquitto mosquitto
	mosquitto_passwd mosquitto
	mosquitto_sub mosquitto-clients
)

say() { printf '%s\n' "$*" >&2; }

fail() {
	say "boards/boot: $1"
	shift
	local advice
	for advice in "$@"; do say "  $advice"; done
	exit 1
}

have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

# The packages of all programs that are not here, each once.
missing() {
	local at
	for ((at = 0; at < ${#programs[@]}; at += 2)); do
		have "${programs[at]}" || printf '%s\n' "${programs[at + 1]}"
	done | sort -u
}

install_missing() {
	local packages
	mapfile -t packages < <(missing)
	[ ${#packages[@]} -gt 0 ] || return 0
	have apt-get || fail "these are missing: ${packages[*]}" "Install them with your system's package manager."
	say "Installing ${packages[*]}"
	# shellcheck disable=SC2086 # no SUDO is no word
	${SUDO:-} apt-get update -qq
	# shellcheck disable=SC2086
	${SUDO:-} apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2 ||
		fail "apt-get could not install ${packages[*]}" "Install them by hand, then run this again."
}

# The sensor hangs on a USB cable that some builds of QEMU leave out.
emulator_has_cable() {
	local devices
	devices=$(qemu-system-aarch64 -device help 2>/dev/null) || fail "qemu-system-aarch64 does not run"
	[[ $devices == *'"usb-redir"'* ]] ||
		fail "this QEMU has no device usb-redir, which the power sensor is connected by" \
			"Debian's has: apt-get install qemu-system-arm"
}

install_missing
emulator_has_cable
