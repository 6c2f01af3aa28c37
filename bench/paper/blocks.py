"""GGUF files: a writer that streams tensors, and the quantized blocks that they are made of. Numpy alone."""

import struct

import numpy as np

ALIGNMENT = 32
# ggml's numbers of the types, the numbers in a block, and the bytes of one.
F32, Q4_0, Q8_0, Q4_K, Q6_K = 0, 2, 8, 12, 14
BLOCKS = {F32: (1, 4), Q4_0: (32, 18), Q8_0: (32, 34), Q4_K: (256, 144), Q6_K: (256, 210)}
# The scale of each part of a random K block; its header is the same in every block.
PART_SCALE = 52
# Numbers that are made or quantized at a time.
PIECE = 1 << 24


def half(numbers):
    """16-bit floats as bytes, a row of two for each."""
    return np.asarray(numbers, np.float16).reshape(-1, 1).view(np.uint8)


def scales_4_k(scales, minima):
    """The 12 bytes of a Q4_K block's eight 6-bit scales and minima."""
    packed = np.empty((len(scales), 12), np.uint8)
    packed[:, 0:4] = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    packed[:, 4:8] = minima[:, :4] | ((minima[:, 4:] >> 4) << 6)
    packed[:, 8:12] = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    return packed


def random_blocks(kind, count, std, rng):
    """`count` blocks whose numbers are evenly spread around 0 with this standard deviation."""
    _, size = BLOCKS[kind]
    blocks = np.frombuffer(rng.bytes(count * size), np.uint8).reshape(count, size).copy()
    if kind == Q4_0:
        blocks[:, :2] = half([std / 4.61])
    elif kind == Q8_0:
        blocks[:, :2] = half([std / 73.9])
    elif kind == Q4_K:
        scale = std / (4.61 * PART_SCALE)
        parts = np.full((1, 8), PART_SCALE, np.uint8)
        blocks[:, :2], blocks[:, 2:4] = half([scale]), half([7.5 * scale])
        blocks[:, 4:16] = scales_4_k(parts, parts)
    elif kind == Q6_K:
        blocks[:, 192:208], blocks[:, 208:] = PART_SCALE, half([std / (18.5 * PART_SCALE)])
    return blocks


def quantize(kind, numbers):
    """Blocks of these numbers, whose count is a multiple of a block's."""
    return {Q4_0: quantize_4_0, Q8_0: quantize_8_0, Q4_K: quantize_4_k, Q6_K: quantize_6_k}[kind](numbers)


def inverse(scales):
    return np.where(scales == 0, 0, 1 / np.where(scales == 0, 1, scales))


def quantize_4_0(numbers):
    blocks = numbers.reshape(-1, 32)
    peaks = np.take_along_axis(blocks, np.abs(blocks).argmax(1, keepdims=True), 1)
    scales = (peaks / -8).astype(np.float16).astype(np.float32)
    codes = np.clip(np.rint(blocks * inverse(scales)) + 8, 0, 15).astype(np.uint8)
    return np.concatenate([half(scales), codes[:, :16] | (codes[:, 16:] << 4)], 1)


def quantize_8_0(numbers):
    blocks = numbers.reshape(-1, 32)
    scales = (np.abs(blocks).max(1, keepdims=True) / 127).astype(np.float16).astype(np.float32)
    codes = np.clip(np.rint(blocks * inverse(scales)), -127, 127).astype(np.int8)
    return np.concatenate([half(scales), codes.view(np.uint8)], 1)


def part_scales(peaks, levels):
    """A 16-bit scale for each block, and integers by which its parts multiply it."""
    scales = peaks.max(1) / levels
    scales = np.maximum(scales.astype(np.float16).astype(np.float32), 1e-7)
    return scales, np.clip(np.rint(peaks / scales[:, None]), 0, levels).astype(np.uint8)


def quantize_4_k(numbers):
    parts = numbers.reshape(-1, 8, 32)
    scales, factors = part_scales(np.abs(parts).max(2) / 7.5, 63)
    steps = np.maximum(scales[:, None] * factors, 1e-12)
    codes = np.clip(np.rint(parts / steps[:, :, None] + 7.5), 0, 15).astype(np.uint8)
    codes = codes.reshape(-1, 4, 2, 32)
    nibbles = (codes[:, :, 0] | (codes[:, :, 1] << 4)).reshape(-1, 128)
    return np.concatenate([half(scales), half(7.5 * scales), scales_4_k(factors, factors), nibbles], 1)


def quantize_6_k(numbers):
    parts = numbers.reshape(-1, 16, 16)
    scales, factors = part_scales(np.abs(parts).max(2) / 31, 127)
    steps = np.maximum(scales[:, None] * factors, 1e-12)
    codes = np.clip(np.rint(parts / steps[:, :, None]) + 32, 0, 63).astype(np.uint8)
    # Two halves of 128 numbers, each in four groups of 32.
    codes = codes.reshape(-1, 2, 4, 32)
    low, high = codes & 15, codes >> 4
    low = np.stack([low[:, :, 0] | (low[:, :, 2] << 4), low[:, :, 1] | (low[:, :, 3] << 4)], 2)
    high = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
    return np.concatenate([low.reshape(-1, 128), high.reshape(-1, 64), factors, half(scales)], 1)


class Tensor:
    """A tensor by name, shape `[rows, columns]` or `[length]`, and type; `pieces` yields its bytes when it is written."""

    def __init__(self, name, shape, kind, pieces):
        self.name, self.shape, self.kind, self.pieces = name, shape, kind, pieces
        numbers, size = BLOCKS[kind]
        self.bytes = int(np.prod(shape)) // numbers * size


def vector(name, numbers):
    numbers = np.asarray(numbers, np.float32)
    return Tensor(name, [len(numbers)], F32, lambda: [numbers])


def random_matrix(name, shape, kind, std, rng):
    """A matrix of random blocks."""
    numbers = BLOCKS[kind][0]
    count, most = int(np.prod(shape)) // numbers, PIECE // numbers

    def pieces():
        for start in range(0, count, most):
            yield random_blocks(kind, min(most, count - start), std, rng)

    return Tensor(name, shape, kind, pieces)


def matrix(name, shape, kind, rows):
    """A matrix whose rows from one to another `rows(start, end)` gives."""
    rows_max = max(1, PIECE // shape[1])

    def pieces():
        for start in range(0, shape[0], rows_max):
            yield quantize(kind, rows(start, min(start + rows_max, shape[0])))

    return Tensor(name, shape, kind, pieces)


def text(value):
    value = value.encode()
    return struct.pack("<Q", len(value)) + value


def value(item):
    """A metadata value with its type's number before it: text, an integer, a float, or an array of one of these."""
    if isinstance(item, list):
        first = value(item[0])[:4]
        return struct.pack("<I", 9) + first + struct.pack("<Q", len(item)) + b"".join(value(x)[4:] for x in item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + text(item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    # An array of token types is one of signed integers.
    return struct.pack("<Ii", 5, item) if isinstance(item, np.int32) else struct.pack("<II", 4, item)


def padding(length):
    return b"\0" * (-length % ALIGNMENT)


def write(path, metadata, tensors, progress):
    """Writes a file in memory that doesn't grow with it; `progress` gets the bytes of tensors that are written, and all."""
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    header += b"".join(text(key) + value(item) for key, item in metadata.items())
    offset, total = 0, sum(tensor.bytes for tensor in tensors)
    for tensor in tensors:
        dimensions = tensor.shape[::-1]
        header += text(tensor.name) + struct.pack("<I", len(dimensions))
        header += b"".join(struct.pack("<Q", size) for size in dimensions) + struct.pack("<IQ", tensor.kind, offset)
        offset += tensor.bytes + len(padding(tensor.bytes))
    done = 0
    with open(path, "wb") as file:
        file.write(header + padding(len(header)))
        for tensor in tensors:
            written = 0
            for piece in tensor.pieces():
                written += file.write(np.ascontiguousarray(piece).data.cast("B"))
                progress(done + written, total)
            assert written == tensor.bytes, f"{tensor.name}: {written} of {tensor.bytes} bytes"
            file.write(padding(written))
            done += written
