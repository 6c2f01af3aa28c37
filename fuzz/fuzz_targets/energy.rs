//! Messages of the energy and telemetry topics.
#![no_main]

use dunlin_wire::{EnergyReport, Telemetry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = EnergyReport::decode(bytes) {
        assert_eq!(report.encode().as_deref(), Ok(bytes));
        assert!((0..bytes.len()).all(|length| EnergyReport::decode(&bytes[..length]).is_err()));
    }
    if let Ok(telemetry) = Telemetry::decode(bytes) {
        assert_eq!(telemetry.encode().as_deref(), Ok(bytes));
        assert!((0..bytes.len()).all(|length| Telemetry::decode(&bytes[..length]).is_err()));
    }
});
