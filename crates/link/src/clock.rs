//! The time by which certificates are judged, for boards whose clock may be unset.

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// 2026-11-01: this version was built later.
const RELEASED: u64 = 1_793_491_200;
/// Maximum length of a floor's file in bytes: a number of 20 digits and a line end.
const FLOOR_BYTES_MAX: u64 = 22;

/// The latest of three times: the system's, a stored floor and that of this build.
///
/// A board without a clock chip starts years in the past, and would refuse every certificate. Nothing here raises the
/// floor, above all not the system's clock: a board that was once set to 2100 would stay there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CertificateClock {
    floor: u64,
}

impl CertificateClock {
    /// A clock that is never before `floor`, in seconds since 1970.
    pub(crate) fn from(floor: Option<u64>) -> Self {
        Self { floor: floor.unwrap_or(0).max(RELEASED) }
    }

    /// Seconds since 1970.
    pub(crate) fn now(self) -> u64 {
        UnixTime::now().as_secs().max(self.floor)
    }
}

impl TimeProvider for CertificateClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now())))
    }
}

/// The floor in a file, in seconds since 1970; `None` if the file doesn't exist.
///
/// # Errors
/// The file can't be read, or is not a number.
pub(crate) fn stored_floor(file: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(found) if found.len() > FLOOR_BYTES_MAX => {}
        Ok(_) => {
            if let Ok(seconds) = fs::read_to_string(file)?.trim_end().parse() {
                return Ok(Some(seconds));
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "not a number of seconds since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_raised_by_its_file_and_never_below_the_build() {
        assert_eq!(CertificateClock::from(None).floor, RELEASED);
        assert_eq!(CertificateClock::from(Some(7)).floor, RELEASED);
        let later = RELEASED + 1_000_000_000;
        assert_eq!(CertificateClock::from(Some(later)).now(), later, "the system's clock is earlier");
    }

    #[test]
    fn an_invalid_floor_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("time-floor");
        assert_eq!(stored_floor(&file).unwrap(), None);
        fs::write(&file, "1800000000\n").unwrap();
        assert_eq!(stored_floor(&file).unwrap(), Some(1_800_000_000));
        for wrong in ["", "soon\n", "-1\n", "18446744073709551616\n", "1800000000000000000000000\n"] {
            fs::write(&file, wrong).unwrap();
            assert!(stored_floor(&file).is_err(), "{wrong:?}");
        }
    }
}
