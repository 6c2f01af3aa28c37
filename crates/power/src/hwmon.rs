//! Power monitors with a kernel driver: INA2xx chips in a supply line, and the INA3221 chips of a Jetson.
//!
//! They are found under `class/hwmon`; on a Jetson with JetPack 4 under `bus/i2c/drivers/ina3221x`. User space can't
//! open an I2C address that a driver holds ([`owner_of`]), so such a chip can only be read here.
//!
//! Invariant: files are only read, so the driver keeps the chip's settings.

use super::sensor::{PowerSensor, Reading, SensorError, SensorSource, Uncertainty};
use super::sysfs::{children, integer, link_name, text};
use super::units::{Amperes, Volts, Watts};
use dunlin_hlm::time::Duration;
use dunlin_wire::PowerSource;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Chips with one shunt; their drivers use the same file names.
const SINGLE_CHIPS: [&str; 12] = [
    "ina219", "ina220", "ina226", "ina228", "ina230", "ina231", "ina234", "ina237", "ina238", "ina260",
    "ina700", "ina780",
];
/// The chip with three shunts.
const TRIPLE_CHIP: &str = "ina3221";
/// Rails that carry a Jetson module's whole input, by their newer and older names.
const TOTALS: [&str; 2] = ["VDD_IN", "POM_5V_IN"];
/// A rail and the rail that feeds it; adding both would count its power twice (Jetson AGX Orin).
const FED_BY: [(&str, &str); 1] = [("VDDQ_VDD2_1V8AO", "VIN_SYS_5V0")];
/// The shunt that the kernel assumes if none is configured, µΩ.
const SHUNT_DEFAULT_UOHM: i64 = 10_000;
/// Interval of readings if the kernel doesn't report an update interval.
const PERIOD_DEFAULT: Duration = Duration::from_millis(10);
/// The longest plausible update interval, ms; drivers report a second or less, averaging included.
const INTERVAL_MS_MAX: i64 = 60_000;
/// A megavolt, megaampere or megawatt in micro-units; no board reaches it.
const MICRO_MAX: i64 = 1_000_000_000_000;
/// Relative uncertainty: 1 % gain of the chip and 1 % tolerance of the shunt, as on NVIDIA's boards.
const RELATIVE: f64 = 0.02;
/// One step of an INA3221, W: 40 µV on 5 mΩ, at 5 V.
const TRIPLE_OFFSET_W: f64 = 0.04;
/// One step of the power that the kernel reads from an INA219 with 10 mΩ, W.
const SINGLE_OFFSET_W: f64 = 0.02;

/// A configured rail that no monitor has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no rail is called {wanted:?}; {}", there(.known))]
pub struct UnknownRail {
    /// The name.
    pub wanted: String,
    /// The existing rails.
    pub known: Vec<String>,
}

fn there(known: &[String]) -> String {
    if known.is_empty() {
        return "the kernel has no power monitor".into();
    }
    format!("there are {}", known.join(", "))
}

/// One or more rails, read as one power. The kernel doesn't report clipping.
#[derive(Debug)]
pub struct Hwmon {
    source: SensorSource,
    rails: Vec<HwmonRail>,
    /// The chip's update interval; 0 if unknown.
    lasted: Duration,
}

/// The power monitors under `sysfs` (`/sys`), each as one source; empty if there are none. A Jetson's own INA3221
/// chips come first, as one source: the module's input, or else the sum of their rails. Every other chip is a source
/// of its own. With `rails`, there is one source, the sum of these rails.
///
/// A rail's name is its label, or for a chip without one its address: `1-0040`.
///
/// # Errors
/// One of `rails` doesn't exist.
pub fn find(sysfs: &Path, rails: &[String]) -> Result<Vec<Hwmon>, UnknownRail> {
    let known = all_rails(sysfs);
    if !rails.is_empty() {
        return Ok(vec![Hwmon::new(named(known, rails)?)]);
    }
    let (triple, single): (Vec<_>, Vec<_>) = known.into_iter().partition(|rail| rail.chip == TRIPLE_CHIP);
    let own = Some(total(triple)).filter(|rails| !rails.is_empty());
    let groups = own.into_iter().chain(single.into_iter().map(|rail| vec![rail]));
    Ok(groups.map(Hwmon::new).collect())
}

/// The driver that holds an address of an I2C bus, if there is one; user space can't open the address then.
pub fn owner_of(sysfs: &Path, bus: u32, address: u16) -> Option<String> {
    link_name(&sysfs.join(format!("bus/i2c/devices/{bus}-{address:04x}/driver")))
}

impl Hwmon {
    fn new(rails: Vec<HwmonRail>) -> Self {
        let intervals = rails.iter().filter_map(|rail| rail.interval);
        let lasted = intervals.max_by_key(|interval| interval.0).unwrap_or_default();
        let period = Duration(lasted.0.max(PERIOD_DEFAULT.0));
        let source = SensorSource {
            kind: PowerSource::Hwmon,
            part: part(&rails),
            boundary: boundary(&rails),
            uncertainty: uncertainty(&rails),
            period,
            poll: period,
        };
        Self { source, rails, lasted }
    }

    /// The rails that are summed.
    pub fn rails(&self) -> impl Iterator<Item = &str> {
        self.rails.iter().map(|rail| rail.name.as_str())
    }

    /// A caution about the figures, in words: the kernel may assume the wrong shunt.
    pub fn caution(&self) -> Option<String> {
        let unset = self.rails.iter().find(|rail| rail.shunt_uohm == Some(SHUNT_DEFAULT_UOHM))?;
        Some(format!(
            "the kernel takes the shunt of {} {} for {} mΩ, as it does where nobody set it; if it is another, write \
             it to shunt_resistor in µΩ: with the 100 mΩ of a common module every figure is ten times too large",
            unset.chip,
            unset.name,
            SHUNT_DEFAULT_UOHM / 1000
        ))
    }
}

impl PowerSensor for Hwmon {
    fn source(&self) -> &SensorSource {
        &self.source
    }

    fn read(&mut self) -> Result<Option<Reading>, SensorError> {
        let mut micro: i64 = 0;
        let mut rail = None;
        for each in &self.rails {
            let (power, line) = each.read()?;
            micro = micro.saturating_add(power.micro());
            rail = line.filter(|_| self.rails.len() == 1);
        }
        let (power, ended) = (Watts::from_micro(micro), Duration::default());
        Ok(Some(Reading::Power { power, rail, clipped: false, ended, lasted: self.lasted }))
    }
}

/// One supply line with a shunt in it.
#[derive(Debug)]
struct HwmonRail {
    chip: String,
    name: String,
    power: Option<HwmonValue>,
    /// Voltage and current; always present if `power` is `None`.
    line: Option<(HwmonValue, HwmonValue)>,
    interval: Option<Duration>,
    shunt_uohm: Option<i64>,
}

impl HwmonRail {
    fn read(&self) -> Result<(Watts, Option<(Volts, Amperes)>), SensorError> {
        let line = self.line.as_ref().map(|(voltage, current)| {
            Ok((Volts::from_micro(voltage.read()?), Amperes::from_micro(current.read()?)))
        });
        let line = line.transpose()?;
        let power = self.power.as_ref().map(HwmonValue::read).transpose()?.map(Watts::from_micro);
        let product = || line.map_or(Watts::default(), |(voltage, current)| voltage * current);
        Ok((power.unwrap_or_else(product), line))
    }
}

/// A file with one quantity.
#[derive(Debug)]
struct HwmonValue {
    path: PathBuf,
    /// Micro-units per unit of the file.
    micro: i64,
    bounds: RangeInclusive<i64>,
}

impl HwmonValue {
    /// The value of an existing file. Only a current may be negative, because it can flow either way.
    fn new(path: PathBuf, micro: i64, negative: bool) -> Option<Self> {
        let max = MICRO_MAX / micro;
        let bounds = if negative { -max..=max } else { 0..=max };
        path.exists().then_some(Self { path, micro, bounds })
    }

    fn read(&self) -> Result<i64, SensorError> {
        Ok(integer(&self.path, self.bounds.clone())? * self.micro)
    }
}

fn all_rails(sysfs: &Path) -> Vec<HwmonRail> {
    let mut rails = Vec::new();
    for folder in children(&sysfs.join("class/hwmon"), |name| name.starts_with("hwmon")) {
        rails.extend(hwmon_rails(&folder));
    }
    for chip in children(&sysfs.join("bus/i2c/drivers/ina3221x"), |name| name.contains('-')) {
        for folder in children(&chip, |name| name.starts_with("iio:device")) {
            rails.extend((0..3).filter_map(|channel| iio_rail(&folder, channel)));
        }
    }
    rails.retain(|rail| is_real(&rail.name));
    rails
}

/// False for a channel with nothing connected and for the INA3221's sum channel.
fn is_real(name: &str) -> bool {
    !name.eq_ignore_ascii_case("nc") && !name.to_ascii_lowercase().contains("sum of shunt voltages")
}

fn hwmon_rails(folder: &Path) -> Vec<HwmonRail> {
    let Ok(chip) = text(&folder.join("name")) else { return Vec::new() };
    let numbers = match chip.as_str() {
        TRIPLE_CHIP => 1..=3,
        single if SINGLE_CHIPS.contains(&single) => 1..=1,
        _ => return Vec::new(),
    };
    numbers.filter_map(|number| hwmon_rail(folder, &chip, number)).collect()
}

/// A channel of a chip; `None` if it is disabled or has no figure.
fn hwmon_rail(folder: &Path, chip: &str, number: usize) -> Option<HwmonRail> {
    let file = |name: String| folder.join(name);
    if integer(&file(format!("in{number}_enable")), 0..=1) == Ok(0) {
        return None;
    }
    let voltage = HwmonValue::new(file(format!("in{number}_input")), 1000, false);
    let current = HwmonValue::new(file(format!("curr{number}_input")), 1000, true);
    let power = HwmonValue::new(file(format!("power{number}_input")), 1, false);
    let line = voltage.zip(current);
    (power.is_some() || line.is_some()).then(|| HwmonRail {
        chip: chip.into(),
        name: hwmon_name(folder, chip, number),
        power,
        line,
        interval: interval(folder),
        shunt_uohm: integer(&folder.join("shunt_resistor"), 1..=i64::MAX).ok(),
    })
}

/// The name of a channel: its label, the chip's label, or its place.
fn hwmon_name(folder: &Path, chip: &str, number: usize) -> String {
    let label = text(&folder.join(format!("in{number}_label")));
    if chip == TRIPLE_CHIP {
        return label.unwrap_or_else(|_| format!("{}/{number}", place(folder)));
    }
    label.or_else(|_| text(&folder.join("label"))).unwrap_or_else(|_| place(folder))
}

/// `1-0040`: bus and address, or the folder's name if it has no link to the chip.
fn place(folder: &Path) -> String {
    let own = || folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    link_name(&folder.join("device")).unwrap_or_else(own)
}

fn interval(folder: &Path) -> Option<Duration> {
    let ms = integer(&folder.join("update_interval"), 1..=INTERVAL_MS_MAX).ok()?;
    Some(Duration::from_millis(ms.unsigned_abs()))
}

fn iio_rail(folder: &Path, channel: usize) -> Option<HwmonRail> {
    let file = |quantity: &str| folder.join(format!("in_{quantity}{channel}_input"));
    let power = HwmonValue::new(file("power"), 1000, false);
    let line =
        HwmonValue::new(file("voltage"), 1000, false).zip(HwmonValue::new(file("current"), 1000, true));
    let name = text(&folder.join(format!("rail_name_{channel}"))).ok()?;
    let chip = TRIPLE_CHIP.into();
    (power.is_some() || line.is_some()).then_some(HwmonRail {
        chip,
        name,
        power,
        line,
        interval: None,
        shunt_uohm: None,
    })
}

/// The rails that add up to the whole input, without counting any power twice.
fn total(mut rails: Vec<HwmonRail>) -> Vec<HwmonRail> {
    if let Some(input) = rails.iter().position(|rail| TOTALS.contains(&rail.name.as_str())) {
        // The input rail feeds all others.
        return vec![rails.swap_remove(input)];
    }
    for (fed, feeder) in FED_BY {
        if rails.iter().any(|rail| rail.name == feeder) {
            rails.retain(|rail| rail.name != fed);
        }
    }
    rails
}

fn named(mut known: Vec<HwmonRail>, wanted: &[String]) -> Result<Vec<HwmonRail>, UnknownRail> {
    if let Some(absent) = wanted.iter().find(|name| !known.iter().any(|rail| rail.name == **name)) {
        let known = known.into_iter().map(|rail| rail.name).collect();
        return Err(UnknownRail { wanted: absent.clone(), known });
    }
    known.retain(|rail| wanted.contains(&rail.name));
    Ok(known)
}

/// `ina3221 VDD_IN`, `ina3221 VDD_GPU_SOC + VDD_CPU_CV`.
fn part(rails: &[HwmonRail]) -> String {
    let mut part = String::new();
    let mut chip = "";
    for rail in rails {
        let plus = if part.is_empty() { "" } else { " + " };
        let named = if rail.chip == chip { String::new() } else { format!("{} ", rail.chip) };
        part.push_str(&format!("{plus}{named}{}", rail.name));
        chip = &rail.chip;
    }
    part
}

fn boundary(rails: &[HwmonRail]) -> String {
    let names: Vec<_> = rails.iter().map(|rail| rail.name.as_str()).collect();
    match names[..] {
        [input] if TOTALS.contains(&input) => format!(
            "all that the module takes in through {input}; not the carrier board and what is plugged into it"
        ),
        [one] => format!("what flows through the shunt of {one}, and nothing beside it"),
        _ => format!("the sum of {}; not what the board takes past them", names.join(", ")),
    }
}

fn uncertainty(rails: &[HwmonRail]) -> Uncertainty {
    let offset = |rail: &HwmonRail| if rail.chip == TRIPLE_CHIP { TRIPLE_OFFSET_W } else { SINGLE_OFFSET_W };
    Uncertainty { relative: RELATIVE, offset_w: rails.iter().map(offset).sum() }
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::fake::{GARBAGE, Tree};
    use super::*;

    /// A Jetson Nano with JetPack 4.
    fn jetson_nano() -> Tree {
        let chip = "bus/i2c/drivers/ina3221x/6-0040/iio:device0/";
        let tree = Tree::new(&[("bus/i2c/drivers/ina3221x/module/version", "")]);
        let rails =
            [("POM_5V_IN", 5056, 1000, 5056), ("POM_5V_GPU", 5048, 80, 403), ("POM_5V_CPU", 5048, 300, 1514)];
        for (channel, (name, mv, ma, mw)) in rails.into_iter().enumerate() {
            tree.write(&format!("{chip}rail_name_{channel}"), format!("{name}\n").as_bytes());
            tree.write(&format!("{chip}in_voltage{channel}_input"), format!("{mv}\n").as_bytes());
            tree.write(&format!("{chip}in_current{channel}_input"), format!("{ma}\n").as_bytes());
            tree.write(&format!("{chip}in_power{channel}_input"), format!("{mw}\n").as_bytes());
        }
        tree
    }

    fn ina3221(tree: &Tree, hwmon: &str, rails: &[(&str, i64, i64)]) {
        tree.write(&format!("class/hwmon/{hwmon}/name"), b"ina3221\n");
        tree.write(&format!("class/hwmon/{hwmon}/in7_label"), b"sum of shunt voltages\n");
        tree.write(&format!("class/hwmon/{hwmon}/in7_input"), b"8080\n");
        tree.write(&format!("class/hwmon/{hwmon}/curr4_input"), b"1384\n");
        for (channel, (label, mv, ma)) in rails.iter().enumerate() {
            let number = channel + 1;
            tree.write(&format!("class/hwmon/{hwmon}/in{number}_label"), format!("{label}\n").as_bytes());
            tree.write(&format!("class/hwmon/{hwmon}/in{number}_enable"), b"1\n");
            tree.write(&format!("class/hwmon/{hwmon}/in{number}_input"), format!("{mv}\n").as_bytes());
            tree.write(&format!("class/hwmon/{hwmon}/curr{number}_input"), format!("{ma}\n").as_bytes());
            tree.write(&format!("class/hwmon/{hwmon}/shunt{number}_resistor"), b"5000\n");
        }
    }

    /// A Jetson Orin Nano with JetPack 6.
    fn orin_nano() -> Tree {
        let tree = Tree::new(&[("class/hwmon/hwmon0/name", "pwmfan\n"), ("class/hwmon/hwmon0/pwm1", "54\n")]);
        let rails = [("VDD_IN", 4984, 960), ("VDD_CPU_GPU_CV", 4976, 120), ("VDD_SOC", 4976, 304)];
        ina3221(&tree, "hwmon1", &rails);
        tree
    }

    /// A Jetson AGX Orin with JetPack 5: no rail carries the whole input, and two channels have nothing connected.
    fn agx_orin() -> Tree {
        let tree = Tree::new(&[]);
        let rails = [("VDD_GPU_SOC", 12_000, 280), ("VDD_CPU_CV", 12_000, 40), ("VIN_SYS_5V0", 5_000, 900)];
        ina3221(&tree, "hwmon3", &rails);
        ina3221(&tree, "hwmon4", &[("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5_000, 80), ("NC", 0, 0)]);
        tree
    }

    /// A Raspberry Pi whose device tree declares an INA219.
    fn raspberry_pi(shunt_uohm: &str) -> Tree {
        let tree = Tree::new(&[
            ("class/hwmon/hwmon0/name", "rpi_volt\n"),
            ("class/hwmon/hwmon2/name", "ina219\n"),
            ("class/hwmon/hwmon2/in0_input", "6\n"),
            ("class/hwmon/hwmon2/in1_input", "5104\n"),
            ("class/hwmon/hwmon2/curr1_input", "600\n"),
            ("class/hwmon/hwmon2/power1_input", "3060000\n"),
            ("class/hwmon/hwmon2/shunt_resistor", shunt_uohm),
        ]);
        tree.link("class/hwmon/hwmon2/device", "../../../1-0040");
        tree.link("bus/i2c/devices/1-0040/driver", "../../../../bus/i2c/drivers/ina2xx");
        tree
    }

    fn only(tree: &Tree, rails: &[&str]) -> Hwmon {
        let rails: Vec<String> = rails.iter().map(|rail| rail.to_string()).collect();
        let mut found = find(tree.root(), &rails).unwrap();
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    fn watts(sensor: &mut Hwmon) -> f64 {
        let Ok(Some(Reading::Power { power, .. })) = sensor.read() else { panic!("no power") };
        power.as_f64()
    }

    fn line(sensor: &mut Hwmon) -> Option<(Volts, Amperes)> {
        let Ok(Some(Reading::Power { rail, .. })) = sensor.read() else { panic!("no power") };
        rail
    }

    #[test]
    fn an_older_jetson_gives_the_power_of_its_input() {
        let tree = jetson_nano();
        let mut sensor = only(&tree, &[]);
        assert_eq!(sensor.source().part, "ina3221 POM_5V_IN");
        assert_eq!(watts(&mut sensor), 5.056);
        assert_eq!(line(&mut sensor), Some((Volts::from_f64(5.056), Amperes::from_f64(1.0))));
        assert_eq!(sensor.source().uncertainty, Uncertainty { relative: 0.02, offset_w: 0.04 });
    }

    #[test]
    fn an_older_jetsons_rail_without_power_is_volts_times_amperes() {
        let tree = jetson_nano();
        tree.remove("bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power2_input");
        assert_eq!(watts(&mut only(&tree, &["POM_5V_CPU"])), 1.5144);
    }

    #[test]
    fn a_newer_jetson_gives_volts_times_amperes_of_its_input() {
        let tree = orin_nano();
        tree.write("class/hwmon/hwmon1/update_interval", b"36\n");
        let mut sensor = only(&tree, &[]);
        let source = sensor.source().clone();
        assert_eq!((source.kind, source.part.as_str()), (PowerSource::Hwmon, "ina3221 VDD_IN"));
        assert!(source.boundary.contains("not the carrier board"), "{}", source.boundary);
        assert_eq!((source.period, source.poll), (Duration::from_millis(36), Duration::from_millis(36)));
        let read = sensor.read();
        let Ok(Some(Reading::Power { power, lasted, ended, clipped, .. })) = read else { panic!("{read:?}") };
        assert_eq!((power.micro(), lasted), (4_784_640, Duration::from_millis(36)));
        assert_eq!((ended, clipped), (Duration(0), false));
        assert_eq!(sensor.caution(), None);
    }

    #[test]
    fn without_an_input_every_real_rail_is_summed_once() {
        let tree = agx_orin();
        let mut sensor = only(&tree, &[]);
        assert_eq!(sensor.source().part, "ina3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0");
        let boundary = "the sum of VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0; not what the board takes past them";
        assert_eq!(sensor.source().boundary, boundary);
        assert!((watts(&mut sensor) - (3.36 + 0.48 + 4.5)).abs() < 1e-9);
        assert_eq!(line(&mut sensor), None);
        assert!((sensor.source().uncertainty.offset_w - 0.12).abs() < 1e-9);
        assert_eq!(sensor.source().period, PERIOD_DEFAULT);
    }

    #[test]
    fn rails_can_be_named() {
        let tree = agx_orin();
        let mut sensor = only(&tree, &["VDDQ_VDD2_1V8AO", "VDD_CPU_CV", "VDD_CPU_CV"]);
        assert_eq!(sensor.rails().collect::<Vec<_>>(), ["VDD_CPU_CV", "VDDQ_VDD2_1V8AO"]);
        assert!((watts(&mut sensor) - 0.88).abs() < 1e-9);
        let unknown = find(tree.root(), &["VDD_CPU_CV".into(), "NC".into()]).unwrap_err();
        let there = "VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0, VDDQ_VDD2_1V8AO";
        assert_eq!(unknown.to_string(), format!("no rail is called \"NC\"; there are {there}"));
        let none = find(Tree::new(&[]).root(), &["VDD_IN".into()]).unwrap_err();
        assert_eq!(none.to_string(), "no rail is called \"VDD_IN\"; the kernel has no power monitor");
    }

    #[test]
    fn a_channel_that_is_switched_off_is_no_rail() {
        let tree = agx_orin();
        tree.write("class/hwmon/hwmon3/in2_enable", b"0\n");
        assert_eq!(only(&tree, &[]).source().part, "ina3221 VDD_GPU_SOC + VIN_SYS_5V0");
    }

    #[test]
    fn a_chip_in_the_supply_gives_its_power() {
        let mut sensor = only(&raspberry_pi("100000\n"), &["1-0040"]);
        assert_eq!(sensor.source().part, "ina219 1-0040");
        assert_eq!(sensor.source().boundary, "what flows through the shunt of 1-0040, and nothing beside it");
        assert!(sensor.read().is_err(), "its tree is gone");
        let tree = raspberry_pi("100000\n");
        let mut sensor = only(&tree, &[]);
        assert_eq!(watts(&mut sensor), 3.06);
        assert_eq!(line(&mut sensor), Some((Volts::from_f64(5.104), Amperes::from_f64(0.6))));
        assert_eq!(sensor.caution(), None);
        assert_eq!(sensor.source().uncertainty.offset_w, 0.02);
    }

    #[test]
    fn a_shunt_that_nobody_set_is_said() {
        let caution = only(&raspberry_pi("10000\n"), &[]).caution().unwrap();
        assert!(caution.starts_with("the kernel takes the shunt of ina219 1-0040 for 10 mΩ"), "{caution}");
    }

    #[test]
    fn a_board_and_a_chip_beside_it_are_two_sources() {
        let tree = orin_nano();
        for (file, text) in [("name", "ina226"), ("label", "battery"), ("power1_input", "9000000")] {
            tree.write(&format!("class/hwmon/hwmon0/{file}"), text.as_bytes());
        }
        let found = find(tree.root(), &[]).unwrap();
        let parts: Vec<_> = found.iter().map(|each| each.source().part.as_str()).collect();
        assert_eq!(parts, ["ina3221 VDD_IN", "ina226 battery"]);
        assert_eq!(only(&tree, &["battery", "VDD_SOC"]).source().part, "ina226 battery + ina3221 VDD_SOC");
    }

    #[test]
    fn chips_without_labels_are_called_as_their_place() {
        let tree = orin_nano();
        tree.remove("class/hwmon/hwmon1/in1_label");
        tree.remove("class/hwmon/hwmon1/in2_label");
        tree.link("class/hwmon/hwmon1/device", "../../../1-0041");
        let sensor = only(&tree, &[]);
        assert_eq!(sensor.rails().collect::<Vec<_>>(), ["1-0041/1", "1-0041/2", "VDD_SOC"]);
    }

    #[test]
    fn a_current_may_flow_back_and_a_voltage_may_not() {
        let tree = orin_nano();
        let mut sensor = only(&tree, &[]);
        tree.write("class/hwmon/hwmon1/curr1_input", b"-8\n");
        assert_eq!(watts(&mut sensor), -0.039872);
        tree.write("class/hwmon/hwmon1/in1_input", b"-8\n");
        assert!(sensor.read().is_err());
    }

    #[test]
    fn what_is_no_figure_is_an_error_that_names_the_file_and_the_next_one_counts() {
        for (tree, file) in [
            (orin_nano(), "class/hwmon/hwmon1/in1_input"),
            (raspberry_pi("100000"), "class/hwmon/hwmon2/power1_input"),
            (jetson_nano(), "bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_voltage0_input"),
        ] {
            let mut sensor = only(&tree, &[]);
            let good = std::fs::read(tree.at(file)).unwrap();
            let mut fails = || {
                let error = sensor.read().unwrap_err();
                let SensorError::Failed { place, .. } = error else { panic!("{error}") };
                assert_eq!(Path::new(&place), tree.at(file));
            };
            for garbage in GARBAGE {
                tree.write(file, garbage);
                fails();
            }
            tree.remove(file);
            fails();
            tree.write(file, b"");
            tree.make_unreadable(file);
            fails();
            std::fs::remove_dir(tree.at(file)).unwrap();
            tree.write(file, &good);
            assert!(watts(&mut sensor) > 3.0);
        }
    }

    #[test]
    fn figures_out_of_reach_and_labels_that_are_none_are_refused() {
        let tree = orin_nano();
        tree.write("class/hwmon/hwmon1/curr1_input", b"9000000000000000000\n");
        assert!(only(&tree, &[]).read().is_err());
        for garbage in GARBAGE {
            tree.write("class/hwmon/hwmon1/name", garbage);
            tree.write("class/hwmon/hwmon1/update_interval", garbage);
            assert!(find(tree.root(), &[]).unwrap().is_empty());
        }
        tree.write("class/hwmon/hwmon1/name", b"ina3221");
        assert_eq!(only(&tree, &[]).source().period, PERIOD_DEFAULT);
    }

    #[test]
    fn an_address_has_the_driver_that_holds_it_or_none() {
        let tree = raspberry_pi("10000\n");
        assert_eq!(owner_of(tree.root(), 1, 0x40).as_deref(), Some("ina2xx"));
        assert_eq!((owner_of(tree.root(), 1, 0x41), owner_of(tree.root(), 0, 0x40)), (None, None));
    }
}
