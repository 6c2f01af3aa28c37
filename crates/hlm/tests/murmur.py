#!/usr/bin/env python3
"""The golden values of `crates/hlm/src/coupling/murmur.rs`, from MurmurHash3 as its author published it.

Prints one line a value: seed, position, column, hash, and the bits of G as a 64-bit float.
"""

import math
import struct


def murmur3_32(data, h=0):
    """MurmurHash3_x86_32 of bytes."""
    whole = len(data) - len(data) % 4
    for (k,) in struct.iter_unpack("<I", data[:whole]):
        h ^= scramble(k)
        h = rotl(h, 13) * 5 + 0xE6546B64 & 0xFFFFFFFF
    if data[whole:]:
        h ^= scramble(int.from_bytes(data[whole:], "little"))
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ h >> 16


def scramble(k):
    return rotl(k * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF


def rotl(x, by):
    return (x << by | x >> 32 - by) & 0xFFFFFFFF


def gumbel(h):
    """-ln(-ln u) with u = h / (2^32 - 1), kept finite at both ends as SGLang does."""
    u = h / 0xFFFFFFFF
    ln = math.log(u) if u else -math.inf
    ln = min(max(ln, -1.7976931348623157e308), -(2.0**-32))
    return -math.log(-ln)


assert [murmur3_32(b""), murmur3_32(b"", 1)] == [0, 0x514E28B7]
assert [murmur3_32(b"test"), murmur3_32(b"Hello, world!")] == [0xBA6BD213, 0xC0363E43]
for seed, position, column in [(0, 0, 0), (1, 2, 3), (42, 1023, 31999), (2**64 - 1, 2**32 - 1, 2**32 - 1)]:
    h = murmur3_32(struct.pack("<QII", seed, position, column))
    bits = struct.unpack("<Q", struct.pack("<d", gumbel(h)))[0]
    print(f"{seed} {position} {column} {h:#010x} {bits:#018x} {gumbel(h):.6f}")
