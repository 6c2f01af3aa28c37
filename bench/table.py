"""The report as text for a terminal; colour only where it is one."""

import os
import sys

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
STEPS = {
    "frame_encode": "frame of 8 drafts, encode",
    "frame_decode": "frame of 8 drafts, decode",
    "verdict_encode": "verdict, encode",
    "verdict_decode": "verdict, decode",
}


def paint(text, code):
    return f"\x1b[{code}m{text}\x1b[0m" if COLOUR else text


def bold(text):
    return paint(text, 1)


def ratio(value):
    """Ours over theirs: below 1 ours is the faster one."""
    return paint(f"{value:>8.2f}", 32 if value <= 1.1 else 33 if value <= 2 else 31)


def header(report):
    m = report["machine"]
    simd = f", {' '.join(m['simd'])}" if m["simd"] else ""
    print(bold(f"{m['cpu']} ({m['arch']}{simd}), {m['cores']} cores, load {m['load_at_start']} at the start"))
    busy = "This machine is busy: other work shares its cores and caches. Take figures and ratios as rough."
    if m["busy"]:
        print(paint(busy, 33))
    for peer in report["missing"]:
        print(paint(f"{peer} is not installed: ours stands alone where it would be compared.", 33))


def shape(row):
    sessions, chunk = row["sessions"], row["chunk"]
    tokens = "1 token" if chunk == 1 else f"{chunk} tokens"
    return tokens if sessions == 1 else f"{sessions} sessions × {tokens}"


def engines(title, part):
    peer = part["theirs"] or "no peer"
    print(f"\n{bold(title)}, CPU ms of one thread after 64 tokens: {part['ours']} / {peer}")
    print(f"  {'':<24}{'ours':>9}{'theirs':>9}{'ratio':>8}{'ours/token':>12}{'same best token':>17}")
    for row in part["rows"]:
        theirs = f"{row['theirs_ms']:>9.3f}{ratio(row['ratio'])}" if "ratio" in row else f"{'–':>9}{'–':>8}"
        agree = row.get("same_best_token", "–")
        print(f"  {shape(row):<24}{row['ours_ms']:>9.3f}{theirs}{row['ours_ms_per_token']:>12.3f}{agree:>17}")


def show(report):
    engines("Drafter", report["drafter"])
    engines("Target", report["target"])
    wire, latency = report["wire"], report["latency"]
    print(f"\n{bold('Wire')}, CPU ns; {wire['allocations']} allocations in that very loop")
    for name, words in STEPS.items():
        print(f"  {words:<30}{wire['ns'][name]:>8.0f}")
    share = sum(wire["ns"].values()) / 1e3 / latency["p50"]["bare_us"]
    print(f"  {'all four':<30}{sum(wire['ns'].values()):>8.0f}   {share:.2%} of a bare round trip")
    sizes = f"{latency['up_bytes']} bytes up, {latency['down_bytes']} down"
    print(f"\n{bold('A round through mosquitto')}, µs by the clock, {latency['rounds']} rounds; {sizes}")
    print(f"  {'':<10}{'round':>9}{'bare':>9}{'ratio':>8}")
    for name in ("p50", "p99"):
        row = latency[name]
        print(f"  {name:<10}{row['round_us']:>9.0f}{row['bare_us']:>9.0f}{row['ratio']:>8.2f}")
    target, sampling = latency["target_us"], latency["sampling_us"]
    print(f"  of a round {target:.0f} µs are the scripted target, {sampling:.0f} µs the sampling of 9 rows by shared seed")
    connect(report["connect"])
    crowd(report["crowd"])


def connect(found):
    print(f"\n{bold('Connecting')}, to CONNACK, ms by the clock, {found['connections']} each; TLS 1.3 with certificates on both sides")
    print(f"  {'':<10}{'TLS':>9}{'plain':>9}{'ratio':>8}")
    for name in ("p50", "p99"):
        tls, plain = found[f"tls_{name}_ms"], found[f"plain_{name}_ms"]
        print(f"  {name:<10}{tls:>9.2f}{plain:>9.2f}{tls / plain:>8.1f}")


def crowd(cases):
    print(f"\n{bold('Many sessions')}, through the machine and the target's thread, by the clock; 20 ms between rounds")
    print(f"  {'pass, a token, µs':<18}{'sessions':>9}{'rounds/s':>10}{'p50 ms':>8}{'p99 ms':>8}{'jobs/pass':>11}{'MiB':>6}{'KiB/session':>13}")
    for row in cases:
        cost = f"{row['pass_us']}, {row['token_us']}"
        print(
            f"  {cost:<18}{row['sessions']:>9}{row['rounds_per_second']:>10.0f}{row['p50_ms']:>8.1f}{row['p99_ms']:>8.1f}"
            f"{row['jobs_per_pass']:>11.1f}{row['memory_mib']:>6}{row['kib_per_session']:>13.1f}"
        )
