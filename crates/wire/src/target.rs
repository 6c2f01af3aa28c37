//! The target's identity, its promise about the text, and the price of its time.

use core::fmt;
use serde::{Deserialize, Serialize};

/// Bytes of a target's identity that identify its weights.
pub(crate) const WEIGHTS_BYTES: usize = 6;

/// The identity of a target: its weights, and the numerics they are computed with.
///
/// Two targets with the same weights write texts of the same distribution. If the numerics are the same too and the
/// promise is [`Promise::Exact`], they write the same text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TargetId([u8; 8]);

impl TargetId {
    /// The identity from SHA-256 digests of the weights and of engine and numerics.
    pub fn new(weights: &[u8; 32], numerics: &[u8; 32]) -> Self {
        let mut id = [0; 8];
        let (left, right) = id.split_at_mut(WEIGHTS_BYTES);
        left.copy_from_slice(&weights[..left.len()]);
        right.copy_from_slice(&numerics[..right.len()]);
        Self(id)
    }

    /// The identity from its bytes.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// All 8 bytes.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }

    /// True when both have the same weights, whatever their numerics.
    pub fn has_weights_of(self, other: Self) -> bool {
        self.0[..WEIGHTS_BYTES] == other.0[..WEIGHTS_BYTES]
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (weights, numerics) = self.0.split_at(WEIGHTS_BYTES);
        weights.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        numerics.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A target's promise about its choices, strongest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Promise {
    /// The logits of a position depend only on the tokens up to it, bit for bit, in every batch, chunk and order of
    /// rollbacks. So the same seed gives the same text.
    Exact,
    /// Each token is drawn from the target's distribution, but the bits of its logits depend on the batch.
    Distribution,
    /// No promise.
    #[default]
    Approximate,
}

impl Promise {
    /// Its name in reports and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Distribution => "distribution",
            Self::Approximate => "approximate",
        }
    }
}

/// The rule by which a verifier draws the target's choice from the seed; a device draws its drafts by the same rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CouplingProfile {
    /// The SplitMix64 noise of `docs/wire.md`.
    #[default]
    SplitMix,
    /// The MurmurHash3 noise of `docs/wire.md`: that of SGLang's deterministic inference.
    Murmur,
}

/// A duration in one byte: 0 is unknown, and k stands for 2^((k − 1) / 8) µs, up to about an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogTime(pub u8);

/// 2^(k / 8) in 65536ths, for k from 0 to 7.
const EIGHTHS: [u64; 8] = [65_536, 71_468, 77_936, 84_990, 92_682, 101_070, 110_218, 120_194];

impl LogTime {
    /// The longest such time that is not above `us` microseconds; 1 µs for less.
    pub fn of_us(us: u64) -> Self {
        let most = (1..=u8::MAX).rev().map(Self).find(|time| time.us().is_some_and(|known| known <= us));
        most.unwrap_or(Self(1))
    }

    /// The time in microseconds; `None` if it is unknown.
    pub fn us(self) -> Option<u64> {
        let k = self.0.checked_sub(1)?;
        Some((EIGHTHS[usize::from(k % 8)] << (k / 8)) >> 16)
    }
}

/// The price of a verifier's work, as time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Time of one pass of the target.
    pub pass: LogTime,
    /// Time of each further row of the pass.
    pub row: LogTime,
    /// Wait before a pass.
    pub queue: LogTime,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_identity_is_six_bytes_of_weights_and_two_of_numerics() {
        let id = TargetId::new(&[0xab; 32], &[0x01; 32]);
        assert_eq!(id.bytes(), [0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 1, 1]);
        assert_eq!(id.to_string(), "abababababab-0101");
        let other_numerics = TargetId::new(&[0xab; 32], &[0x02; 32]);
        assert!(id != other_numerics && id.has_weights_of(other_numerics));
        let mut weights = [0xab; 32];
        weights[WEIGHTS_BYTES - 1] = 0;
        assert!(!id.has_weights_of(TargetId::new(&weights, &[0x01; 32])));
    }

    #[test]
    fn every_time_is_the_longest_that_fits() {
        assert_eq!(LogTime(0).us(), None);
        assert_eq!([1, 9, 17, 81, 161].map(|k| LogTime(k).us()), [1, 2, 4, 1024, 1 << 20].map(Some));
        assert_eq!(LogTime(u8::MAX).us(), Some(3_611_623_424), "about an hour");
        assert_eq!(LogTime::of_us(0), LogTime(1));
        assert_eq!(LogTime::of_us(u64::MAX), LogTime(u8::MAX));
        // Below 2^3 µs neighbouring values round to the same microsecond.
        for k in 33..=u8::MAX {
            let us = LogTime(k).us().expect("a known time");
            assert_eq!(LogTime::of_us(us), LogTime(k));
            assert_eq!(LogTime::of_us(us - 1), LogTime(k - 1));
        }
    }
}
