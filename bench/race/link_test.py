"""The link's delay, loss, order and bounds, without a clock or a device."""

import unittest

from link import QUEUE_MAX, Link, is_ipv4


def arrived(link, now):
    return list(link.due(now))


def lost(loss, seed, packets=1000):
    """Which of some packets are lost."""
    link = Link(0, loss, seed)
    for number in range(packets):
        link.offer(number.to_bytes(2, "big"), number)
    kept = {int.from_bytes(packet, "big") for packet in arrived(link, packets)}
    assert link.counted["lost"] == packets - len(kept)
    return set(range(packets)) - kept


class LinkTest(unittest.TestCase):
    def test_a_packet_arrives_when_its_delay_is_over_and_not_before(self):
        link = Link(0.15)
        self.assertIsNone(link.wait(1.0))
        link.offer(b"one", 1.0)
        link.offer(b"two", 1.1)
        self.assertAlmostEqual(link.wait(1.05), 0.10)
        self.assertEqual(arrived(link, 1.149), [])
        self.assertEqual(arrived(link, 1.151), [b"one"])
        self.assertEqual(link.wait(2.0), 0.0)
        self.assertEqual(arrived(link, 2.0), [b"two"])
        self.assertIsNone(link.wait(2.0))

    def test_without_a_delay_it_arrives_at_once(self):
        link = Link()
        link.offer(b"one", 1.0)
        self.assertEqual(arrived(link, 1.0), [b"one"])

    def test_the_seed_alone_says_what_is_lost(self):
        self.assertEqual(lost(0.02, 7), lost(0.02, 7))
        self.assertNotEqual(lost(0.02, 7), lost(0.02, 8))
        self.assertEqual(lost(0, 7), set())
        self.assertEqual(len(lost(1, 7)), 1000)
        self.assertTrue(10 <= len(lost(0.02, 7)) <= 32, "about 2 % of 1000")

    def test_a_setting_begins_its_seed_and_its_counts_anew(self):
        link, first = Link(0, 0.5, 3), []
        for _ in range(2):
            for number in range(100):
                link.offer(bytes(20), number)
            first.append((len(arrived(link, 100)), link.set(0, 0.5, 3)))
        self.assertEqual(first[0], first[1])
        self.assertEqual(first[0][1]["packets"], 100)
        self.assertEqual(first[0][1]["bytes"], 2000)
        self.assertEqual(link.counted, {"packets": 0, "bytes": 0, "lost": 0, "overflowed": 0})

    def test_a_shorter_delay_overtakes_nothing(self):
        link = Link(0.3)
        link.offer(b"slow", 1.0)
        link.set(0.0, 0, 0)
        link.offer(b"quick", 1.1)
        self.assertEqual(arrived(link, 1.2), [])
        self.assertEqual(arrived(link, 1.31), [b"slow", b"quick"])

    def test_a_full_queue_drops_and_counts_what_comes(self):
        link = Link(1.0)
        for number in range(QUEUE_MAX + 2):
            link.offer(number.to_bytes(2, "big"), 0)
        self.assertEqual(link.counted["overflowed"], 2)
        self.assertEqual(len(arrived(link, 1.0)), QUEUE_MAX)
        link.offer(b"again", 1.0)
        self.assertEqual(arrived(link, 2.0), [b"again"])

    def test_impossible_conditions_are_refused(self):
        for delay, loss in [(-1, 0), (float("nan"), 0), (float("inf"), 0), (0, -0.1), (0, 1.1), (0, float("nan"))]:
            with self.assertRaises(ValueError):
                Link(delay, loss)

    def test_no_packet_is_too_odd(self):
        for odd in (b"", b"\x45", b"\x60" + bytes(39), bytes(20)):
            self.assertFalse(is_ipv4(odd), odd)
        self.assertTrue(is_ipv4(b"\x45" + bytes(19)))


if __name__ == "__main__":
    unittest.main()
