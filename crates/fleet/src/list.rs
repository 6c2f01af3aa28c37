//! The certificates of a fleet, as a list.

use crate::fleet::{Fleet, SERVER_NAME};
use crate::issue::RENEWAL_TIME;
use dunlin_wire::Identity;
use serde::Serialize;
use time::OffsetDateTime;

/// The state of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateState {
    /// It is valid.
    Valid,
    /// It ends within 30 days.
    EndsSoon,
    /// It has ended.
    Ended,
    /// It is revoked.
    Revoked,
}

/// A certificate in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its common name.
    pub name: String,
    /// The role of that name.
    pub role: &'static str,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
    /// The day of its end.
    pub until: String,
    /// Days until then; negative afterwards.
    pub days: i64,
    /// Its state.
    pub state: CertificateState,
}

/// The newest certificate of each name, and those that are revoked, by name.
pub fn list(fleet: &Fleet, now: OffsetDateTime) -> Vec<Listed> {
    let shown = fleet.register.certificates.iter().filter(|issued| {
        issued.revoked.is_some()
            || fleet.register.present(&issued.name).is_some_and(|newest| newest == *issued)
    });
    let mut rows: Vec<_> = shown
        .map(|issued| {
            let left = issued.until - now;
            let state = match issued.revoked {
                Some(_) => CertificateState::Revoked,
                None if left.is_negative() => CertificateState::Ended,
                None if left <= RENEWAL_TIME => CertificateState::EndsSoon,
                None => CertificateState::Valid,
            };
            let role = issued.name.parse::<Identity>().map_or("unknown", |identity| identity.role.name());
            Listed {
                name: issued.name.clone(),
                role: if issued.name == SERVER_NAME { "broker" } else { role },
                serial: issued.serial.clone().into(),
                until: issued.until.date().to_string(),
                days: left.whole_days(),
                state,
            }
        })
        .collect();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}
