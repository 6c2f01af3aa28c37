#!/usr/bin/env bash
# Races our agent and llama.cpp's server over a link with delay and loss, in network namespaces of its own. It needs no
# privileges where users may make namespaces. What it writes is in target/race.
#
# usage: race.sh [--short] [--prompts N] [--rtts MS…] [--losses SHARE…]
# exit codes: 0 done; 1 a text differs from the target's, or a program failed; 3 this machine doesn't allow the link
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
venv=${VENV:-$target/venv}
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$target/race"

# refused MESSAGE HINT…: ends the script where the machine is the reason.
refused() {
    printf 'race: %s\n' "$1" >&2
    printf '  %s\n' "${@:2}" >&2
    exit 3
}

# A network of our own, and processes that end with the first one, however that ends.
spaces=(--net --pid --fork --kill-child)
if unshare --user --map-root-user "${spaces[@]}" true 2>/dev/null; then
    spaces+=(--user --map-root-user)
elif ! reason=$(unshare "${spaces[@]}" true 2>&1); then
    refused "no namespaces can be made here: ${reason#unshare: }" \
        "On a machine of your own, as root: sysctl kernel.unprivileged_userns_clone=1 (Debian)" \
        "or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), or run this as root." \
        "In a container: start it with --cap-add SYS_ADMIN --cap-add NET_ADMIN --device /dev/net/tun."
fi
[[ -c /dev/net/tun ]] || refused "/dev/net/tun is missing" "On a machine of your own: modprobe tun." \
    "In a container: start it with --device /dev/net/tun."

{
    grep '^llama-cpp-python' bench/requirements.txt
    grep -v '^#' bench/race/requirements.txt
} | VENV=$venv bench/peers.sh "$target/race/peers.log"

# unshare passes no signal on. Ending this script ends it, and with it all that it started.
setpriv --pdeathsig KILL unshare "${spaces[@]}" "$venv/bin/python" -B bench/race/race.py \
    --bins "$target/release" --out "$target/race" --map "$target/evaluation/map/map.json" "$@"
