//! The folder of a fleet.

use crate::address::BrokerUrl;
use crate::authority::{Authority, Purpose, new_key};
use crate::broker;
use crate::files::{Readers, check_private, create, make_folder, publish_folder, staging_folder};
use crate::keys::{create_sealing, create_signing, random};
use crate::register::{FleetRegister, Issued, Serial};
use anyhow::{Context, Result, bail};
use dunlin_wire::{BrokerRole, Identity};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// The folder of the broker's files.
pub const BROKER: &str = "broker";
/// The name of the broker's own certificate, which no role has: it opens nothing.
pub const SERVER_NAME: &str = "b.broker";
/// Base names of the key pairs of a site.
pub(crate) const SITE: &str = "site";
pub(crate) const COLLECTOR: &str = "collector";
pub(crate) const SIGNERS: [&str; 3] = [SITE, "release", "rollout"];

/// The life of an authority.
const AUTHORITY_LIFE: Duration = Duration::days(20 * 365);
/// The life of a device's certificate.
pub(crate) const DEVICE_LIFE: Duration = Duration::days(10 * 365);
/// The life of a service's certificate.
pub(crate) const SERVICE_LIFE: Duration = Duration::days(365);

/// The contents of a new fleet.
#[derive(Clone, Debug)]
pub struct FleetPlan {
    /// The broker, as boards reach it.
    pub broker: BrokerUrl,
    /// The folder of the broker's files on its machine.
    pub broker_dir: PathBuf,
    /// The first services: a verifier and an operator.
    pub services: Vec<Identity>,
}

/// A fleet. One program at a time works on it.
pub struct Fleet {
    pub(crate) dir: PathBuf,
    pub(crate) register: FleetRegister,
    _lock: File,
}

impl Fleet {
    /// Makes a fleet in a folder that is empty or doesn't exist.
    ///
    /// # Errors
    /// The folder has files, or can't be written: then it is as it was.
    pub fn init(dir: &Path, plan: &FleetPlan, now: OffsetDateTime) -> Result<Self> {
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} is not empty: choose a new folder, so that no key is written over", dir.display());
        }
        // `.` and a folder with a slash at its end have no name to rename to.
        let target = std::path::absolute(dir).with_context(|| dir.display().to_string())?;
        let parent = target.parent().with_context(|| format!("{} can't be made", dir.display()))?;
        let made = staging_folder(parent)?;
        build(made.path(), plan, now)?;
        publish_folder(made, &target)?;
        Self::open(dir)
    }

    /// Opens a fleet.
    ///
    /// # Errors
    /// It is not the folder of a fleet, others have access to it, or another program works on it.
    pub fn open(dir: &Path) -> Result<Self> {
        FleetRegister::read(dir)?;
        check_private(dir)?;
        let lock = File::open(dir).with_context(|| dir.display().to_string())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another dunlin-fleet works on {}: try again", dir.display())
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| dir.display().to_string()),
        }
        // Once more, since another program may have changed it before.
        let register = FleetRegister::read(dir)?;
        Ok(Self { dir: dir.to_owned(), register, _lock: lock })
    }

    /// The services that have a certificate.
    pub fn services(&self) -> Vec<Identity> {
        broker::services(&self.register)
    }

    /// The broker.
    pub fn broker(&self) -> &BrokerUrl {
        &self.register.broker
    }

    /// mosquitto's configuration.
    pub fn mosquitto_conf(&self) -> String {
        broker::conf(&self.register)
    }

    /// The folder with the files of a name, whether it exists or not.
    pub fn folder(&self, name: &Identity) -> PathBuf {
        self.dir
            .join(if name.role == BrokerRole::Device { "devices" } else { "services" })
            .join(name.to_string())
    }

    /// The folder of the broker's files.
    pub fn broker_folder(&self) -> PathBuf {
        self.dir.join(BROKER)
    }

    /// Notes a new certificate, before it exists.
    pub(crate) fn note(&mut self, name: &str, until: OffsetDateTime) -> Result<Serial> {
        let serial = note(&mut self.register, name, until)?;
        self.register.write(&self.dir)?;
        Ok(serial)
    }

    /// Writes the broker's files as the register has it.
    pub(crate) fn write_broker(&self, authority: &Authority) -> Result<()> {
        broker::write(&self.broker_folder(), &self.register, authority)
    }
}

fn note(register: &mut FleetRegister, name: &str, until: OffsetDateTime) -> Result<Serial> {
    let serial = Serial::of(random()?);
    register.certificates.push(Issued { name: name.into(), serial: serial.clone(), until, revoked: None });
    Ok(serial)
}

/// Fills the folder of a new fleet.
fn build(dir: &Path, plan: &FleetPlan, now: OffsetDateTime) -> Result<()> {
    let now = whole_second(now)?;
    for name in [BROKER, "devices", "services"] {
        make_folder(&dir.join(name))?;
    }
    let authority = Authority::create(dir, &Serial::of(random()?), now + AUTHORITY_LIFE)?;
    for name in SIGNERS {
        create_signing(dir, name)?;
    }
    create_sealing(dir, COLLECTOR)?;
    let mut register = FleetRegister::new(plan.broker.clone(), plan.broker_dir.clone());
    let until = now + SERVICE_LIFE;
    let serial = note(&mut register, SERVER_NAME, until)?;
    register.write(dir)?;
    let (broker, key) = (dir.join(BROKER), new_key()?);
    let purpose = Purpose::Server(SERVER_NAME, &plan.broker.host);
    create(&broker.join("server.key"), key.serialize_pem(), Readers::Owner)?;
    create(&broker.join("server.pem"), authority.certify(purpose, &key, &serial, until)?, Readers::All)?;
    create(&broker.join("ca.pem"), &authority.certificate, Readers::All)?;
    let mut fleet = Fleet::open(dir)?;
    for service in &plan.services {
        fleet.issue(service, now)?;
    }
    fleet.write_broker(&authority)
}

/// A time without fractions of a second, which certificates don't have.
///
/// # Errors
/// The clock is wrong.
pub(crate) fn whole_second(now: OffsetDateTime) -> Result<OffsetDateTime> {
    const BUILT: i64 = 1_764_547_200;
    let seconds = now.unix_timestamp();
    if seconds < BUILT {
        bail!("the clock of this computer says {}: set it, since certificates depend on it", now.date());
    }
    OffsetDateTime::from_unix_timestamp(seconds).context("the clock")
}
