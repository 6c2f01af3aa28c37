"""The relay between two network namespaces, in two roles.

usage: relay.py carry NEAR FAR CONTROL    moves IP packets between two TUN devices, with delay and loss
       relay.py far SOCKET                makes a TUN device here, and sends it and this namespace through SOCKET

All arguments are file descriptors. CONTROL is a socket of messages: conditions in, what was counted out; or
nothing in, the seconds without a packet out.
"""

import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time

from link import Link, is_ipv4

NEAR, FAR = "10.77.0.1", "10.77.0.2"
TUN = "/dev/net/tun"
# From linux/if_tun.h: the request that names the device, and the flags IFF_TUN | IFF_NO_PI.
TUNSETIFF, RAW_PACKETS = 0x400454CA, 0x1001
MTU = 1500
# The packets that are taken from one side before the other has its turn.
BATCH = 64


class NotAllowed(Exception):
    """What this machine doesn't allow, with advice."""


def open_tun(address):
    """A TUN device of this namespace with that address, up; its file descriptor."""
    try:
        tun = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"race0", RAW_PACKETS))
    except OSError as error:
        raise NotAllowed(
            f"{TUN} can't be used here: {error.strerror}\n"
            "  On a machine of your own: modprobe tun. In a container: start it with --device /dev/net/tun."
        ) from error
    peer = FAR if address == NEAR else NEAR
    for command in (
        ("link", "set", "lo", "up"),
        ("address", "add", address, "peer", peer, "dev", "race0"),
        ("link", "set", "race0", "mtu", str(MTU), "up"),
    ):
        done = subprocess.run(("ip", *command), capture_output=True, text=True)
        if done.returncode:
            raise NotAllowed(f"ip {' '.join(command)}: {done.stderr.strip()}")
    return tun


def take(tun, link, now):
    """Takes what waits at a device; how many packets."""
    for taken in range(BATCH):
        try:
            packet = os.read(tun, MTU + 64)
        except BlockingIOError:
            return taken
        if is_ipv4(packet):
            link.offer(packet, now)
    return BATCH


def give(tun, link, now):
    """Gives a device what has arrived."""
    for packet in link.due(now):
        try:
            os.write(tun, packet)
        except OSError:
            # The kernel takes no packet now, or not this one: lost, as on any link.
            link.counted["lost"] += 1


def carry(near, far, control):
    """Moves packets until the other end of `control` is closed."""
    up, down, moved = Link(), Link(), time.monotonic()
    while True:
        now = time.monotonic()
        waits = [wait for wait in (up.wait(now), down.wait(now)) if wait is not None]
        ready, _, _ = select.select([near, far, control], [], [], min(waits, default=None))
        now = time.monotonic()
        if take(near, up, now) + take(far, down, now):
            moved = now
        give(far, up, now)
        give(near, down, now)
        if control in ready:
            command = control.recv(4096)
            if not command:
                return
            asked = json.loads(command)
            if not asked:
                control.send(json.dumps({"quiet": now - moved}).encode())
                continue
            delay, loss, seed = asked["rtt"] / 2, asked["loss"], asked["seed"]
            # Odd and even, so that the two directions don't lose the packets of the same places.
            counted = {"up": up.set(delay, loss, 2 * seed), "down": down.set(delay, loss, 2 * seed + 1)}
            control.send(json.dumps(counted).encode())


def far(handover):
    """Makes this namespace the far one, and hands it over with its device."""
    tun, space = open_tun(FAR), os.open("/proc/self/ns/net", os.O_RDONLY)
    socket.send_fds(handover, [b"far"], [tun, space])


def main():
    command, *numbers = sys.argv[1:]
    if command == "carry":
        near, far_side, control = map(int, numbers)
        carry(near, far_side, socket.socket(fileno=control))
    else:
        far(socket.socket(fileno=int(numbers[0])))


if __name__ == "__main__":
    try:
        main()
    except NotAllowed as error:
        sys.exit(f"race: {error}")
    except KeyboardInterrupt:
        pass
