//! Bit packing, most significant bit first, into and out of byte slices.

use crate::DecodeError;
use crate::wide::Wide;
use heapless::Vec;

/// Appends fields of up to 32 bits to a byte vector.
pub(crate) struct BitWriter<'a, const N: usize> {
    bytes: &'a mut Vec<u8, N>,
    free: u8,
}

impl<'a, const N: usize> BitWriter<'a, N> {
    pub(crate) fn new(bytes: &'a mut Vec<u8, N>) -> Self {
        Self { bytes, free: 0 }
    }

    /// Appends the low `width` bits of `value`; false if the vector is full.
    pub(crate) fn push(&mut self, value: u32, width: u8) -> bool {
        (0..width).rev().all(|bit| self.push_bit((value >> bit) & 1 == 1))
    }

    /// Appends the low `width` bits of `value`; false if the vector is full.
    pub(crate) fn push_wide(&mut self, value: &Wide, width: u32) -> bool {
        (0..width).rev().all(|bit| self.push_bit(value.bit(bit)))
    }

    fn push_bit(&mut self, bit: bool) -> bool {
        if self.free == 0 {
            if self.bytes.push(0).is_err() {
                return false;
            }
            self.free = 8;
        }
        self.free -= 1;
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << self.free;
        }
        true
    }
}

/// Reads fields of up to 32 bits from a byte slice.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `width` bits; `None` past the end.
    pub(crate) fn take(&mut self, width: u8) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..width {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// The next `width` bits; `None` past the end.
    pub(crate) fn take_wide(&mut self, width: u32) -> Option<Wide> {
        let mut value = Wide::default();
        for _ in 0..width {
            value.push_bit(self.take(1)? == 1);
        }
        Some(value)
    }

    /// Checks that only the zero padding of the last byte is left.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.bytes.len() > self.at.div_ceil(8) {
            return Err(DecodeError::Trailing);
        }
        if self.rest_is_zero() { Ok(()) } else { Err(DecodeError::NotCanonical) }
    }

    /// True when every bit not yet read is zero.
    fn rest_is_zero(mut self) -> bool {
        let rest = self.bytes.len() * 8 - self.at;
        (0..rest).all(|_| self.take(1) == Some(0))
    }
}
