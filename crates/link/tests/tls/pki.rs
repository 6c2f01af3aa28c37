//! A certificate authority for tests: certificates of every kind, as files.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names that the broker's certificate holds.
pub(crate) const LOCAL: &[&str] = &["localhost", "127.0.0.1", "::1"];
/// First and last year of a certificate that is valid now.
pub(crate) const LONG: (i32, i32) = (2020, 2099);

/// A certificate's purpose.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Server,
    Client,
}

/// An authority that writes into a folder.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) file: PathBuf,
    dir: PathBuf,
}

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) serial: SerialNumber,
}

impl Authority {
    /// An authority called `Test`, whose files begin with `prefix`.
    pub(crate) fn new(dir: &Path, prefix: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
        let key = KeyPair::generate().unwrap();
        let file = dir.join(format!("{prefix}ca.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file, dir: dir.into() }
    }

    /// A certificate for `name`, valid from the first day of one year to that of another.
    pub(crate) fn pair(
        &self,
        name: &str,
        purpose: Purpose,
        (begins, ends): (i32, i32),
        hosts: &[&str],
    ) -> Pair {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        (params.not_before, params.not_after) = (date_time_ymd(begins, 1, 1), date_time_ymd(ends, 1, 1));
        self.signed(name, params)
    }

    /// A client's certificate that ends at `ends`, in time since 1970.
    pub(crate) fn pair_until(&self, name: &str, ends: Duration) -> Pair {
        let mut params = CertificateParams::new([]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(1970, 1, 1) + ends);
        self.signed(name, params)
    }

    fn signed(&self, name: &str, mut params: CertificateParams) -> Pair {
        params.distinguished_name.push(DnType::CommonName, name);
        let number = fs::read_dir(&self.dir).unwrap().count();
        let serial = SerialNumber::from(number as u64 + 1);
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate().unwrap();
        let [certificate, secret] =
            ["pem", "key"].map(|ending| self.dir.join(format!("{number}-{name}.{ending}")));
        fs::write(&certificate, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&secret, key.serialize_pem()).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        Pair { certificate, key: secret, serial }
    }

    /// The list of revoked certificates.
    pub(crate) fn revocations(&self, revoked: &[&Pair]) -> PathBuf {
        let entry = |pair: &&Pair| RevokedCertParams {
            serial_number: pair.serial.clone(),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.dir.join("revoked.crl");
        fs::write(&file, params.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        file
    }
}
