//! The last known state of each device.
//!
//! Invariant: the table is bounded; the device that was silent longest makes room.

use dunlin_wire::DeviceId;
use std::collections::BTreeMap;

/// Maximum number of devices; the state of a removed device starts afresh.
pub const DEVICES_MAX: usize = 4096;

/// The table of device states.
#[derive(Debug, Default)]
pub(crate) struct Devices<S> {
    states: BTreeMap<DeviceId, (u64, S)>,
    by_use: BTreeMap<u64, DeviceId>,
    uses: u64,
}

impl<S: Default> Devices<S> {
    /// The state of a device that has just sent something; true if another device was removed to make room.
    pub(crate) fn get(&mut self, device: &DeviceId) -> (&mut S, bool) {
        let full = self.states.len() >= DEVICES_MAX && !self.states.contains_key(device);
        // `by_use` is ordered by the number of the last use, so its first entry is the least recently used device.
        if full && let Some((_, oldest)) = self.by_use.pop_first() {
            self.states.remove(&oldest);
        }
        self.uses += 1;
        let (used, state) = self.states.entry(device.clone()).or_default();
        self.by_use.remove(used);
        self.by_use.insert(self.uses, device.clone());
        *used = self.uses;
        (state, full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(devices: &mut Devices<bool>, name: &str) -> bool {
        let (state, evicted) = devices.get(&name.parse().unwrap());
        let known = std::mem::replace(state, true);
        assert!(!(known && evicted), "who is known takes nobody's place");
        known
    }

    #[test]
    fn the_device_not_heard_of_longest_makes_room() {
        let mut devices = Devices::default();
        for i in 0..DEVICES_MAX {
            assert!(!heard(&mut devices, &format!("d{i}")));
        }
        assert!(heard(&mut devices, "d0"));
        assert!(devices.get(&"new".parse().unwrap()).1);
        assert_eq!((devices.states.len(), devices.by_use.len()), (DEVICES_MAX, DEVICES_MAX));
        assert!(heard(&mut devices, "d0") && heard(&mut devices, "d2"));
        assert!(!heard(&mut devices, "d1"), "it had made room");
    }
}
