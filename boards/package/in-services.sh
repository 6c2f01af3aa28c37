#!/usr/bin/env bash
# Run by test.sh once a clean Debian with the packages has booted: starts both services and tests a lost broker, a hang,
# credentials and mistakes. Logs to /root/services.log and makes /root/services.ok if everything passes.
set -euo pipefail
# shellcheck source=boards/common.sh
. /root/common.sh
exec >/root/services.log 2>&1

finish() {
    [[ -e /root/services.ok ]] || systemctl status --no-pager dunlin-agent dunlin-verifier || true
    systemctl poweroff --force --force
}
trap finish EXIT

# of UNIT PROPERTY: prints the property's value.
of() { systemctl show "$1" -p "$2" --value; }
# until_is WHAT COMMAND…: waits until the command succeeds, for a minute at most.
until_is() {
    local what=$1 try
    shift
    for try in $(seq 600); do
        if "$@"; then return; fi
        sleep 0.1
    done
    die "$what did not happen in $((try / 10)) s"
}
status_says() { grep -q "$2" <<<"$(of "$1" StatusText)"; }
restarted() { [[ $(of dunlin-agent NRestarts) -gt 0 ]] && [[ $(of dunlin-agent ActiveState) == active ]]; }

configured() {
    printf 'device = "test"\nbroker = "mqtt://127.0.0.1"\nmodel = "/usr/share/dunlin/models/demo/drafter"\n' >/etc/dunlin/agent.toml
    printf '[power]\ni2c = "/dev/i2c-7"\n[mqtt]\nuser = "test"\n' >>/etc/dunlin/agent.toml
    printf 'model = "/usr/share/dunlin/models/demo/target"\nembedded_broker = true\n' >/etc/dunlin/verifier.toml
    if [[ $(cat /root/verifier) == dunlin-verifier-llamacpp ]]; then printf 'engine = "llamacpp"\n' >>/etc/dunlin/verifier.toml; fi
    mkdir -p /etc/systemd/system/dunlin-agent.service.d
    # Short times, so that the test needn't wait half a minute.
    printf '[Service]\nWatchdogSec=2\nRestartSec=1\n' >/etc/systemd/system/dunlin-agent.service.d/test.conf
    systemctl daemon-reload
}

ready_without_a_broker() {
    systemctl start dunlin-agent
    until_is "a search for the broker" status_says dunlin-agent '^looking for the broker at 127.0.0.1:1883: '
    [[ $(of dunlin-agent DeviceAllow | tr '\n' ' ') == "/dev/vcio rw /dev/char/89:7 rw " ]] || die "wrong devices allowed: $(of dunlin-agent DeviceAllow)"
    [[ $(stat -c '%a %U:%G' /run/dunlin /run/dunlin/agent.sock | tr '\n' ' ') == "750 dunlin:dunlin 660 dunlin:dunlin " ]] || die "wrong modes of the socket"
}

answers_its_group() {
    systemctl start dunlin-verifier
    until_is "a connection" status_says dunlin-agent '^connected to'
    useradd --groups dunlin friend
    useradd stranger
    runuser -u friend -- dunlin-agent ask --max-tokens 20 "I need a seat on the bus." | grep -q . || die "no reply"
    status_says dunlin-agent 'checked by verifier-1' || die "the reply was not checked"
    if [[ $(cat /root/verifier) == dunlin-verifier-llamacpp ]]; then
        journalctl -u dunlin-verifier | grep -q 'llama.cpp of llama-cpp-sys-2.*promise="*exact' || die "the target doesn't run on llama.cpp: $(journalctl -u dunlin-verifier)"
        ! journalctl -u dunlin-verifier | grep 'runs without limits' || die "the child process that tries the file has no limits"
    fi
    ! runuser -u stranger -- dunlin-agent ask hello 2>/root/refused || die "a user outside the group may ask"
    grep -q 'Permission denied.*adduser USER dunlin' /root/refused || die "wrong refusal for a user outside the group: $(cat /root/refused)"
}

hung_is_restarted() {
    kill -STOP "$(of dunlin-agent MainPID)"
    until_is "the watchdog's restart" restarted
    [[ $(journalctl -u dunlin-agent | grep -c 'Watchdog timeout') == 1 ]] || die "the watchdog did not restart it"
    until_is "a connection after it" status_says dunlin-agent '^connected to'
}

credential_is_its_own() {
    local secret=/run/credentials/dunlin-agent.service/dunlin.mqtt-password
    [[ ! -e $secret ]] || die "a credential exists before the test"
    install -d -m 700 /etc/credstore
    echo hush | install -m 600 /dev/stdin /etc/credstore/dunlin.mqtt-password
    systemctl restart dunlin-agent
    [[ "$(cat "$secret")" == hush ]] || die "the credential is missing"
    [[ "$(stat -c '%a %U' "$secret")" == "400 dunlin" ]] || die "other users can read the credential"
}

mistakes_are_final() {
    sed -i '1i devise = "x"' /etc/dunlin/agent.toml
    ! systemctl restart dunlin-agent 2>/dev/null || die "it starts with an invalid configuration"
    [[ "$(of dunlin-agent Result) $(of dunlin-agent ExecMainStatus) $(of dunlin-agent ActiveState)" == "exit-code 2 failed" ]] || die "it is restarted with an invalid configuration"
    journalctl -u dunlin-agent | grep -q 'agent.toml:1: unknown field' || die "the mistake is not in the log"
}

stop_cleanly() {
    systemctl stop dunlin-verifier
    [[ "$(of dunlin-verifier Result) $(of dunlin-verifier NRestarts)" == "success 0" ]] || die "the verifier did not stop cleanly"
}

for step in configured ready_without_a_broker answers_its_group hung_is_restarted credential_is_its_own mistakes_are_final stop_cleanly; do
    "$step"
    printf '%s: ok\n' "${step//_/ }"
done
touch /root/services.ok
