//! Messages of a set-up topic.
#![no_main]

use dunlin_wire::SetupReport;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = SetupReport::decode(bytes) {
        assert_eq!(report.encode().as_deref(), Ok(bytes));
        assert!((0..bytes.len()).all(|length| SetupReport::decode(&bytes[..length]).is_err()));
        let lines = report.text.split('\n');
        assert_eq!(SetupReport::new(report.mistakes.into(), lines).mistakes, report.mistakes);
    }
});
