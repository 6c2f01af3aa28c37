//! Numbers to 4 bits: blocks of 32 that share one scale, `(code − 8) × scale`.

use half::f16;

/// Numbers in a block.
pub const BLOCK: usize = 32;
/// The code of zero.
const ZERO: f32 = 8.0;
/// The code that a block's padding has, twice in a byte.
pub(crate) const ZEROS: u8 = 0x88;
/// Scales tried in a block, before the best is refined.
const TRIALS: i32 = 19;
/// Rounds of least squares after the trials.
const REFINEMENTS: usize = 2;

/// The scale and the 32 codes, 0 to 15, that come nearest to `numbers` by the sum of squared errors.
///
/// The scale is one that 16 bits hold, since tract keeps no more of it. Trials with scales around the one that makes
/// the largest number a code of its own choose the codes; least squares give the scale of those codes.
pub fn quantize_block(numbers: &[f32; BLOCK]) -> (f32, [u8; BLOCK]) {
    let largest =
        numbers.iter().fold(0.0f32, |largest, x| if x.abs() > largest.abs() { *x } else { largest });
    if largest == 0.0 {
        return (0.0, [ZERO as u8; BLOCK]);
    }
    let mut best = (f32::NEG_INFINITY, 0.0);
    for trial in 0..TRIALS {
        let steps = 8.0 + 0.1 * (trial - TRIALS / 2) as f32;
        let found = fitted(numbers, -steps / largest);
        if found.0 > best.0 {
            best = found;
        }
    }
    for _ in 0..REFINEMENTS {
        let found = fitted(numbers, 1.0 / best.1);
        if found.0 > best.0 {
            best = found;
        }
    }
    let scale = f16::from_f32(best.1).to_f32();
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    (scale, numbers.map(|x| (rounded(x * inverse) + ZERO) as u8))
}

/// The number that a code stands for.
pub(crate) fn stored(code: u8, scale: f32) -> f32 {
    (f32::from(code) - ZERO) * scale
}

/// The part of the squares that the codes at an inverse scale explain, and the scale that fits these codes best.
fn fitted(numbers: &[f32; BLOCK], inverse: f32) -> (f32, f32) {
    let (mut product, mut square) = (0.0f32, 0.0f32);
    for x in numbers {
        let level = rounded(x * inverse);
        product += x * level;
        square += level * level;
    }
    if square == 0.0 { (f32::NEG_INFINITY, 0.0) } else { (product * product / square, product / square) }
}

/// The nearest level, −8 to 7.
fn rounded(x: f32) -> f32 {
    // Adding and subtracting this rounds to an integer without a call, which lets the loop be vectorised.
    const INTEGERS_FROM: f32 = 12_582_912.0;
    (x.clamp(-ZERO, ZERO - 1.0) + INTEGERS_FROM) - INTEGERS_FROM
}

/// Packs codes two to a byte, the first in the low bits.
pub(crate) fn pack(codes: &[u8; BLOCK], bytes: &mut [u8]) {
    for (byte, pair) in bytes.iter_mut().zip(codes.chunks_exact(2)) {
        *byte = pair[0] | pair[1] << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(numbers: &[f32; BLOCK], scale: f32) -> f64 {
        let one = |x: &f32| {
            let level = if scale == 0.0 { 0.0 } else { (x / scale).round().clamp(-8.0, 7.0) };
            f64::from(x - level * scale).powi(2)
        };
        numbers.iter().map(one).sum()
    }

    fn random(seed: u64) -> [f32; BLOCK] {
        let mut state = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
        std::array::from_fn(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let uniform = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
            uniform * uniform * uniform
        })
    }

    #[test]
    fn the_error_is_nearly_the_least_possible() {
        let (mut found, mut least, mut plain) = (0.0, 0.0, 0.0);
        for seed in 0..200 {
            let numbers = random(seed);
            let largest = numbers.iter().fold(0.0f32, |m, x| if x.abs() > m.abs() { *x } else { m });
            found += error(&numbers, quantize_block(&numbers).0);
            let tried = (-2000..2000).map(|i| error(&numbers, largest * i as f32 / 12000.0));
            least += tried.fold(f64::INFINITY, f64::min);
            plain += error(&numbers, largest / -8.0);
        }
        assert!(found < 1.02 * least, "{found} and {least}");
        assert!(found < 0.9 * plain, "{found} and {plain}");
    }

    #[test]
    fn what_fits_is_exact() {
        let levels: [f32; BLOCK] = std::array::from_fn(|i| (i as f32 * 7.0) % 16.0 - 8.0);
        for scale in [0.25, -0.037_109_375, 3.0] {
            let (found, codes) = quantize_block(&levels.map(|level| level * scale));
            assert_eq!(found, scale);
            assert_eq!(codes.map(|code| f32::from(code) - 8.0), levels);
        }
        assert_eq!(quantize_block(&[0.0; BLOCK]), (0.0, [8; BLOCK]));
    }

    #[test]
    fn the_scale_is_one_of_16_bits() {
        for seed in 0..50 {
            let scale = quantize_block(&random(seed)).0;
            assert_eq!(f16::from_f32(scale).to_f32(), scale);
        }
    }

    #[test]
    fn the_first_of_two_codes_is_low() {
        let mut bytes = [0; 16];
        pack(&std::array::from_fn(|i| (i % 16) as u8), &mut bytes);
        assert_eq!((bytes[0], bytes[1], bytes[15]), (0x10, 0x32, 0xfe));
    }
}
