//! The noise by which SGLang draws a token with a seed (`--enable-deterministic-inference`), so that a drafter can draw
//! with the same one.
//!
//! The hash is MurmurHash3 (32 bits) over seed, position and column, as 8, 4 and 4 bytes, the lowest first. SGLang
//! 0.5.23 was read for it, not run: on a GPU it is untried.

use crate::TokenId;
use crate::probabilities::Distribution;
use alloc::vec::Vec;

/// The column by which SGLang tells a row's tokens apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseColumn {
    /// The token's id: in a batch in which no request uses top-p, top-k or min-p.
    Token,
    /// The token's rank by probability, from 0: in a batch in which a request does.
    Rank,
}

/// Gumbel noise `G = −ln(−ln u)` with `u = h / (2³² − 1)`, between −709.8 and 22.2. SGLang's `position` is that of the
/// last token before the drawn one, of which its low 32 bits count.
pub fn murmur_gumbel(seed: u64, position: u64, column: u32) -> f64 {
    // One step from either end: there the noise would be infinite.
    const HIGHEST: f64 = -1.0 / (1u64 << 32) as f64;
    let ln = libm::log(f64::from(hash(seed, position as u32, column)) / f64::from(u32::MAX));
    -libm::log(-ln.clamp(f64::MIN, HIGHEST))
}

/// The token with the highest `ln p + G` by that noise, behind `length` tokens; ties go to the lower id.
///
/// `None` behind an empty text, which has no last token.
pub fn couple_murmur(
    distribution: &Distribution,
    seed: u64,
    length: u64,
    column: NoiseColumn,
) -> Option<TokenId> {
    let position = length.checked_sub(1)?;
    let mut support: Vec<_> = distribution.support().iter().collect();
    if column == NoiseColumn::Rank {
        support.sort_by(|a, b| b.ln_probability.total_cmp(&a.ln_probability));
    }
    let mut best: Option<(f64, TokenId)> = None;
    for (rank, candidate) in (0..).zip(support) {
        let column = if column == NoiseColumn::Rank { rank } else { candidate.token };
        let score = candidate.ln_probability + murmur_gumbel(seed, position, column);
        let wins =
            |(other, token): (f64, TokenId)| score > other || score == other && candidate.token < token;
        if best.is_none_or(wins) {
            best = Some((score, candidate.token));
        }
    }
    best.map(|(_, token)| token)
}

fn hash(seed: u64, position: u32, column: u32) -> u32 {
    let mut h = 0;
    for key in [seed as u32, (seed >> 32) as u32, position, column] {
        let key = key.wrapping_mul(0xCC9E_2D51).rotate_left(15).wrapping_mul(0x1B87_3593);
        h = (h ^ key).rotate_left(13).wrapping_mul(5).wrapping_add(0xE654_6B64);
    }
    h ^= 16;
    h = (h ^ (h >> 16)).wrapping_mul(0x85EB_CA6B);
    h = (h ^ (h >> 13)).wrapping_mul(0xC2B2_AE35);
    h ^ (h >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probabilities::Sampling;
    use std::collections::BTreeMap;

    /// The output of `crates/hlm/tests/murmur.py`, which has a hash of its own.
    #[test]
    fn the_noise_is_that_of_an_independent_script() {
        let golden = [
            (0, 0, 0, 0x8134_cdf8, 0x3fd8_542c_809e_de3e),
            (1, 2, 3, 0x23b5_3f91, 0xbfe5_b1a1_4f51_663d),
            (42, 1023, 31_999, 0xbbf8_8fb7, 0x3ff2_cbdb_8144_ac82),
            (u64::MAX, u32::MAX, u32::MAX, 0xe519_346e, 0x4001_957e_28c7_7209),
        ];
        for (seed, position, column, hashed, bits) in golden {
            assert_eq!(hash(seed, position, column), hashed);
            let (noise, known) = (murmur_gumbel(seed, position.into(), column), f64::from_bits(bits));
            assert!((noise - known).abs() <= 1e-15 * known.abs().max(1.0), "{noise} {known}");
        }
    }

    #[test]
    fn draws_follow_the_distribution_by_either_column() {
        let logits = [0.0, 1.0, 2.0, 0.5];
        let distribution =
            Distribution::from_logits(&logits, &Sampling::new(1.0, 1.0, 0).expect("valid")).expect("mass");
        for column in [NoiseColumn::Token, NoiseColumn::Rank] {
            let mut counts: BTreeMap<TokenId, f64> = BTreeMap::new();
            const DRAWS: u64 = 40_000;
            for length in 1..=DRAWS {
                let token = couple_murmur(&distribution, 7, length, column).expect("a last token");
                *counts.entry(token).or_default() += 1.0;
            }
            let cell = |c: &crate::probabilities::Candidate| {
                let expected = c.probability * DRAWS as f64;
                (counts[&c.token] - expected) * (counts[&c.token] - expected) / expected
            };
            let chi: f64 = distribution.support().iter().map(cell).sum();
            assert!(chi < 30.7, "{column:?}: chi-square {chi} with 3 degrees of freedom");
        }
    }

    #[test]
    fn columns_are_ids_or_ranks() {
        let distribution = Distribution::from_weights([(3, 0.2), (5, 0.5), (9, 0.3)]).expect("mass");
        let by = |column, columns: [(TokenId, u32); 3], length: u64| {
            let score = |&(token, column): &(TokenId, u32)| {
                libm::log(distribution.probability(token)) + murmur_gumbel(1, length - 1, column)
            };
            let best = columns.iter().max_by(|a, b| score(a).total_cmp(&score(b))).expect("three");
            assert_eq!(couple_murmur(&distribution, 1, length, column), Some(best.0), "{length}");
        };
        for length in 1..200 {
            by(NoiseColumn::Token, [(3, 3), (5, 5), (9, 9)], length);
            by(NoiseColumn::Rank, [(3, 2), (5, 0), (9, 1)], length);
        }
        assert_eq!(couple_murmur(&distribution, 1, 0, NoiseColumn::Token), None);
    }
}
