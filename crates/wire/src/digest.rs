//! The digest of a token prefix, by which both sides check that they have the same text.

use crate::TokenId;

/// The 64-bit digest of a prefix, sent when a session is opened or resynchronised.
pub type Digest = [u8; 8];
/// The top 16 bits of the digest, sent in every frame.
pub type Prefix = [u8; 2];

/// The chained digest of no tokens.
pub const PREFIX_EMPTY: PrefixDigest = PrefixDigest(0x6475_6e6c_696e_0001);

/// A chained digest over a prefix of tokens: `h' = mix(h + (token + 1)·φ)`, with the 64-bit finaliser of
/// `SplitMix64` (Steele, Lea and Flood 2014) as `mix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixDigest(u64);

impl PrefixDigest {
    /// The digest of the prefix with one more token.
    #[must_use]
    pub const fn push(self, token: TokenId) -> Self {
        let step = (token as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut h = self.0.wrapping_add(step);
        h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(h ^ (h >> 31))
    }

    /// All 64 bits, big-endian.
    pub const fn full(self) -> Digest {
        self.0.to_be_bytes()
    }

    /// The top 16 bits, big-endian.
    pub const fn short(self) -> Prefix {
        let full = self.full();
        [full[0], full[1]]
    }
}
