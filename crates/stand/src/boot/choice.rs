//! The choice of `boards/image/boot.cmd` between the slots, and the two state files that it reads.
//!
//! It is written a second time here, so that the cards of power cuts are judged by something else than what wrote them;
//! [`super::scenes`] holds it against U-Boot itself.

use super::disk::SECTOR_BYTES;
use std::fmt;

/// `try.env` as a system on slot a writes it to try slot b, and the other way round.
pub const TRIAL_OF_B: &str = "try=b\nleft=3\n";
/// See [`TRIAL_OF_B`].
pub const TRIAL_OF_A: &str = "try=a\nleft=3\n";

/// Most bytes of a state file that are shown.
const SHOWN_BYTES: usize = 32;

/// A slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootSlot {
    /// The first.
    A,
    /// The second.
    B,
}

/// The contents of the state files; `None` for a missing file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootState {
    /// `good.env`.
    pub good: Option<Vec<u8>>,
    /// `try.env`.
    pub trial: Option<Vec<u8>>,
}

/// The slot that is started first, and the tries that are left after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotChoice {
    /// The slot.
    pub slot: BootSlot,
    /// The tries left, 0 to 2; `None` without a trial.
    pub left: Option<u8>,
}

impl BootSlot {
    /// The name: `a` or `b`.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The number of the partition.
    pub fn partition(self) -> usize {
        match self {
            Self::A => 2,
            Self::B => 3,
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        [Self::A, Self::B].into_iter().find(|slot| slot.name().as_bytes() == name)
    }
}

impl BootState {
    /// A state with these lines; an empty text is a missing file.
    pub fn of(good: &str, trial: &str) -> Self {
        let file = |text: &str| (!text.is_empty()).then(|| state_file(text));
        Self { good: file(good), trial: file(trial) }
    }

    /// The choice of a slot.
    pub fn choice(&self) -> SlotChoice {
        let value = |file: &Option<Vec<u8>>, name: &str| {
            file.as_deref().and_then(|bytes| value_of(bytes, name)).unwrap_or_default().to_vec()
        };
        let left = match value(&self.trial, "left").as_slice() {
            b"1" => Some(0),
            b"2" => Some(1),
            b"3" => Some(2),
            _ => None,
        };
        if let (Some(slot), Some(left)) = (BootSlot::named(&value(&self.trial, "try")), left) {
            return SlotChoice { slot, left: Some(left) };
        }
        let good = BootSlot::named(&value(&self.good, "good"));
        SlotChoice { slot: good.unwrap_or(BootSlot::A), left: None }
    }
}

impl fmt::Display for BootState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |file: &Option<Vec<u8>>| match file {
            Some(bytes) => {
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                format!("{:?}", String::from_utf8_lossy(&bytes[..end.min(SHOWN_BYTES)]))
            }
            None => "missing".into(),
        };
        write!(formatter, "good.env {}, try.env {}", text(&self.good), text(&self.trial))
    }
}

/// A state file: the text, padded with zeros to one sector.
pub fn state_file(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(SECTOR_BYTES.max(text.len()), 0);
    bytes
}

/// The last value of a name in a text of lines, which ends at the first zero or after a sector.
fn value_of<'a>(bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let sector = &bytes[..bytes.len().min(SECTOR_BYTES)];
    let text = sector.split(|byte| *byte == 0).next()?;
    let lines = text.split(|byte| *byte == b'\n');
    let mut values = lines.filter_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    values.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_on_trial_comes_first_while_it_has_tries() {
        let chosen = |good: &str, trial: &str| {
            let choice = BootState::of(good, trial).choice();
            (choice.slot.name(), choice.left)
        };
        assert_eq!(chosen("good=a\n", "left=0\n"), ("a", None));
        assert_eq!(chosen("good=b\n", ""), ("b", None));
        assert_eq!(chosen("good=a\n", "try=b\nleft=3\n"), ("b", Some(2)));
        assert_eq!(chosen("good=b\n", "left=1\ntry=a\n"), ("a", Some(0)));
        assert_eq!(chosen("good=b\n", "left=0\ntry=a\n"), ("b", None));
        assert_eq!(chosen("", ""), ("a", None));
    }

    #[test]
    fn what_is_not_valid_starts_slot_a_and_tries_nothing() {
        for good in ["good=c\n", "good=\n", "good=bb\n", "\nb\n", "good=b\ngood=a\n", "#\n\0\ngood=b\n"] {
            assert_eq!(
                BootState::of(good, "left=2\n").choice(),
                SlotChoice { slot: BootSlot::A, left: None }
            );
        }
        for trial in ["try=b\nleft=4\n", "try=b\nleft=\n", "try=c\nleft=1\n", "try=b\nleft=03\n", "try=b\n"] {
            assert_eq!(BootState::of("good=b\n", trial).choice().left, None, "{trial}");
        }
        let far = format!("{}\ngood=b\n", "#".repeat(SECTOR_BYTES));
        assert_eq!(BootState::of(&far, "").choice().slot, BootSlot::A);
    }
}
