#!/usr/bin/env bash
# Run by test.sh as root of a clean Debian: installs, upgrades, removes and purges the packages, and checks each step.
set -euo pipefail
# shellcheck source=boards/common.sh
. /root/common.sh
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
cd /root/packages
verifier=$(cat /root/verifier)

checks=0
ok() { checks=$((checks + 1)); }
# expect WHAT ACTUAL EXPECTED
expect() { if [[ $2 == "$3" ]]; then ok; else die "$1: '$2', not '$3'"; fi; }
quietly() { "$@" >/root/log 2>&1 || { cat /root/log >&2 && die "$*"; }; }
absent() { for path in "$@"; do if [[ -e $path ]] || [[ -L "$path" ]]; then die "$path exists"; else ok; fi; done; }

# Prints all files but those in which the system keeps records of any package.
everything() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /root -o -path /var/cache -o -path /var/log \
        -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /run \) -prune -o -print |
        grep -vE '^/etc/(passwd|group|shadow|gshadow)-?$|^/etc/\.pwd\.lock$|^/etc/ld\.so\.cache$|^/var/lib/systemd/deb-systemd' | sort
}

installs() {
    everything >/root/before
    quietly apt-get install -y --no-install-recommends ./dunlin-agent.deb "./$verifier.deb" ./dunlin-model-demo.deb
}

starts_nothing() {
    local unit
    for unit in dunlin-agent dunlin-verifier; do
        expect "state of $unit" "$(systemctl is-enabled "$unit" || true)" disabled
    done
    expect "links to the units" "$(find /etc/systemd -name '*dunlin*' | wc -l)" 0
    expect "running programs of Dunlin" "$(grep -l -a '^/usr/bin/dunlin' /proc/[0-9]*/cmdline || true)" ""
}

made_its_users() {
    expect "the agent's user" "$(getent passwd dunlin | cut -d: -f6,7)" /var/lib/dunlin:/usr/sbin/nologin
    expect "the agent's groups" "$(id -nG dunlin | tr ' ' '\n' | sort | tr '\n' ' ')" "dunlin i2c video "
    expect "the verifier's user" "$(getent passwd dunlin-verifier | cut -d: -f6,7)" /var/lib/dunlin-verifier:/usr/sbin/nologin
    expect "the verifier's groups" "$(id -nG dunlin-verifier)" dunlin-verifier
    expect "the credentials' folder" "$(stat -c '%a %U:%G' /etc/credstore)" "700 root:root"
}

files_belong_to_root() {
    local path mode
    while read -r path; do
        if [[ ! -f $path ]] || [[ -L "$path" ]]; then continue; fi
        case $path in /usr/bin/* | /lib/systemd/system-generators/*) mode=755 ;; *) mode=644 ;; esac
        expect "$path" "$(stat -c '%a %U:%G' "$path")" "$mode root:root"
    done < <(dpkg -L dunlin-agent "$verifier" dunlin-model-demo)
    expect "conffiles" "$(dpkg-query -f '${Conffiles}\n' -W dunlin-agent "$verifier" | awk 'NF {print $1}' | tr '\n' ' ')" \
        "/etc/dunlin/agent.toml /etc/dunlin/verifier.toml "
}

programs_run() {
    local said
    expect "version" "$(runuser -u dunlin -- dunlin-agent --version)" "dunlin-agent $(dpkg-query -f '${Version}' -W dunlin-agent)"
    said=$(runuser -u dunlin -- dunlin-agent check --config /etc/dunlin/agent.toml --device test --broker mqtt://127.0.0.1:9) && die "check succeeds without a broker"
    grep -q '^✓ model: dunlin-demo-drafter' <<<"$said" || die "check doesn't report the model: $said"
    grep -q '^✗ broker: ' <<<"$said" || die "check doesn't report the missing broker: $said"
    runuser -u dunlin-verifier -- dunlin-verifier serve --config /etc/dunlin/verifier.toml 2>/root/log && die "a verifier starts without a model"
    grep -q 'no target' /root/log || die "the verifier doesn't report its missing model: $(cat /root/log)"
    ok
}

units_are_sound() {
    local unit
    for unit in dunlin-agent dunlin-verifier; do
        quietly systemd-analyze verify --man=no "$unit.service"
        expect "systemd's warnings about $unit" "$(cat /root/log)" ""
        quietly systemd-analyze security --offline=true --threshold=20 "/lib/systemd/system/$unit.service"
        sed -n 's/^→ \(Overall.*[0-9]\) .*/\1/p' /root/log
    done
}

# Prints the bus that the generator lets the service use with the configuration $1.
bus_with() {
    local dir=/root/generated config=/etc/dunlin/agent.toml
    rm -rf "$dir"
    cp "$config" /root/kept
    printf '%b' "$1" >"$config"
    /lib/systemd/system-generators/dunlin-agent "$dir" "$dir" "$dir"
    cp /root/kept "$config"
    if [[ -d $dir ]]; then sed -n 's|^DeviceAllow=/dev/char/89:\(.*\) rw|\1|p' "$dir/dunlin-agent.service.d/bus.conf"; fi
}

one_bus_is_allowed() {
    local config='board = "jetson-orin-nano"\n'
    expect "the bus without a board" "$(bus_with 'device = "a"\n')" ""
    expect "the board's bus" "$(bus_with "$config")" 7
    expect "a configured bus" "$(bus_with "${config}[power]\ni2c = '/dev/i2c-12'\n")" 12
    expect "an invalid bus" "$(bus_with "[power]\ni2c = '/dev/sda'\n")" ""
    expect "an unknown board" "$(bus_with 'board = "none"\n')" ""
    echo virt >/etc/dunlin-board
    expect "the image's bus" "$(bus_with '')" 0
    expect "a configured board on an image" "$(bus_with "$config")" 7
    rm /etc/dunlin-board
}

upgrades_keep_edits() {
    local config=/etc/dunlin/agent.toml
    sed -i 's/^#device = .*/device = "mine"/' "$config"
    install -d -o dunlin -g dunlin /var/lib/dunlin
    touch /var/lib/dunlin/power.toml
    cp "$config" /root/edited
    quietly apt-get install -y ./dunlin-agent-99.1.deb
    quietly cmp "$config" /root/edited
    quietly apt-get install -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold ./dunlin-agent-99.2.deb
    expect "version" "$(dpkg-query -f '${Version}' -W dunlin-agent)" 99.2
    quietly cmp "$config" /root/edited
    quietly grep -q 'newer version' "$config.dpkg-dist"
    starts_nothing
}

# An agent from before TLS keeps its broker on another machine, and says so.
a_plain_broker_stays() {
    local config=/etc/dunlin/agent.toml
    cp -p "$config" /root/kept
    printf 'device = "mine"\nbroker = "mqtt://192.0.2.1:1883"\n' >"$config"
    dpkg -i --force-confold dunlin-agent-99.2.deb >/root/said 2>&1
    quietly grep -q 'warning: mqtt://192.0.2.1:1883 has no TLS' /root/said
    quietly grep -qx 'insecure = true' "$config"
    cp -p "$config" /root/once
    quietly dpkg -i --force-confold dunlin-agent-99.2.deb
    quietly cmp "$config" /root/once
    cp -p /root/kept "$config"
}

# Puts an old configuration in place with owner and mode as $1 says, installs the verifier again, and checks the result.
rewrites_for() {
    local config=/etc/dunlin/verifier.toml secret=/etc/dunlin/verifier.mqtt-password
    rm -f "$secret"
    printf 'model = "/m"\n# who\nusername = "v"\npassword = "hush"\nkeep_alive_s = 20\n' >"$config"
    chown "${1#* }" "$config"
    chmod "${1% *}" "$config"
    quietly dpkg -i --force-confold "$verifier.deb"
    expect "the new keys" "$(grep -v '^$' "$config" | tr '\n' ' ')" \
        'model = "/m" [mqtt] # who user = "v" password_file = "verifier.mqtt-password" keep_alive_seconds = 20 '
    expect "the configuration's owner" "$(stat -c '%a %U:%G' "$config")" "$1"
    expect "the password" "$(cat "$secret")" hush
    expect "the password's owner" "$(stat -c '%a %U:%G' "$secret")" "640 root:dunlin-verifier"
    expect "the password as the service reads it" "$(runuser -u dunlin-verifier -- cat "$secret")" hush
}

old_keys_are_rewritten() {
    local config=/etc/dunlin/verifier.toml
    cp -p "$config" /root/kept
    rewrites_for "644 root:root"
    rewrites_for "640 root:dunlin-verifier"
    cp -p /root/kept "$config"
}

removal_keeps_configuration() {
    quietly apt-get remove -y dunlin-agent "$verifier"
    absent /usr/bin/dunlin-agent /usr/bin/dunlin-verifier /usr/share/dunlin/boards
    quietly cmp /etc/dunlin/agent.toml /root/edited
    quietly test -e /var/lib/dunlin/power.toml
    quietly apt-get install -y --no-install-recommends ./dunlin-agent-99.2.deb
    quietly cmp /etc/dunlin/agent.toml /root/edited
}

purge_leaves_nothing() {
    quietly apt-get purge -y dunlin-agent "$verifier" dunlin-model-demo
    everything >/root/after
    expect "files left behind" "$(comm -13 /root/before /root/after)" ""
    expect "files missing" "$(comm -23 /root/before /root/after)" ""
}

for step in installs starts_nothing made_its_users files_belong_to_root programs_run units_are_sound one_bus_is_allowed upgrades_keep_edits a_plain_broker_stays \
    old_keys_are_rewritten removal_keeps_configuration purge_leaves_nothing; do
    "$step"
    printf '%s: ok\n' "${step//_/ }"
done
printf '%s checks\n' "$checks"
