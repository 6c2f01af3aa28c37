//! Dequantization of blocks, with the same bits as ggml's.

use crate::block_type::BlockType;
use crate::error::{Error, Result};
use half::{bf16, f16};

/// Numbers in a block of the types whose names end in `_K`.
const SUPER_BLOCK: usize = 256;
/// Numbers in a block of the other quantized types.
const BLOCK: usize = 32;

impl BlockType {
    /// Dequantizes `bytes`, which must be whole blocks.
    ///
    /// # Errors
    /// [`Error::Dequantize`] for a type without a rule here; [`Error::Value`] if the last block isn't whole.
    pub fn dequantize(self, bytes: &[u8]) -> Result<Vec<f32>> {
        let size = self.block_bytes() as usize;
        let rule = self.rule().ok_or(Error::Dequantize(self))?;
        if !bytes.len().is_multiple_of(size) {
            return Err(Error::value(
                format!("data of type {self}"),
                format!("blocks of {size} bytes"),
                bytes.len(),
            ));
        }
        let mut numbers = Vec::with_capacity(bytes.len() / size * self.block_elements() as usize);
        bytes.chunks_exact(size).for_each(|block| rule(Fields(block), &mut numbers));
        Ok(numbers)
    }

    /// The function that appends the numbers of one block.
    fn rule(self) -> Option<fn(Fields<'_>, &mut Vec<f32>)> {
        Some(match self {
            Self::F32 => |mut block, out| out.push(f32::from_le_bytes(block.array())),
            Self::F16 => |mut block, out| out.push(block.half()),
            Self::BF16 => |mut block, out| out.push(bf16::from_le_bytes(block.array()).to_f32()),
            Self::Q4_0 => q4_0,
            Self::Q4_1 => q4_1,
            Self::Q5_0 => q5_0,
            Self::Q5_1 => q5_1,
            Self::Q8_0 => q8_0,
            Self::Q2_K => q2_k,
            Self::Q3_K => q3_k,
            Self::Q4_K => q4_k,
            Self::Q5_K => q5_k,
            Self::Q6_K => q6_k,
            _ => return None,
        })
    }
}

/// A block's fields, read from its beginning. A block has its type's size, so the bytes can't run out.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn take(&mut self, count: usize) -> &'b [u8] {
        let (field, rest) = self.0.split_at(count);
        self.0 = rest;
        field
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().expect("N bytes were taken")
    }

    fn half(&mut self) -> f32 {
        f16::from_le_bytes(self.array()).to_f32()
    }
}

/// The low four bits of every byte, then the high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|byte| byte >> 4))
}

fn q4_0(mut block: Fields<'_>, out: &mut Vec<f32>) {
    let scale = block.half();
    out.extend(nibbles(block.take(BLOCK / 2)).map(|q| (f32::from(q) - 8.0) * scale));
}

fn q4_1(mut block: Fields<'_>, out: &mut Vec<f32>) {
    let (scale, min) = (block.half(), block.half());
    out.extend(nibbles(block.take(BLOCK / 2)).map(|q| f32::from(q) * scale + min));
}

/// Four low bits of each number, and its fifth as a bit of `high`.
fn fifth_bits(low: &[u8], high: [u8; 4]) -> impl Iterator<Item = f32> + '_ {
    let high = u32::from_le_bytes(high);
    nibbles(low).enumerate().map(move |(i, q)| f32::from(q | ((high >> i & 1) << 4) as u8))
}

fn q5_0(mut block: Fields<'_>, out: &mut Vec<f32>) {
    let (scale, high) = (block.half(), block.array());
    out.extend(fifth_bits(block.take(BLOCK / 2), high).map(|q| (q - 16.0) * scale));
}

fn q5_1(mut block: Fields<'_>, out: &mut Vec<f32>) {
    let (scale, min, high) = (block.half(), block.half(), block.array());
    out.extend(fifth_bits(block.take(BLOCK / 2), high).map(|q| q * scale + min));
}

fn q8_0(mut block: Fields<'_>, out: &mut Vec<f32>) {
    let scale = block.half();
    out.extend(block.take(BLOCK).iter().map(|q| f32::from(q.cast_signed()) * scale));
}

/// Two bits a number: 16 numbers share four bits of scale and four of minimum.
fn q2_k(mut block: Fields<'_>, out: &mut Vec<f32>) {
    let (scales, quants) = (block.take(SUPER_BLOCK / 16), block.take(SUPER_BLOCK / 4));
    let (scale, min) = (block.half(), block.half());
    let mut scales = scales.iter();
    for quants in quants.chunks_exact(32) {
        for shift in [0, 2, 4, 6] {
            for (quants, both) in quants.chunks_exact(16).zip(&mut scales) {
                let (scale, min) = (scale * f32::from(both & 15), min * f32::from(both >> 4));
                out.extend(quants.iter().map(|q| scale * f32::from(q >> shift & 3) - min));
            }
        }
    }
}

/// Three bits a number, the third in `high`: 16 numbers share six bits of scale.
fn q3_k(mut block: Fields<'_>, out: &mut Vec<f32>) {
    let (high, quants) = (block.take(SUPER_BLOCK / 8), block.take(SUPER_BLOCK / 4));
    let (packed, scale) = (block.take(12), block.half());
    let six_bits = |i: usize| nibble(packed, i) | (packed[8 + i % 4] >> (2 * (i / 4)) & 3) << 4;
    let mut scales = (0..16).map(|i| scale * (f32::from(six_bits(i)) - 32.0));
    let mut bit = 0;
    for quants in quants.chunks_exact(32) {
        for shift in [0, 2, 4, 6] {
            let halves = quants.chunks_exact(16).zip(high.chunks_exact(16));
            for ((quants, high), scale) in halves.zip(&mut scales) {
                let number = |(q, high): (&u8, &u8)| {
                    let missing = if high >> bit & 1 == 0 { 4.0 } else { 0.0 };
                    scale * (f32::from(q >> shift & 3) - missing)
                };
                out.extend(quants.iter().zip(high).map(number));
            }
            bit += 1;
        }
    }
}

/// Low bits of the scale `i` of 16 of a [`q3_k`]: eight low nibbles, then eight high ones.
fn nibble(packed: &[u8], i: usize) -> u8 {
    packed[i % 8] >> (4 * (i / 8)) & 15
}

/// Scale and minimum `i` of 8, six bits each, of a [`q4_k`] or [`q5_k`].
fn scale_and_min(packed: &[u8], i: usize) -> (f32, f32) {
    let (scale, min) = match i {
        0..4 => (packed[i] & 63, packed[i + 4] & 63),
        _ => (packed[i + 4] & 15 | packed[i - 4] >> 6 << 4, packed[i + 4] >> 4 | packed[i] >> 6 << 4),
    };
    (scale.into(), min.into())
}

/// Four bits a number: 32 numbers share a scale and a minimum.
fn q4_k(mut block: Fields<'_>, out: &mut Vec<f32>) {
    let (scale, min) = (block.half(), block.half());
    let (packed, quants) = (block.take(12), block.take(SUPER_BLOCK / 2));
    for (pair, quants) in quants.chunks_exact(32).enumerate() {
        for (half, quants) in nibbles(quants).collect::<Vec<_>>().chunks_exact(32).enumerate() {
            let (own_scale, own_min) = scale_and_min(packed, 2 * pair + half);
            let (scale, min) = (scale * own_scale, min * own_min);
            out.extend(quants.iter().map(|q| scale * f32::from(*q) - min));
        }
    }
}

/// Five bits a number, the fifth in `high`: 32 numbers share a scale and a minimum.
fn q5_k(mut block: Fields<'_>, out: &mut Vec<f32>) {
    let (scale, min) = (block.half(), block.half());
    let (packed, high, quants) = (block.take(12), block.take(SUPER_BLOCK / 8), block.take(SUPER_BLOCK / 2));
    for (pair, quants) in quants.chunks_exact(32).enumerate() {
        for (half, quants) in nibbles(quants).collect::<Vec<_>>().chunks_exact(32).enumerate() {
            let index = 2 * pair + half;
            let (own_scale, own_min) = scale_and_min(packed, index);
            let (scale, min) = (scale * own_scale, min * own_min);
            let number = |(q, high): (&u8, &u8)| scale * f32::from(q | (high >> index & 1) << 4) - min;
            out.extend(quants.iter().zip(high).map(number));
        }
    }
}

/// Six bits a number, two of them in `high`: 16 numbers share eight bits of scale.
fn q6_k(mut block: Fields<'_>, out: &mut Vec<f32>) {
    let (low, high) = (block.take(SUPER_BLOCK / 2), block.take(SUPER_BLOCK / 4));
    let (scales, scale) = (block.take(SUPER_BLOCK / 16), block.half());
    for ((low, high), scales) in low.chunks_exact(64).zip(high.chunks_exact(32)).zip(scales.chunks_exact(8)) {
        for i in 0..128 {
            let low = low[i % 64] >> (4 * (i / 64)) & 15;
            let high = high[i % 32] >> (2 * (i / 32)) & 3;
            let own_scale = f32::from(scales[i / 16].cast_signed());
            out.push(scale * own_scale * (f32::from(low | high << 4) - 32.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_asked_for() {
        let message = BlockType::Q8_0.dequantize(&[0; 35]).unwrap_err().to_string();
        assert_eq!(message, "data of type Q8_0: expected blocks of 34 bytes, found 35");
        assert_eq!(BlockType::Q8_0.dequantize(&[]).unwrap(), []);
    }

    #[test]
    fn a_type_without_a_rule_is_named() {
        let message = BlockType::IQ4_NL.dequantize(&[0; 18]).unwrap_err().to_string();
        assert!(message.starts_with("numbers of type IQ4_NL can't be computed"), "{message}");
    }

    #[test]
    fn a_block_gives_as_many_numbers_as_it_has_elements() {
        for number in 0..40 {
            let Some(kind) = BlockType::from_number(number) else { continue };
            let bytes = vec![0x55; 3 * kind.block_bytes() as usize];
            if let Ok(numbers) = kind.dequantize(&bytes) {
                assert_eq!(numbers.len() as u64, 3 * kind.block_elements(), "{kind}");
            }
        }
    }

    #[test]
    fn floats_and_bytes_by_hand() {
        assert_eq!(BlockType::F32.dequantize(&1.5f32.to_le_bytes()).unwrap(), [1.5]);
        assert_eq!(BlockType::F16.dequantize(&[0x00, 0x3c, 0x00, 0xc0]).unwrap(), [1.0, -2.0]);
        assert_eq!(BlockType::BF16.dequantize(&[0x80, 0x3f]).unwrap(), [1.0]);
        let mut block = [0; 34];
        (block[1], block[2], block[33]) = (0x3c, 3, 0xff);
        let numbers = BlockType::Q8_0.dequantize(&block).unwrap();
        assert_eq!((numbers[0], numbers[1], numbers[31]), (3.0, 0.0, -1.0));
    }
}
