"""The relay's loop between two sockets that stand for the devices; times are only bounded from below."""

import json
import os
import select
import socket
import threading
import time
import unittest

import relay

PACKET = b"\x45" + bytes(39)


def pair(kind):
    ends = socket.socketpair(socket.AF_UNIX, kind)
    for end in ends:
        end.setblocking(False)
    return ends


class RelayTest(unittest.TestCase):
    def setUp(self):
        (self.near, near), (self.far, far) = pair(socket.SOCK_DGRAM), pair(socket.SOCK_DGRAM)
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(10)
        self.kept = near, far, control
        self.thread = threading.Thread(target=relay.carry, args=(near.fileno(), far.fileno(), control), daemon=True)
        self.thread.start()

    def tearDown(self):
        self.control.close()
        self.thread.join(10)
        self.assertFalse(self.thread.is_alive(), "it ends when nobody is left to ask it")
        for end in (self.near, self.far, *self.kept):
            end.close()

    def ask(self, **command):
        self.control.send(json.dumps(command).encode())
        return json.loads(self.control.recv(4096))

    def got(self, end):
        self.assertTrue(select.select([end], [], [], 10)[0], "nothing came")
        return end.recv(4096)

    def test_packets_pass_both_ways_not_before_their_time_and_are_counted(self):
        self.ask(rtt=0.1, loss=0, seed=1)
        begun = time.monotonic()
        self.near.send(PACKET)
        self.assertEqual(self.got(self.far), PACKET)
        self.assertGreaterEqual(time.monotonic() - begun, 0.05)
        self.far.send(PACKET + b"answer")
        self.assertEqual(self.got(self.near), PACKET + b"answer")
        self.assertGreaterEqual(time.monotonic() - begun, 0.1)
        counted = self.ask(rtt=0, loss=0, seed=1)
        self.assertEqual(counted["up"], {"packets": 1, "bytes": 40, "lost": 0, "overflowed": 0})
        self.assertEqual(counted["down"], {"packets": 1, "bytes": 46, "lost": 0, "overflowed": 0})

    def test_what_is_no_ipv4_packet_stops_nothing_and_counts_nowhere(self):
        for odd in (b"", b"\x45", b"\x60" + bytes(39), b"\x00" + os.urandom(2 * relay.MTU)):
            self.near.send(odd)
        self.near.send(PACKET)
        self.assertEqual(self.got(self.far), PACKET)
        self.assertEqual(self.ask(rtt=0, loss=0, seed=1)["up"]["packets"], 1)

    def test_a_device_that_takes_no_packet_loses_it(self):
        self.far.close()
        self.near.send(PACKET)
        while not (counted := self.ask(rtt=0, loss=0, seed=1)["up"])["packets"]:
            pass
        self.assertEqual(counted["lost"], 1)

    def test_silence_grows_until_a_packet_comes(self):
        time.sleep(0.02)
        begun = time.monotonic()
        self.near.send(PACKET)
        self.got(self.far)
        time.sleep(0.02)
        silent = self.ask()["quiet"]
        self.assertTrue(0.02 <= silent <= time.monotonic() - begun, silent)
        self.assertGreater(self.ask()["quiet"], silent)


if __name__ == "__main__":
    unittest.main()
