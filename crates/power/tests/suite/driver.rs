//! The driver: exact transactions, the crate `ina219` as a reference, and faults of the chip.

use dunlin_hlm::time::{Duration, Instant};
use dunlin_power::ina219::{Averaging, Config, Error, Ina219, Measurement, Register, ShuntRange};
use dunlin_power::simulated::chip::{Chip, Failure, Troubles, Wiring};
use dunlin_power::simulated::waveform::StepWaveform;
use dunlin_power::timebase::{Timebase, VirtualTime};
use dunlin_power::units::{Amperes, Volts, Watts};
use embedded_hal::i2c::{ErrorKind, I2c, NoAcknowledgeSource};
use embedded_hal_mock::eh1::i2c::{Mock, Transaction};
use ina219::SyncIna219;
use ina219::address::Address;
use ina219::calibration::{IntCalibration, MicroAmpere, UnCalibrated};
use ina219::configuration::{
    BusVoltageRange, Configuration, MeasuredSignals, OperatingMode, Reset, Resolution, ShuntVoltageRange,
};

const ADDRESS: u8 = 0x40;
/// The configuration register: 8 conversions, 320 mV, 32 V.
const CONFIGURATION: [u8; 3] = [0, 0x3d, 0xdf];
const CALIBRATION: [u8; 3] = [5, 0x10, 0x62];

fn config(averaging: u8) -> Config {
    let averaging = Averaging::of(averaging).unwrap();
    Config { shunt_micro_ohms: 100_000, range: ShuntRange::Mv320, shunt: averaging, bus: averaging }
}

fn read(register: u8, value: u16) -> Transaction {
    Transaction::write_read(ADDRESS, vec![register], value.to_be_bytes().to_vec())
}

fn write(bytes: [u8; 3]) -> Transaction {
    Transaction::write(ADDRESS, bytes.to_vec())
}

/// A chip that was configured, followed by the transactions `behind`.
fn set_up(behind: &[Transaction]) -> Ina219<Mock> {
    let begin = [write(CALIBRATION), write(CONFIGURATION)];
    let mut chip = Ina219::new(Mock::new(begin.iter().chain(behind)), ADDRESS, config(8));
    chip.configure().unwrap();
    chip
}

fn measure<I: I2c>(chip: &mut Ina219<I>) -> Result<Option<Measurement>, Error<I::Error>> {
    match chip.look()? {
        Some(ready) => chip.take(ready).map(Some),
        None => Ok(None),
    }
}

#[test]
fn a_reading_is_four_registers_and_no_more() {
    // 1275 steps of 4 mV and the ready flag; 6000 steps of 10 µV are 0.6 A through 0.1 Ω.
    let bus = 1275 << 3 | 0b10;
    let mut chip = set_up(&[read(2, 1275 << 3), read(2, bus), read(1, 6000), read(3, 1566)]);
    assert_eq!(measure(&mut chip), Ok(None));
    let expected = Measurement {
        bus: Volts::from_f64(5.1),
        current: Amperes::from_f64(0.6),
        power: Watts::from_f64(3.06),
        clipped: false,
    };
    assert_eq!(measure(&mut chip), Ok(Some(expected)));
    chip.release().done();
}

#[test]
fn overflow_and_the_ends_of_ranges_are_said() {
    let ready = |steps: u16| steps << 3 | 0b10;
    let mut chip = set_up(&[
        read(2, ready(1275) | 1),
        read(1, 6000),
        read(3, 1566),
        read(2, ready(1275)),
        read(1, (-32_000_i16).cast_unsigned()),
        read(3, 8000),
        read(2, ready(8000)),
        read(1, 10),
        read(3, 16),
    ]);
    assert_eq!(measure(&mut chip), Err(Error::Overflow));
    let reversed = measure(&mut chip).unwrap().unwrap();
    assert!(reversed.clipped && reversed.current == Amperes::from_f64(-3.2));
    assert!(measure(&mut chip).unwrap().unwrap().clipped);
    chip.release().done();
}

#[test]
fn lost_settings_are_noticed_with_the_next_reading() {
    let ready = 1275 << 3 | 0b10;
    let mut chip = set_up(&[
        read(2, ready),
        read(1, 6000),
        read(3, 0),
        read(0, 0x399f),
        write(CALIBRATION),
        write(CONFIGURATION),
        // At almost no current, a power register of 0 is valid and causes no further reads.
        read(2, ready),
        read(1, 3),
        read(3, 0),
    ]);
    assert_eq!(measure(&mut chip), Err(Error::Reinitialised));
    assert_eq!(measure(&mut chip).unwrap().unwrap().power, Watts::from_micro(1530));
    chip.release().done();
}

#[test]
fn a_failure_names_its_register_and_the_settings_are_looked_at() {
    let nobody = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address);
    let mut chip = set_up(&[
        read(2, 0).with_error(nobody),
        read(0, 0x3ddf),
        read(5, 0x1062),
        read(2, 0),
        read(2, 0b10),
        read(1, 0).with_error(nobody),
        read(0, 0x3ddf),
        read(5, 0),
        write(CALIBRATION),
        write(CONFIGURATION),
    ]);
    let failed = |register| Err(Error::Bus { register, error: nobody });
    assert_eq!(measure(&mut chip), failed(Register::Bus));
    assert_eq!(measure(&mut chip), Ok(None), "nothing was lost");
    assert_eq!(measure(&mut chip), failed(Register::Shunt));
    assert_eq!(measure(&mut chip), Err(Error::Reinitialised), "the calibration was lost");
    chip.release().done();
    let error: Error<ErrorKind> = Error::Bus { register: Register::Shunt, error: nobody };
    assert!(error.to_string().starts_with("Shunt register (0x01): NoAcknowledge"), "{error}");
}

#[test]
fn another_driver_reads_our_configuration_as_we_mean_it() {
    let ranges = [
        (ShuntRange::Mv40, ShuntVoltageRange::Fsr40mv, 40_000),
        (ShuntRange::Mv80, ShuntVoltageRange::Fsr80mv, 80_000),
        (ShuntRange::Mv160, ShuntVoltageRange::Fsr160mv, 160_000),
        (ShuntRange::Mv320, ShuntVoltageRange::Fsr320mv, 320_000),
    ];
    let averagings = [
        (1, Resolution::Res12Bit),
        (2, Resolution::Avg2),
        (4, Resolution::Avg4),
        (8, Resolution::Avg8),
        (16, Resolution::Avg16),
        (32, Resolution::Avg32),
        (64, Resolution::Avg64),
        (128, Resolution::Avg128),
    ];
    for (range, theirs, microvolts) in ranges {
        for (conversions, resolution) in averagings {
            let ours = Config { range, ..config(conversions) };
            let expected = Configuration {
                reset: Reset::Run,
                bus_voltage_range: BusVoltageRange::Fsr32v,
                shunt_voltage_range: theirs,
                bus_resolution: resolution,
                shunt_resolution: resolution,
                operating_mode: OperatingMode::Continous(MeasuredSignals::ShutAndBusVoltage),
            };
            assert_eq!(Configuration::from_bits(ours.register()), expected);
            let (mine, other) = (ours.period_micros(), expected.conversion_time_us().unwrap());
            assert!(mine.abs_diff(other.into()) * 200 <= mine, "{mine} µs, {other} µs");
        }
        // The calibration with which the full range has 2^15 current steps.
        let time = VirtualTime::default();
        let chip = Chip::new(StepWaveform::constant(3.0), time, Wiring::default(), Troubles::default());
        let mut driver = Ina219::new(chip, ADDRESS, Config { range, ..config(8) });
        driver.configure().unwrap();
        let mut chip = driver.release();
        let mut bytes = [0; 2];
        chip.write_read(ADDRESS, &[5], &mut bytes).unwrap();
        let ours = f64::from(u16::from_be_bytes(bytes));
        let step_ua = f64::from(microvolts) / 0.1 / f64::from(1 << 15);
        let theirs = IntCalibration::new(MicroAmpere(step_ua.round() as i64), 100_000).unwrap().as_bits();
        // The reference crate accepts only whole microamperes.
        assert!((ours / f64::from(theirs) - 1.0).abs() < 0.6 / step_ua, "{ours} and {theirs}");
        assert_eq!(ours % 2.0, 0.0);
    }
    assert_eq!([0, 3, 100, 255].map(Averaging::of), [None; 4]);
}

fn chip_of(watts: f64, time: &VirtualTime, troubles: Troubles) -> Chip<StepWaveform, VirtualTime> {
    Chip::new(StepWaveform::constant(watts), time.clone(), Wiring::default(), troubles)
}

#[test]
fn another_driver_reads_the_same_from_the_simulated_chip() {
    let time = VirtualTime::default();
    let mut ours = Ina219::new(chip_of(4.2, &time, Troubles::default()), ADDRESS, config(1));
    ours.configure().unwrap();
    time.wait(Duration::from_millis(20));
    let measured = measure(&mut ours).unwrap().unwrap();
    let address = Address::from_byte(ADDRESS).unwrap();
    let mut theirs = SyncIna219::new(ours.release(), address).unwrap();
    time.wait(Duration::from_millis(20));
    assert_eq!(theirs.shunt_voltage().unwrap().shunt_voltage_uv() * 10, measured.current.micro() as i32);
    assert_eq!(i64::from(theirs.bus_voltage().unwrap().voltage_mv()) * 1000, measured.bus.micro());
    assert!((measured.power.as_f64() - 4.2).abs() < 0.005, "{measured:?}");
    // The reference driver used as intended, with its own calibration.
    let mut calibrated = SyncIna219::new_calibrated(theirs.destroy(), address, UnCalibrated).unwrap();
    time.wait(Duration::from_millis(20));
    let theirs = calibrated.next_measurement().unwrap().unwrap();
    assert_eq!(i64::from(theirs.bus_voltage.voltage_mv()) * 1000, measured.bus.micro());
}

#[test]
fn the_ready_flag_stays_until_the_power_is_read() {
    let time = VirtualTime::default();
    let mut chip = Ina219::new(chip_of(4.0, &time, Troubles::default()), ADDRESS, config(8));
    chip.configure().unwrap();
    assert_eq!(measure(&mut chip), Ok(None));
    time.wait(Duration(8512));
    assert!(chip.look().unwrap().is_some() && chip.look().unwrap().is_some());
    assert!(measure(&mut chip).unwrap().is_some());
    assert_eq!(measure(&mut chip), Ok(None), "taken");
    time.wait(Duration(8512));
    assert!(measure(&mut chip).unwrap().is_some());
}

#[test]
fn a_brown_out_of_the_chip_costs_one_reading() {
    let time = VirtualTime::default();
    let troubles = Troubles { brown_outs: vec![Instant(50_000)], ..Troubles::default() };
    let mut chip = Ina219::new(chip_of(4.0, &time, troubles), ADDRESS, config(8));
    chip.configure().unwrap();
    let (mut taken, mut lost) = (0, Vec::new());
    while time.now().0 < 100_000 {
        match measure(&mut chip) {
            Ok(Some(measured)) => {
                assert!((measured.power.as_f64() - 4.0).abs() < 0.01);
                taken += 1;
            }
            Ok(None) => {}
            Err(error) => lost.push(error),
        }
        time.wait(Duration(700));
    }
    assert_eq!(lost, [Error::Reinitialised]);
    assert!((9..=11).contains(&taken), "{taken}");
}

#[test]
fn a_stuck_bus_comes_back() {
    let time = VirtualTime::default();
    let troubles = Troubles { stuck: vec![(Instant(20_000), Instant(60_000))], ..Troubles::default() };
    let mut chip = Ina219::new(chip_of(4.0, &time, troubles), ADDRESS, config(8));
    chip.configure().unwrap();
    let mut failed = 0;
    while time.now().0 < 100_000 {
        if let Err(error) = measure(&mut chip) {
            assert!(matches!(error, Error::Bus { error: Failure::Stuck, .. }), "{error:?}");
            failed += 1;
        }
        time.wait(Duration(700));
    }
    assert!((2..=5).contains(&failed), "{failed}");
    time.wait(Duration(9000));
    assert!(measure(&mut chip).unwrap().is_some());
    let mut nobody = Ina219::new(chip.release(), 0x41, config(8));
    assert!(matches!(nobody.is_there(), Err(Error::Bus { error: Failure::Unacknowledged, .. })));
}
