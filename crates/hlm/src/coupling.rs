//! Shared-seed coupling: drafter and target draw from their own distributions with the same noise (2408.07978).
//! Rejection sampling draws its tokens with the same noise and their replacements with independent noise.
//!
//! Invariant: the noise depends only on (seed, position, token). Both ends compute it, so the formulas of this
//! module are part of the protocol: changing one needs a new protocol version.

mod murmur;

use crate::TokenId;
use crate::probabilities::{Distribution, Sampling};
use core::f64::consts::LN_2;
use dunlin_wire::CouplingProfile;
pub use murmur::{NoiseColumn, couple_murmur, murmur_gumbel};

/// Domain of the noise that draws tokens.
const DOMAIN_TOKENS: u64 = 0;
/// "residual": domain of the noise that draws a rejected token's replacement.
const DOMAIN_RESIDUAL: u64 = 0x7265_7369_6475_616c;

/// A drawn token and its margin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// The token.
    pub token: TokenId,
    /// The best minus the second best of `ln p + G`, ≥ 0 (at temperature 0: of the logits); +∞ if there is no second.
    pub margin: f64,
}

/// Gumbel noise `G = −ln(−ln U)` of one token at one position of a session, between −3.7 and 36.8.
///
/// `U = (⌊h / 2¹²⌋ + ½) / 2⁵²` with the hash `h = m(m(m(seed + γ) + (position + 1) γ) + (token + 1) γ)`, where m is
/// the finaliser of SplitMix64 and γ its increment.
pub fn gumbel(seed: u64, position: u64, token: TokenId) -> f64 {
    gumbel_of(Noise::new(DOMAIN_TOKENS, seed, position).bits(u64::from(token)))
}

/// The token with the highest `ln p + G`: one draw from the distribution; ties go to the lower id.
pub fn couple(distribution: &Distribution, seed: u64, position: u64) -> TokenId {
    couple_with_margin(distribution, seed, position).token
}

/// The token that a device draws under a profile. A session with top-p or top-k draws by rank where the profile has ranks,
/// as the server does for a batch with such a request.
pub fn couple_under(
    profile: CouplingProfile,
    distribution: &Distribution,
    sampling: &Sampling,
    seed: u64,
    position: u64,
) -> TokenId {
    let column =
        if sampling.top_p() < 1.0 || sampling.top_k() > 0 { NoiseColumn::Rank } else { NoiseColumn::Token };
    let murmur = match profile {
        CouplingProfile::SplitMix => None,
        CouplingProfile::Murmur => couple_murmur(distribution, seed, position, column),
    };
    murmur.unwrap_or_else(|| couple(distribution, seed, position))
}

/// Like [`couple`], with the margin by which the token won, for counting near ties.
pub fn couple_with_margin(distribution: &Distribution, seed: u64, position: u64) -> Draw {
    draw(distribution, &Noise::new(DOMAIN_TOKENS, seed, position))
}

/// Like [`couple`], with independent noise: draws the replacement of a rejected token.
///
/// The noise that drew the rejected token depends on it, so reusing that noise would bias the replacement.
pub(crate) fn couple_residual(distribution: &Distribution, seed: u64, position: u64) -> TokenId {
    draw(distribution, &Noise::new(DOMAIN_RESIDUAL, seed, position)).token
}

fn draw(distribution: &Distribution, noise: &Noise) -> Draw {
    let (mut token, mut best, mut second) = (0, f64::NEG_INFINITY, f64::NEG_INFINITY);
    for candidate in distribution.support() {
        let bits = noise.bits(u64::from(candidate.token));
        // Most tokens can't even be second: the bound spares them two logarithms.
        if candidate.ln_probability + gumbel_ceiling(bits) <= second {
            continue;
        }
        let score = candidate.ln_probability + gumbel_of(bits);
        if score > best {
            (token, best, second) = (candidate.token, score, best);
        } else if score > second {
            second = score;
        }
    }
    // At temperature 0 the support is a single token, so the margin comes from the logits.
    Draw { token, margin: distribution.greedy_margin().unwrap_or(best - second) }
}

/// Counter-based noise of one position: SplitMix64 entered at any index.
pub(crate) struct Noise {
    state: u64,
}

impl Noise {
    /// Noise that is independent between domains, seeds and positions.
    pub(crate) fn new(domain: u64, seed: u64, position: u64) -> Self {
        let session = mix((seed ^ domain).wrapping_add(GAMMA));
        Self { state: mix(session.wrapping_add(step(position))) }
    }

    /// A number in the open interval (0, 1).
    pub(crate) fn unit(&self, index: u64) -> f64 {
        unit_of(self.bits(index))
    }

    fn bits(&self, index: u64) -> u64 {
        mix(self.state.wrapping_add(step(index)))
    }
}

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

fn step(index: u64) -> u64 {
    index.wrapping_add(1).wrapping_mul(GAMMA)
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

fn unit_of(bits: u64) -> f64 {
    const ULP: f64 = 1.0 / (1u64 << 52) as f64;
    // The half keeps it away from 0 and 1, where the Gumbel noise would be infinite.
    ((bits >> 12) as f64 + 0.5) * ULP
}

fn gumbel_of(bits: u64) -> f64 {
    -libm::log(-libm::log(unit_of(bits)))
}

/// An upper bound of `gumbel_of` without a logarithm: `G ≤ −ln(1 − U)`, and `1 − U > 2^−(n+1)` after n leading ones.
fn gumbel_ceiling(bits: u64) -> f64 {
    LN_2 * f64::from(bits.leading_ones() + 1) + 1e-9
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::probabilities::Sampling;

    /// χ² at which a true hypothesis is rejected with probability 1e-6 (Wilson–Hilferty).
    fn chi_square_limit(freedom: f64) -> f64 {
        let spread = 2.0 / (9.0 * freedom);
        freedom * libm::pow(1.0 - spread + 4.753 * libm::sqrt(spread), 3.0)
    }

    fn assert_uniform(values: impl Iterator<Item = f64>, name: &str) {
        let mut cells = [0u32; 64];
        let mut count = 0.0;
        for value in values {
            cells[(value * 64.0) as usize] += 1;
            count += 1.0;
        }
        let expected = count / 64.0;
        let chi: f64 =
            cells.iter().map(|&n| (f64::from(n) - expected) * (f64::from(n) - expected) / expected).sum();
        assert!(chi < chi_square_limit(63.0), "{name}: chi-square {chi}");
    }

    #[test]
    fn noise_is_pinned() {
        let pinned = [gumbel(0, 0, 0), gumbel(1, 2, 3), gumbel(u64::MAX, u64::MAX, u32::MAX)];
        assert_eq!(
            pinned.map(f64::to_bits),
            [0xBFE5_C8C4_9649_6466, 0x3FDB_65E4_8B17_013D, 0x3FF7_A8F2_97E7_82FE]
        );
    }

    /// The table in `docs/wire.md`: seed, position, token, hash and G.
    #[test]
    fn the_noise_of_replacements_is_pinned() {
        let pinned = [
            (0, 0, 0, 0x76b1_511f_eaac_4223, 0.263_132),
            (1, 2, 3, 0x74f0_844b_ebc5_5b8a, 0.243_958),
            (u64::MAX, u64::MAX, u32::MAX, 0xe17f_cc07_b456_6d79, 2.064_665),
        ];
        assert_eq!(DOMAIN_RESIDUAL.to_be_bytes(), *b"residual");
        for (seed, position, token, hash, rounded) in pinned {
            let bits = Noise::new(DOMAIN_RESIDUAL, seed, position).bits(token.into());
            assert_eq!(bits, hash);
            assert!((gumbel_of(bits) - rounded).abs() < 1e-6);
        }
    }

    #[test]
    fn extremes_of_the_hash_stay_finite_and_under_their_ceiling() {
        for bits in (0..64).flat_map(|n| [u64::MAX << n, u64::MAX >> n, 1 << n, !(1 << n)]) {
            let (unit, noise) = (unit_of(bits), gumbel_of(bits));
            assert!(unit > 0.0 && unit < 1.0, "{bits:#x}");
            assert!(noise > -3.7 && noise < 36.8 && noise <= gumbel_ceiling(bits), "{bits:#x} {noise}");
        }
    }

    #[test]
    fn noise_is_uniform_along_each_axis() {
        const COUNT: u64 = 1 << 18;
        assert_uniform((0..COUNT).map(|t| Noise::new(0, 1, 2).unit(t)), "tokens");
        assert_uniform((0..COUNT).map(|n| Noise::new(0, 1, n).unit(3)), "positions");
        assert_uniform((0..COUNT).map(|s| Noise::new(0, s, 2).unit(3)), "seeds");
        assert_uniform((0..COUNT).map(|s| Noise::new(0, s << 46, 2).unit(3)), "high bits of seeds");
        let square = (0..512).flat_map(|n| (0..512).map(move |t| Noise::new(0, 9, n).unit(t)));
        assert_uniform(square, "positions and tokens");
    }

    #[test]
    fn neighbours_are_independent() {
        const COUNT: u64 = 1 << 18;
        type Pair = fn(u64) -> (u64, u64);
        let pairs: [(&str, Pair); 5] = [
            ("token", |i| (Noise::new(0, 1, i).bits(7), Noise::new(0, 1, i).bits(8))),
            ("position", |i| (Noise::new(0, i, 4).bits(7), Noise::new(0, i, 5).bits(7))),
            ("seed", |i| (Noise::new(0, 2 * i, 4).bits(7), Noise::new(0, 2 * i + 1, 4).bits(7))),
            ("swapped", |i| (Noise::new(0, 1, i).bits(i + 1), Noise::new(0, 1, i + 1).bits(i))),
            ("domain", |i| (Noise::new(0, 1, i).bits(7), Noise::new(1, 1, i).bits(7))),
        ];
        for (name, pair) in pairs {
            // The sum and the difference of two independent uniform numbers are uniform modulo 1.
            let halves = |i| {
                (
                    pair(i).0 as f64 / 18_446_744_073_709_551_616.0,
                    pair(i).1 as f64 / 18_446_744_073_709_551_616.0,
                )
            };
            assert_uniform(
                (0..COUNT).map(|i| libm::fmod(halves(i).0 + halves(i).1, 1.0).min(0.999_999)),
                name,
            );
            assert_uniform(
                (0..COUNT).map(|i| libm::fmod(halves(i).0 - halves(i).1 + 1.0, 1.0).min(0.999_999)),
                name,
            );
            let cells =
                (0..COUNT).map(|i| (libm::floor(halves(i).0 * 8.0) + halves(i).1.min(0.999_999)) / 8.0);
            assert_uniform(cells, name);
        }
    }

    #[test]
    fn each_flipped_bit_flips_half_of_the_hash() {
        let hash = |seed, position, token| Noise::new(0, seed, position).bits(token);
        for bit in 0..64 {
            let mut flipped = [0u32; 3];
            for i in 0..2048u64 {
                let (seed, position, token) = (mix(i), i, i * 31 % 4096);
                let base = hash(seed, position, token);
                flipped[0] += (base ^ hash(seed ^ (1 << bit), position, token)).count_ones();
                flipped[1] += (base ^ hash(seed, position ^ (1 << bit), token)).count_ones();
                flipped[2] += (base ^ hash(seed, position, token ^ (1 << bit))).count_ones();
            }
            for (axis, count) in flipped.into_iter().enumerate() {
                let mean = f64::from(count) / 2048.0;
                assert!(
                    (mean - 32.0).abs() < 6.0 * 4.0 / libm::sqrt(2048.0),
                    "axis {axis} bit {bit}: {mean}"
                );
            }
        }
    }

    #[test]
    fn draws_follow_the_softmax() {
        const DRAWS: u64 = 200_000;
        let sampling = Sampling::new(0.9, 0.97, 0).unwrap();
        let distribution =
            Distribution::from_logits(&[0.3, -1.0, 2.0, 1.5, 0.0, -7.0, 0.3], &sampling).unwrap();
        let mut counts = [0u32; 7];
        for position in 0..DRAWS {
            counts[couple(&distribution, 42, position) as usize] += 1;
        }
        assert_eq!(counts[5], 0, "outside the support");
        let cell = |c: &crate::probabilities::Candidate| {
            let expected = c.probability * DRAWS as f64;
            let off = f64::from(counts[c.token as usize]) - expected;
            off * off / expected
        };
        let chi: f64 = distribution.support().iter().map(cell).sum();
        assert!(chi < chi_square_limit(distribution.support().len() as f64 - 1.0), "chi-square {chi}");
    }

    #[test]
    fn the_shortcut_changes_no_choice_and_no_margin() {
        let row: Vec<f32> = (0..500).map(|t| (Noise::new(5, 5, 5).unit(t) * 12.0) as f32).collect();
        let distribution = Distribution::from_logits(&row, &Sampling::new(1.0, 1.0, 0).unwrap()).unwrap();
        for position in 0..500 {
            let mut scores: Vec<(f64, TokenId)> = distribution
                .support()
                .iter()
                .map(|c| (c.ln_probability + gumbel(3, position, c.token), c.token))
                .collect();
            scores.sort_by(|a, b| b.0.total_cmp(&a.0));
            let choice = couple_with_margin(&distribution, 3, position);
            assert_eq!(choice, Draw { token: scores[0].1, margin: scores[0].0 - scores[1].0 });
        }
    }

    #[test]
    fn greedy_takes_the_highest_logit_whatever_the_seed() {
        let distribution = Distribution::from_logits(&[1.0, 4.0, 4.0, 3.5], &Sampling::greedy()).unwrap();
        for seed in 0..100 {
            assert_eq!(couple_with_margin(&distribution, seed, seed), Draw { token: 1, margin: 0.0 });
        }
        let distribution = Distribution::from_logits(&[1.0, 4.0, 3.5], &Sampling::greedy()).unwrap();
        assert_eq!(couple_with_margin(&distribution, 0, 0), Draw { token: 1, margin: 0.5 });
        assert_eq!(couple_with_margin(&Distribution::certain(5), 0, 0).margin, f64::INFINITY);
    }
}
