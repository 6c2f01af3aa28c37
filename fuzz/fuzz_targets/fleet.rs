//! Messages of the topics of devices' updates, rollouts, commands, the time and the root.
#![no_main]

use dunlin_wire::{BoardCommand, FleetReport, FleetTime, RolloutScope, RootNotice, Rollout};
use libfuzzer_sys::fuzz_target;

macro_rules! canonical {
    ($type:ident, $bytes:expr) => {
        if let Ok(message) = $type::decode($bytes) {
            assert_eq!(message.encode().as_deref(), Ok($bytes));
            assert!((0..$bytes.len()).all(|length| $type::decode(&$bytes[..length]).is_err()));
        }
    };
}

fuzz_target!(|bytes: &[u8]| {
    canonical!(FleetReport, bytes);
    canonical!(Rollout, bytes);
    canonical!(BoardCommand, bytes);
    canonical!(FleetTime, bytes);
    canonical!(RootNotice, bytes);
    if let Ok(rollout) = Rollout::decode(bytes) {
        let ring = RolloutScope::Ring("stable".parse().expect("an id"));
        let device = RolloutScope::Device("stable".parse().expect("an id"));
        assert_ne!(rollout.fields.signed_text(&ring), rollout.fields.signed_text(&device));
    }
});
