//! A board's state: the temperature of its processor, and throttling.
//!
//! Invariant: no call fails. A value that can't be read is `None`, and the next reading tries again.

use super::sysfs::{children, integer, text};
use dunlin_wire::Throttling;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Thermal zones that measure the processor, the best first. They are compared after replacing `_` by `-`.
const ZONES: [&str; 5] = ["cpu-thermal", "cpu-therm", "soc-thermal", "x86-pkg-temp", "acpitz"];
/// A zone that always shows 100 °C (Jetson Nano).
const DUMMY_ZONE: &str = "pmic-die";
/// Range of plausible temperatures, m°C; sleeping zones of a Jetson show -256000.
const TEMPERATURE_MC: (i64, i64) = (-55_000, 150_000);
/// Valid bits of a Raspberry Pi's firmware: the present state, and the state since boot sixteen bits higher.
const FIRMWARE_BITS: u32 = 0x000f_000f;

/// State of a board.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Health {
    /// Temperature of the processor, °C, or of the hottest zone if none is known to be the processor's.
    pub temperature_c: Option<f64>,
    /// Throttling; `None` if the board doesn't report it. A Raspberry Pi reports all four causes, since its boot or
    /// since the kernel last read them. Other boards have counters, which are compared from the first reading on.
    pub throttling: Option<Throttling>,
}

/// Reads a board's health from its kernel's files.
#[derive(Debug)]
pub struct HealthReader {
    sysfs: PathBuf,
    /// Event counters at their last successful reading.
    counts: BTreeMap<PathBuf, i64>,
    /// Causes seen in any reading, because the firmware forgets them once the kernel has read them.
    seen: u8,
}

impl HealthReader {
    /// A reader of the files under `sysfs` (`/sys`). It doesn't read yet.
    pub fn new(sysfs: &Path) -> Self {
        Self { sysfs: sysfs.into(), counts: BTreeMap::new(), seen: 0 }
    }

    /// Reads the state of the board.
    pub fn read(&mut self) -> Health {
        Health { temperature_c: temperature_c(&self.sysfs), throttling: self.throttling() }
    }

    fn throttling(&mut self) -> Option<Throttling> {
        let firmware = firmware(&self.sysfs).or_else(|| voltage_alarm(&self.sysfs));
        let grown = self.grown(&cpu_counters(&self.sysfs));
        let over_current = self.grown(&current_counters(&self.sysfs));
        let all = [firmware, grown, over_current].into_iter().flatten();
        let bits = all.reduce(|bits, more| bits | more)?;
        self.seen |= bits & 0xf | bits >> 4;
        Some(Throttling::new(bits & 0xf | self.seen << 4))
    }

    /// `THROTTLED` if a counter increased since its last reading, else 0; `None` if there is no counter.
    fn grown(&mut self, counters: &[PathBuf]) -> Option<u8> {
        let mut grown = None;
        for counter in counters {
            let Ok(count) = integer(counter, 0..=i64::MAX) else { continue };
            let last = self.counts.insert(counter.clone(), count).unwrap_or(count);
            let bits = if count > last { Throttling::THROTTLED } else { 0 };
            grown = Some(grown.unwrap_or(0) | bits);
        }
        grown
    }
}

/// The hottest temperature among the zones of the best rank.
fn temperature_c(sysfs: &Path) -> Option<f64> {
    let zones = children(&sysfs.join("class/thermal"), |name| name.starts_with("thermal_zone"));
    let readable = zones.iter().filter_map(|zone| Some((rank(zone)?, millidegrees(zone)?)));
    let (_, millidegrees) = readable.min_by_key(|(rank, millidegrees)| (*rank, -millidegrees))?;
    Some(millidegrees as f64 / 1000.0)
}

/// The rank of a zone as a measure of the processor's temperature, 0 for the best; `None` for the dummy zone.
fn rank(zone: &Path) -> Option<usize> {
    let sort = text(&zone.join("type")).unwrap_or_default().to_ascii_lowercase().replace('_', "-");
    let rank = ZONES.iter().position(|each| **each == sort).unwrap_or(ZONES.len());
    (sort != DUMMY_ZONE).then_some(rank)
}

fn millidegrees(zone: &Path) -> Option<i64> {
    integer(&zone.join("temp"), TEMPERATURE_MC.0..=TEMPERATURE_MC.1).ok()
}

/// A Raspberry Pi's firmware flags, if the kernel has a file for them: `soc:firmware`, or with newer device trees
/// `soc@107c000000:firmware`.
fn firmware(sysfs: &Path) -> Option<u8> {
    let platform = children(&sysfs.join("devices/platform"), |name| name.starts_with("soc"));
    let folders = platform.iter().flat_map(|soc| children(soc, |name| name.ends_with(":firmware")));
    let mut bits = folders.filter_map(|folder| firmware_bits(&folder.join("get_throttled")));
    bits.next()
}

/// Parses `50005`, hexadecimal without a prefix.
fn firmware_bits(file: &Path) -> Option<u8> {
    let text = text(file).ok()?;
    let bits = u32::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()?;
    // Other bits mean an error of the firmware's mailbox.
    (bits & !FIRMWARE_BITS == 0).then_some((bits & 0xf | bits >> 12 & 0xf0) as u8)
}

/// The supply alarm of a Raspberry Pi, which exists even if the kernel has no file for the firmware's flags.
fn voltage_alarm(sysfs: &Path) -> Option<u8> {
    let alarm =
        hwmon(sysfs, "rpi_volt").find_map(|chip| integer(&chip.join("in0_lcrit_alarm"), 0..=1).ok())?;
    Some(if alarm == 1 { Throttling::UNDER_VOLTAGE } else { 0 })
}

/// Counters of thermal throttling, one per core of an x86 processor.
fn cpu_counters(sysfs: &Path) -> Vec<PathBuf> {
    let cpus = children(&sysfs.join("devices/system/cpu"), |name| name.starts_with("cpu"));
    cpus.into_iter().map(|cpu| cpu.join("thermal_throttle/core_throttle_count")).collect()
}

/// Counters of over-current throttling of a Jetson: `oc1_event_cnt` and so on.
fn current_counters(sysfs: &Path) -> Vec<PathBuf> {
    let is_counter = |name: &str| name.starts_with("oc") && name.ends_with("_event_cnt");
    hwmon(sysfs, "soctherm_oc").flat_map(|chip| children(&chip, is_counter)).collect()
}

fn hwmon(sysfs: &Path, name: &'static str) -> impl Iterator<Item = PathBuf> {
    let chips = children(&sysfs.join("class/hwmon"), |folder| folder.starts_with("hwmon"));
    chips.into_iter().filter(move |chip| text(&chip.join("name")).is_ok_and(|own| own == name))
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::fake::{GARBAGE, Tree};
    use super::*;

    const FIRMWARE: &str = "devices/platform/soc/soc:firmware/get_throttled";
    const FIRMWARE_NEW: &str = "devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled";
    const CORE: &str = "devices/system/cpu/cpu1/thermal_throttle/core_throttle_count";
    const OVER_CURRENT: &str = "class/hwmon/hwmon3/oc3_event_cnt";

    fn zones(zones: &[(&str, &str)]) -> Tree {
        let tree = Tree::new(&[("class/thermal/cooling_device0/type", "Processor\n")]);
        for (number, (sort, temp)) in zones.iter().enumerate() {
            tree.write(&format!("class/thermal/thermal_zone{number}/type"), format!("{sort}\n").as_bytes());
            tree.write(&format!("class/thermal/thermal_zone{number}/temp"), format!("{temp}\n").as_bytes());
        }
        tree
    }

    fn degrees(tree: &Tree) -> Option<f64> {
        HealthReader::new(tree.root()).read().temperature_c
    }

    fn bits(reader: &mut HealthReader) -> Option<u8> {
        reader.read().throttling.map(Throttling::flags)
    }

    #[test]
    fn the_processors_zone_is_taken_on_every_board() {
        let raspberry_pi = [("cpu-thermal", "47712")];
        let jetson_nano =
            [("AO-therm", "41000"), ("CPU-therm", "33500"), ("GPU-therm", "31000"), ("PMIC-Die", "100000")];
        let orin = [
            ("cpu-thermal", "51187"),
            ("gpu-thermal", "50218"),
            ("cv0-thermal", "-256000"),
            ("tj-thermal", "52000"),
        ];
        let laptop = [
            ("acpitz", "27800"),
            ("INT3400 Thermal", "20000"),
            ("x86_pkg_temp", "61000"),
            ("iwlwifi_1", "70000"),
        ];
        let server = [("x86_pkg_temp", "40000"), ("x86_pkg_temp", "44000")];
        assert_eq!(degrees(&zones(&raspberry_pi)), Some(47.712));
        assert_eq!(degrees(&zones(&jetson_nano)), Some(33.5));
        assert_eq!(degrees(&zones(&orin)), Some(51.187));
        assert_eq!(degrees(&zones(&laptop)), Some(61.0));
        assert_eq!(degrees(&zones(&server)), Some(44.0));
        assert_eq!(degrees(&zones(&[("acpitz", "27800"), ("cpu_thermal", "-5000")])), Some(-5.0));
    }

    #[test]
    fn without_such_a_zone_the_hottest_sane_one_is_taken() {
        let tree = zones(&[
            ("AO-therm", "41000"),
            ("GPU-therm", "45000"),
            ("PMIC-Die", "100000"),
            ("PLL", "900000"),
        ]);
        assert_eq!(degrees(&tree), Some(45.0));
        let dead = zones(&[("cpu-thermal", "-256000"), ("gpu-thermal", "45000")]);
        assert_eq!(degrees(&dead), Some(45.0));
    }

    #[test]
    fn a_temperature_that_can_not_be_read_is_none() {
        let tree = zones(&[("cpu-thermal", "47712")]);
        let mut reader = HealthReader::new(tree.root());
        let temp = "class/thermal/thermal_zone0/temp";
        for garbage in GARBAGE.into_iter().filter(|garbage| *garbage != b"-1\n") {
            tree.write(temp, garbage);
            assert_eq!(reader.read(), Health::default());
        }
        tree.make_unreadable(temp);
        assert_eq!(reader.read().temperature_c, None);
        std::fs::remove_dir(tree.at(temp)).unwrap();
        assert_eq!(reader.read().temperature_c, None);
        tree.write(temp, b"50000\n");
        assert_eq!(reader.read().temperature_c, Some(50.0));
        tree.write("class/thermal/thermal_zone0/type", b"\xff");
        assert_eq!(reader.read().temperature_c, Some(50.0));
    }

    #[test]
    fn a_board_that_tells_nothing_is_none() {
        assert_eq!(HealthReader::new(Tree::new(&[]).root()).read(), Health::default());
    }

    #[test]
    fn a_raspberry_pis_firmware_tells_four_causes_now_and_since_the_start() {
        for path in [FIRMWARE, FIRMWARE_NEW] {
            for (text, expected) in
                [("0\n", 0), ("50005\n", 0x55), ("0xe0008", 0xe8), ("f000f", 0xff), ("80000", 0x80)]
            {
                let tree = Tree::new(&[(path, text)]);
                let now = expected & 0xf;
                assert_eq!(bits(&mut HealthReader::new(tree.root())), Some(expected | now << 4), "{text}");
            }
        }
    }

    #[test]
    fn what_held_once_stays_said_though_the_firmware_forgets_it() {
        let tree = Tree::new(&[(FIRMWARE, "1\n")]);
        let mut reader = HealthReader::new(tree.root());
        assert_eq!(bits(&mut reader), Some(0x11));
        tree.write(FIRMWARE, b"40000\n");
        assert_eq!(bits(&mut reader), Some(0x50));
        tree.write(FIRMWARE, b"8\n");
        let throttling = reader.read().throttling.unwrap();
        assert!(throttling.soft_temperature_limit() && !throttling.throttled());
        let before = throttling.since_boot();
        assert!(before.under_voltage() && before.throttled() && !before.frequency_capped());
    }

    #[test]
    fn what_is_no_answer_of_the_firmware_is_none() {
        let tree = Tree::new(&[]);
        let mut reader = HealthReader::new(tree.root());
        for garbage in GARBAGE.into_iter().chain([b"80000001\n".as_slice(), b"10\n"]) {
            tree.write(FIRMWARE, garbage);
            assert_eq!(bits(&mut reader), None);
        }
        tree.make_unreadable(FIRMWARE);
        assert_eq!(bits(&mut reader), None);
        std::fs::remove_dir(tree.at(FIRMWARE)).unwrap();
        tree.write(FIRMWARE, b"2\n");
        assert_eq!(bits(&mut reader), Some(0x22));
    }

    #[test]
    fn without_the_firmwares_file_the_supplys_alarm_is_told() {
        let alarm = "class/hwmon/hwmon1/in0_lcrit_alarm";
        let tree = Tree::new(&[("class/hwmon/hwmon1/name", "rpi_volt\n"), (alarm, "0\n")]);
        let mut reader = HealthReader::new(tree.root());
        assert_eq!(bits(&mut reader), Some(0));
        tree.write(alarm, b"1\n");
        assert_eq!(bits(&mut reader), Some(0x11));
        tree.write(FIRMWARE, b"0\n");
        assert_eq!(bits(&mut reader), Some(0x10));
    }

    #[test]
    fn a_counter_that_grows_means_slowed_down() {
        for counter in [CORE, OVER_CURRENT] {
            let tree = Tree::new(&[("class/hwmon/hwmon3/name", "soctherm_oc\n"), (counter, "7\n")]);
            let mut reader = HealthReader::new(tree.root());
            assert_eq!(bits(&mut reader), Some(0), "{counter}");
            tree.write(counter, b"8\n");
            assert_eq!(bits(&mut reader), Some(0x44));
            assert_eq!(bits(&mut reader), Some(0x40));
            tree.write(counter, b"3\n");
            assert_eq!(bits(&mut reader), Some(0x40));
        }
    }

    #[test]
    fn growth_is_seen_over_the_time_a_counter_could_not_be_read() {
        let tree = Tree::new(&[(CORE, "7\n")]);
        let mut reader = HealthReader::new(tree.root());
        assert_eq!(bits(&mut reader), Some(0));
        for garbage in GARBAGE {
            tree.write(CORE, garbage);
            assert_eq!(bits(&mut reader), None);
        }
        tree.write(CORE, b"9\n");
        assert_eq!(bits(&mut reader), Some(0x44));
    }
}
