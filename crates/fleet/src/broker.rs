//! The broker's files: access list, configuration and list of revoked certificates.

use crate::authority::Authority;
use crate::files::{Readers, replace};
use crate::register::FleetRegister;
use anyhow::Result;
use dunlin_wire::access::{emqx, mosquitto};
use dunlin_wire::{BrokerRole, Identity};
use std::fmt::Write;
use std::path::Path;

/// The broker that an access list is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AclFormat {
    /// mosquitto's acl_file.
    #[default]
    Mosquitto,
    /// EMQX's acl.conf.
    Emqx,
}

/// The files that are made from the register, by name.
pub(crate) const CONF: &str = "mosquitto.conf";
pub(crate) const ACL: &str = "acl";
pub(crate) const CRL: &str = "crl.pem";

/// The services that have a certificate.
pub(crate) fn services(register: &FleetRegister) -> Vec<Identity> {
    let names = register.names().into_iter().filter_map(|name| name.parse().ok());
    names.filter(|identity: &Identity| identity.role != BrokerRole::Device).collect()
}

/// The access list for all devices and these services.
pub fn acl(services: &[Identity], format: AclFormat) -> String {
    let mut text = String::new();
    let written = match format {
        AclFormat::Mosquitto => mosquitto(&mut text, services),
        AclFormat::Emqx => emqx(&mut text, services),
    };
    written.expect("a String takes every text");
    text
}

/// mosquitto's configuration.
pub(crate) fn conf(register: &FleetRegister) -> String {
    let (port, dir) = (register.broker.port, register.broker_dir.display());
    let mut text = String::new();
    write!(
        text,
        "\
# mosquitto for a fleet of Dunlin, made by dunlin-fleet. Nobody gets in without a certificate of the fleet, and nobody may
# do more than the access list says. Written for mosquitto 2.0; Debian reads it as /etc/mosquitto/conf.d/dunlin.conf.

allow_anonymous false
acl_file {dir}/{ACL}

listener {port}
cafile {dir}/ca.pem
certfile {dir}/server.pem
keyfile {dir}/server.key
# A revoked certificate is refused when it connects; restart mosquitto to end the connection that it may have.
crlfile {dir}/{CRL}
require_certificate true
# The name in the certificate is the name that the access list means.
use_identity_as_username true
tls_version tlsv1.3

"
    )
    .expect("a String takes every text");
    text + LIMITS
}

/// The limits of broker-verifier/mosquitto.conf.
const LIMITS: &str = "\
# The limits of broker-verifier/mosquitto.conf, which gives the reasons.
set_tcp_nodelay true
max_packet_size 65536
max_topic_alias 1024
max_queued_messages 200
max_queued_bytes 262144
max_inflight_messages 20
persistence false
persistent_client_expiration 1d
sys_interval 0
";

/// Writes the files that depend on the register.
pub(crate) fn write(dir: &Path, register: &FleetRegister, authority: &Authority) -> Result<()> {
    let list = authority.revocations(register.revoked())?;
    replace(&dir.join(CRL), list, Readers::All)?;
    replace(&dir.join(ACL), acl(&services(register), AclFormat::Mosquitto), Readers::All)?;
    replace(&dir.join(CONF), conf(register), Readers::All)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_of_the_sites_file() {
        let site = include_str!("../../../broker-verifier/mosquitto.conf");
        let wanted = |line: &&str| !line.is_empty() && !line.starts_with(['#']);
        let others = ["listener ", "allow_anonymous "];
        let lines =
            site.lines().filter(wanted).filter(|line| !others.iter().any(|other| line.starts_with(other)));
        let limits: Vec<_> = LIMITS.lines().filter(wanted).collect();
        assert_eq!(limits, lines.collect::<Vec<_>>());
    }
}
