"""One direction of the link: a bounded queue with deadlines, and loss by a seed. It reads no clock and no device."""

import random
from collections import deque

# The packets that may be on their way; one more is dropped, as a full buffer of a radio drops it.
QUEUE_MAX = 1000


class Link:
    """Packets on their way in one direction. Times are seconds of any clock that never goes back."""

    def __init__(self, delay=0.0, loss=0.0, seed=0):
        self.queue = deque()
        self.counted = {}
        self.set(delay, loss, seed)

    def set(self, delay, loss, seed):
        """New conditions for the packets to come, and counts from 0. What is on its way keeps its time."""
        if not 0 <= delay < float("inf") or not 0 <= loss <= 1:
            raise ValueError(f"a delay of {delay} s or a loss of {loss} can't be")
        self.delay, self.loss, self.random = delay, loss, random.Random(seed)
        before, self.counted = self.counted, {"packets": 0, "bytes": 0, "lost": 0, "overflowed": 0}
        return before

    def offer(self, packet, now):
        """Takes a packet that a side sends. It counts as sent, whether it arrives or not."""
        self.counted["packets"] += 1
        self.counted["bytes"] += len(packet)
        # One number for each packet, so that the same seed loses the packets of the same places.
        if self.random.random() < self.loss:
            self.counted["lost"] += 1
        elif len(self.queue) >= QUEUE_MAX:
            self.counted["overflowed"] += 1
        else:
            self.queue.append((now + self.delay, packet))

    def due(self, now):
        """Packets that have arrived by `now`, oldest first. None overtakes another, whatever the delay was."""
        while self.queue and self.queue[0][0] <= now:
            yield self.queue.popleft()[1]

    def wait(self, now):
        """Seconds until the next packet arrives; None without one."""
        return max(0.0, self.queue[0][0] - now) if self.queue else None


def is_ipv4(packet):
    """True for what the two sides exchange; the kernel's own greetings over IPv6 are not carried."""
    return len(packet) >= 20 and packet[0] >> 4 == 4
