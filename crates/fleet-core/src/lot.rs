//! The draw that decides which devices of a ring take a release first, and how long each waits before it begins.
//!
//! The draw depends on the rollout's salt and the device's name alone. So a larger share only adds devices, and the
//! controller knows who was drawn without asking.

use dunlin_hlm::time::Duration;
use dunlin_wire::DeviceId;
use ring::digest::{Context, SHA256};

/// A device's draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lot {
    rank: u16,
    spread: u32,
}

impl Lot {
    /// The lot of a device for a salt.
    pub fn of(salt: u32, device: &DeviceId) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(b"dunlin lot 1\0");
        context.update(&salt.to_le_bytes());
        context.update(device.as_str().as_bytes());
        let digest = context.finish();
        let word = |at: usize| {
            let bytes = digest.as_ref()[at..at + 4].try_into().expect("a digest has 32 bytes");
            u32::from_le_bytes(bytes)
        };
        Self { rank: (word(0) % 1000) as u16, spread: word(4) }
    }

    /// True if the device belongs to the first `permille`.
    pub fn is_member(&self, permille: u16) -> bool {
        self.rank < permille
    }

    /// The time that the device waits before it begins, spread over `span`, so that not all begin at once.
    pub fn delay(&self, span: Duration) -> Duration {
        Duration(((u128::from(span.0) * u128::from(self.spread)) >> 32) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> impl Iterator<Item = DeviceId> {
        (0..1000).map(|number| format!("plover-{number}").parse().unwrap())
    }

    #[test]
    fn a_larger_share_only_adds_devices() {
        for device in devices() {
            let lot = Lot::of(7, &device);
            let first = (0..=1000).find(|permille| lot.is_member(*permille)).unwrap();
            assert!((first..=1000).all(|permille| lot.is_member(permille)), "{device}");
            assert!(!lot.is_member(0) && lot.is_member(1000), "{device}");
        }
    }

    #[test]
    fn shares_are_as_large_as_they_say_and_differ_by_salt() {
        for permille in [10, 100, 500] {
            let drawn = devices().filter(|device| Lot::of(7, device).is_member(permille)).count() as i32;
            assert!((drawn - i32::from(permille)).abs() < 60, "{drawn} of {permille}");
        }
        let both = devices().filter(|device| (7..9).all(|salt| Lot::of(salt, device).is_member(100))).count();
        assert!(both < 40, "another salt draws others: {both} in both");
    }

    #[test]
    fn delays_fill_their_span() {
        let span = Duration(1_000_000);
        let delays: Vec<u64> = devices().map(|device| Lot::of(7, &device).delay(span).0).collect();
        assert!(delays.iter().all(|delay| *delay < span.0));
        let late = delays.iter().filter(|delay| **delay >= span.0 / 2).count();
        assert!((400..600).contains(&late), "{late} of 1000 in the second half");
        assert_eq!(Lot::of(7, &"plover-1".parse().unwrap()).delay(Duration(0)), Duration(0));
    }
}
