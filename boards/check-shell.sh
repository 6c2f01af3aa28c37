#!/usr/bin/env bash
# Checks every shell script of the repository: by shellcheck with the settings of .shellcheckrc, and by shfmt for the form.
# A script is checked as the shell that its first line names.
set -euo pipefail
# shellcheck source=boards/common.sh
. "$(dirname "$0")/common.sh"

cd "$root"
mapfile -t scripts < <(grep -rIlE --exclude-dir={target,.git} '^#!(/bin/sh|/usr/bin/env bash)|^# shellcheck shell=' . | sort)
((${#scripts[@]} > 0)) || die "no shell script was found in $root"
shellcheck "${scripts[@]}"
shfmt -i 4 -ci -d "${scripts[@]}" || die "the form differs from the one above" "shfmt -i 4 -ci -w FILE writes it."
say "Checked ${#scripts[@]} shell scripts."
