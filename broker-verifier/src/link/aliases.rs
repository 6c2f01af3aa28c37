//! Topic aliases of one connection: numbers that replace the verdict topics of the most recently answered devices.
//!
//! Invariant: a packet with topic and number binds an alias. The alias counts as bound once the MQTT client has
//! accepted that packet. A new connection starts without aliases.

use dunlin_wire::DeviceId;
use std::collections::BTreeMap;

/// Maximum number of aliases, even if the broker allows more.
pub(super) const ALIASES_MAX: u16 = 1024;

/// The form of a device's topic in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The full topic, because there are no aliases.
    Full,
    /// The full topic, bound to this alias from now on.
    Bind(u16),
    /// This alias only.
    Alias(u16),
}

/// The table of a connection. The device that was answered longest ago loses its alias first.
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

    /// The form of the device's topic for the next packet.
    pub(super) fn form(&self, device: &DeviceId) -> Form {
        if let Some((alias, _)) = self.bound.get(device) {
            return Form::Alias(*alias);
        }
        if self.bound.len() < usize::from(self.max) {
            return Form::Bind(self.bound.len() as u16 + 1);
        }
        // The table is full: bind the least recently used alias to this device.
        let oldest = self.by_use.first_key_value().and_then(|(_, device)| self.bound.get(device));
        oldest.map_or(Form::Full, |(alias, _)| Form::Bind(*alias))
    }

    /// Notes that the client accepted a packet with the device's topic in this form.
    pub(super) fn sent(&mut self, device: &DeviceId, form: Form) {
        let alias = match form {
            Form::Full => return,
            Form::Bind(alias) | Form::Alias(alias) => alias,
        };
        // The alias was taken from the oldest device, which `form` chose by the same rule.
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
