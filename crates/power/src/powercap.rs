//! The energy counters of an x86 processor, from the kernel's `class/powercap`.
//!
//! A counter wraps (after 262 kJ on many Intel processors, 65 kJ on many AMD ones), and readings are unwrapped here.
//! If the time between two readings is long enough for half a range (minutes under full load), a wrap can't be
//! distinguished from a reset; a whole wrap between two readings goes unnoticed. So read often.
//!
//! Invariant: no energy is counted twice: neither a part beside its whole, nor one counter under two names.

use super::sensor::{PowerSensor, Reading, SensorError, SensorSource, Uncertainty};
use super::sysfs::{bytes, children, failed, integer, text};
use super::units::Joules;
use dunlin_hlm::time::Duration;
use dunlin_wire::PowerSource;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Families of counters. Only the first one present is used, because the last shows the first one's counters again.
const FAMILIES: [&str; 3] = ["intel-rapl", "amd-rapl", "intel-rapl-mmio"];
/// Name of the counter of the whole platform.
const PLATFORM: &str = "psys";
/// Name of counters of memory; a package's counter doesn't include it, even if it is listed under the package.
const MEMORY: &str = "dram";
/// Interval of readings; the counters are updated about every millisecond.
const PERIOD: Duration = Duration::from_millis(10);
/// Relative uncertainty. Our estimate: the manufacturers state none.
const RELATIVE: f64 = 0.05;

/// Counters that are added up to one energy, which starts at 0 with the first reading.
#[derive(Debug)]
pub struct Powercap {
    source: SensorSource,
    counters: Vec<Counter>,
}

impl Powercap {
    /// The counters under `sysfs` (`/sys`): the platform's, or else those of the packages and their memory. `None`
    /// without counters.
    ///
    /// # Errors
    /// Counters exist but can't be read, which is normal for users other than root; the error says what to do.
    pub fn find(sysfs: &Path) -> Result<Option<Self>, SensorError> {
        let folder = sysfs.join("class/powercap");
        let zones = FAMILIES.iter().map(|family| zones(&folder, family)).find(|zones| !zones.is_empty());
        let Some(zones) = zones.map(chosen).filter(|zones| !zones.is_empty()) else { return Ok(None) };
        let names: Vec<_> = zones.iter().map(|zone| zone.name.clone()).collect();
        let source = SensorSource {
            kind: PowerSource::Powercap,
            part: format!("rapl {}", names.join(" + ")),
            boundary: boundary(&names),
            uncertainty: Uncertainty { relative: RELATIVE, offset_w: 0.0 },
            period: PERIOD,
            poll: PERIOD,
        };
        let counters = zones.iter().map(Counter::open).collect::<Result<_, _>>()?;
        Ok(Some(Self { source, counters }))
    }
}

impl PowerSensor for Powercap {
    fn source(&self) -> &SensorSource {
        &self.source
    }

    fn read(&mut self) -> Result<Option<Reading>, SensorError> {
        let mut total: i64 = 0;
        for counter in &mut self.counters {
            // If a later counter fails, this one keeps its increase for the next reading.
            total = total.saturating_add(counter.read()?);
        }
        Ok(Some(Reading::Energy(Joules::from_micro(total))))
    }
}

/// A folder with a counter.
#[derive(Debug)]
struct Zone {
    folder: PathBuf,
    name: String,
}

/// A family's zones, each package followed by its parts.
fn zones(folder: &Path, family: &str) -> Vec<Zone> {
    let is_of = |name: &str| name.strip_prefix(family).is_some_and(|rest| rest.starts_with(':'));
    let folders = children(folder, is_of).into_iter();
    let named = folders.filter_map(|folder| Some(Zone { name: text(&folder.join("name")).ok()?, folder }));
    named.collect()
}

/// Selects zones so that none is part of another.
fn chosen(mut zones: Vec<Zone>) -> Vec<Zone> {
    if let Some(platform) = zones.iter().position(|zone| zone.name == PLATFORM) {
        return vec![zones.swap_remove(platform)];
    }
    zones.retain(|zone| zone.name.starts_with("package") || zone.name == MEMORY);
    zones
}

fn boundary(names: &[String]) -> String {
    match names {
        [one] if one == PLATFORM => {
            "the platform as its maker wired the counter psys; not what the supply loses".into()
        }
        _ => format!("the processor: {}; not the rest of the computer", names.join(", ")),
    }
}

/// Unwraps a counter into a sum.
#[derive(Debug)]
struct Counter {
    path: PathBuf,
    /// Largest value of the counter, µJ.
    max: i64,
    last: Option<i64>,
    /// µJ since the first reading.
    total: i64,
}

impl Counter {
    fn open(zone: &Zone) -> Result<Self, SensorError> {
        let path = zone.folder.join("energy_uj");
        for file in [&path, &zone.folder.join("max_energy_range_uj")] {
            bytes(file).map_err(|error| failed(file, refusal(file, error.kind(), &error.to_string())))?;
        }
        let max = integer(&zone.folder.join("max_energy_range_uj"), 1..=i64::MAX)?;
        Ok(Self { path, max, last: None, total: 0 })
    }

    /// µJ since the first reading.
    fn read(&mut self) -> Result<i64, SensorError> {
        let now = integer(&self.path, 0..=self.max)?;
        let last = self.last.replace(now).unwrap_or(now);
        let grown = if now < last { self.max - last + now } else { now - last };
        // More than half a range between two readings is implausible, so the counter was probably reset.
        if now < last && grown > self.max / 2 {
            return Err(failed(&self.path, format!("the counter was reset: it went from {last} to {now}")));
        }
        self.total = self.total.saturating_add(grown);
        Ok(self.total)
    }
}

/// The reason why a counter can't be read, with a remedy if only its mode forbids it.
fn refusal(file: &Path, kind: ErrorKind, said: &str) -> String {
    if kind != ErrorKind::PermissionDenied {
        return said.into();
    }
    format!(
        "{said}; only root may read it: run as root, or once after each start `sudo chmod a+r {}`",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::fake::{GARBAGE, Tree};
    use super::*;

    const MAX: i64 = 262_143_328_850;

    fn zone(tree: &Tree, zone: &str, name: &str, energy_uj: i64) {
        for (file, text) in [
            ("name", name.to_string()),
            ("energy_uj", energy_uj.to_string()),
            ("max_energy_range_uj", MAX.to_string()),
        ] {
            tree.write(&format!("class/powercap/{zone}/{file}"), format!("{text}\n").as_bytes());
        }
    }

    /// A laptop without a platform counter: the package, its parts, and the package again in another family.
    fn laptop() -> Tree {
        let tree = Tree::new(&[("class/powercap/intel-rapl/enabled", "1\n")]);
        zone(&tree, "intel-rapl:0", "package-0", 1_000);
        zone(&tree, "intel-rapl:0:0", "core", 500);
        zone(&tree, "intel-rapl:0:1", "uncore", 100);
        zone(&tree, "intel-rapl:0:2", "dram", 2_000);
        zone(&tree, "intel-rapl-mmio:0", "package-0", 1_000);
        tree
    }

    fn find(tree: &Tree) -> Powercap {
        Powercap::find(tree.root()).unwrap().unwrap()
    }

    fn set(tree: &Tree, zone: &str, energy_uj: i64) {
        tree.write(&format!("class/powercap/{zone}/energy_uj"), format!("{energy_uj}\n").as_bytes());
    }

    fn micro(sensor: &mut Powercap) -> i64 {
        let Ok(Some(Reading::Energy(energy))) = sensor.read() else { panic!("no energy") };
        energy.micro()
    }

    #[test]
    fn a_package_and_its_memory_are_summed_and_nothing_twice() {
        let tree = laptop();
        let mut sensor = find(&tree);
        assert_eq!(sensor.source().part, "rapl package-0 + dram");
        let boundary = "the processor: package-0, dram; not the rest of the computer";
        assert_eq!(sensor.source().boundary, boundary);
        assert_eq!(sensor.source().uncertainty.relative, 0.05);
        assert_eq!(micro(&mut sensor), 0);
        for (name, energy_uj) in [("0", 1_030), ("0:0", 9_999), ("0:1", 9_999), ("0:2", 2_004)] {
            set(&tree, &format!("intel-rapl:{name}"), energy_uj);
        }
        assert_eq!(micro(&mut sensor), 34);
    }

    #[test]
    fn two_packages_are_summed() {
        let tree = Tree::new(&[]);
        zone(&tree, "amd-rapl:0", "package-0", 7);
        zone(&tree, "amd-rapl:1", "package-1-die-0", 9);
        let mut sensor = find(&tree);
        assert_eq!(sensor.source().part, "rapl package-0 + package-1-die-0");
        assert_eq!(micro(&mut sensor), 0);
        set(&tree, "amd-rapl:0", 10);
        set(&tree, "amd-rapl:1", 11);
        assert_eq!(micro(&mut sensor), 5);
    }

    #[test]
    fn the_platform_takes_in_all_others() {
        let tree = laptop();
        zone(&tree, "intel-rapl:1", "psys", 50);
        let mut sensor = find(&tree);
        assert_eq!(sensor.source().part, "rapl psys");
        assert_eq!(micro(&mut sensor), 0);
        assert!(sensor.source().boundary.starts_with("the platform"));
        set(&tree, "intel-rapl:1", 60);
        set(&tree, "intel-rapl:0", 5_000);
        assert_eq!(micro(&mut sensor), 10);
    }

    #[test]
    fn the_second_way_to_a_package_serves_where_it_is_the_only_one() {
        let tree = Tree::new(&[]);
        zone(&tree, "intel-rapl-mmio:0", "package-0", 1);
        assert_eq!(find(&tree).source().part, "rapl package-0");
    }

    #[test]
    fn without_counters_there_is_no_source() {
        assert!(Powercap::find(Tree::new(&[]).root()).unwrap().is_none());
        let tree = Tree::new(&[]);
        zone(&tree, "intel-rapl:0:0", "core", 1);
        assert!(Powercap::find(tree.root()).unwrap().is_none());
    }

    #[test]
    fn a_counter_that_wraps_goes_on() {
        let tree = laptop();
        let mut sensor = find(&tree);
        set(&tree, "intel-rapl:0", MAX - 10);
        assert_eq!(micro(&mut sensor), 0);
        set(&tree, "intel-rapl:0", 20);
        assert_eq!(micro(&mut sensor), 30);
        set(&tree, "intel-rapl:0", 20);
        assert_eq!(micro(&mut sensor), 30);
    }

    #[test]
    fn a_counter_that_was_reset_is_said_and_goes_on_from_there() {
        let tree = laptop();
        let mut sensor = find(&tree);
        assert_eq!(micro(&mut sensor), 0);
        set(&tree, "intel-rapl:0", 5);
        let error = sensor.read().unwrap_err().to_string();
        assert!(error.ends_with("energy_uj: the counter was reset: it went from 1000 to 5"), "{error}");
        set(&tree, "intel-rapl:0", 12);
        assert_eq!(micro(&mut sensor), 7);
    }

    #[test]
    fn garbage_is_an_error_that_names_the_file_and_no_energy_is_lost() {
        let tree = laptop();
        let mut sensor = find(&tree);
        assert_eq!(micro(&mut sensor), 0);
        set(&tree, "intel-rapl:0", 1_100);
        let file = "class/powercap/intel-rapl:0:2/energy_uj";
        let mut fails = || {
            let SensorError::Failed { place, .. } = sensor.read().unwrap_err() else {
                panic!("another error")
            };
            assert_eq!(Path::new(&place), tree.at(file));
        };
        for garbage in GARBAGE {
            tree.write(file, garbage);
            fails();
        }
        set(&tree, "intel-rapl:0:2", MAX + 1);
        fails();
        tree.make_unreadable(file);
        fails();
        std::fs::remove_dir(tree.at(file)).unwrap();
        fails();
        set(&tree, "intel-rapl:0:2", 2_011);
        assert_eq!(micro(&mut sensor), 111);
    }

    #[test]
    fn counters_that_can_not_be_read_are_said_at_once() {
        for file in ["energy_uj", "max_energy_range_uj"] {
            let tree = laptop();
            let path = format!("class/powercap/intel-rapl:0/{file}");
            tree.make_unreadable(&path);
            let error = Powercap::find(tree.root()).unwrap_err().to_string();
            assert!(error.starts_with(tree.at(&path).to_str().unwrap()), "{error}");
        }
        let tree = laptop();
        tree.write("class/powercap/intel-rapl:0/max_energy_range_uj", b"0\n");
        assert!(Powercap::find(tree.root()).is_err());
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let file = Path::new("/sys/class/powercap/intel-rapl:0/energy_uj");
        let advice = refusal(file, ErrorKind::PermissionDenied, "Permission denied");
        let expected = "Permission denied; only root may read it: run as root, or once after each start `sudo chmod a+r \
            /sys/class/powercap/intel-rapl:0/energy_uj`";
        assert_eq!(advice, expected);
        assert_eq!(refusal(file, ErrorKind::NotFound, "not there"), "not there");
    }
}
