//! Topic aliases of one connection: a number in the place of a verdict topic, for the devices answered last.
//!
//! Invariant: an alias is bound by the packet that carries topic and number, so it counts as bound only once
//! that packet was taken, and a new connection starts with none.

use dunlin_wire::DeviceId;
use std::collections::BTreeMap;

/// Aliases kept, however many the broker allows.
pub(super) const ALIASES_MAX: u16 = 1024;

/// The form of a device's topic in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In full: there are no aliases.
    Full,
    /// In full, and with this alias from now on.
    Bind(u16),
    /// As this alias alone.
    Alias(u16),
}

/// The table of a connection; the device not answered for the longest time gives its alias up.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    max: u16,
    bound: BTreeMap<DeviceId, (u16, u64)>,
    by_use: BTreeMap<u64, DeviceId>,
    uses: u64,
}

impl Aliases {
    /// An empty table for a broker that allows `max` aliases.
    pub(super) fn new(max: u16) -> Self {
        Self { max: max.min(ALIASES_MAX), ..Self::default() }
    }

    /// The form of the device's topic in the next packet.
    pub(super) fn form(&self, device: &DeviceId) -> Form {
        if let Some((alias, _)) = self.bound.get(device) {
            return Form::Alias(*alias);
        }
        if self.bound.len() < usize::from(self.max) {
            return Form::Bind(self.bound.len() as u16 + 1);
        }
        let oldest = self.by_use.first_key_value().and_then(|(_, device)| self.bound.get(device));
        oldest.map_or(Form::Full, |(alias, _)| Form::Bind(*alias))
    }

    /// Notes that a packet with the device's topic in this form was taken.
    pub(super) fn sent(&mut self, device: &DeviceId, form: Form) {
        let alias = match form {
            Form::Full => return,
            Form::Bind(alias) | Form::Alias(alias) => alias,
        };
        if form == Form::Bind(alias) && self.bound.len() == usize::from(self.max) {
            let oldest = self.by_use.pop_first();
            oldest.and_then(|(_, device)| self.bound.remove(&device));
        }
        self.uses += 1;
        if let Some((_, used)) = self.bound.insert(device.clone(), (alias, self.uses)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.uses, device.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        name.parse().unwrap()
    }

    fn send(aliases: &mut Aliases, name: &str) -> Form {
        let form = aliases.form(&device(name));
        aliases.sent(&device(name), form);
        form
    }

    #[test]
    fn the_device_not_used_longest_gives_its_alias_up() {
        let mut aliases = Aliases::new(2);
        assert_eq!(send(&mut aliases, "a"), Form::Bind(1));
        assert_eq!(send(&mut aliases, "b"), Form::Bind(2));
        assert_eq!(send(&mut aliases, "a"), Form::Alias(1));
        assert_eq!(send(&mut aliases, "c"), Form::Bind(2));
        assert_eq!(send(&mut aliases, "a"), Form::Alias(1));
        assert_eq!(send(&mut aliases, "b"), Form::Bind(2));
        assert_eq!(aliases.bound.len(), 2);
        assert_eq!(aliases.by_use.len(), 2);
    }

    #[test]
    fn a_form_that_was_not_sent_binds_nothing() {
        let mut aliases = Aliases::new(1);
        assert_eq!(aliases.form(&device("a")), Form::Bind(1));
        assert_eq!(aliases.form(&device("a")), Form::Bind(1));
        assert_eq!(send(&mut aliases, "b"), Form::Bind(1));
    }

    #[test]
    fn the_table_is_bounded_and_may_be_empty() {
        assert_eq!(send(&mut Aliases::new(0), "a"), Form::Full);
        let mut aliases = Aliases::new(u16::MAX);
        for i in 0..2 * u32::from(ALIASES_MAX) {
            send(&mut aliases, &format!("d{i}"));
        }
        assert_eq!(aliases.bound.len(), usize::from(ALIASES_MAX));
        assert_eq!(aliases.by_use.len(), usize::from(ALIASES_MAX));
    }
}
