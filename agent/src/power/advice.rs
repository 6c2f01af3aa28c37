//! Advice for a source of power that does not answer.

use dunlin_power::settings::PowerSettings;
use dunlin_wire::PowerSource;

/// Advice for a source with this error.
pub(crate) fn of(kind: PowerSource, said: &str, settings: &PowerSettings) -> String {
    match kind {
        PowerSource::Ina219 => ina219(said, settings),
        PowerSource::Hwmon => hwmon(said).into(),
        PowerSource::Pmic => pmic(said).into(),
        PowerSource::Powercap => powercap(said).into(),
        PowerSource::Replay => "name a trace of `power record` with power.trace".into(),
        PowerSource::Simulated => "please report this: a simulated sensor can't fail".into(),
    }
}

fn ina219(said: &str, settings: &PowerSettings) -> String {
    let (bus, address) = (settings.i2c.display(), settings.address);
    if said.contains("kernel's driver") {
        return "use it with --power hwmon, or unbind the driver".into();
    }
    if said.contains("Permission denied") {
        return format!("join the group of {bus}: sudo usermod -aG i2c $USER, and log in anew");
    }
    if said.contains("No such file") {
        return "enable the bus: on a Raspberry Pi dtparam=i2c_arm=on in /boot/firmware/config.txt and a reboot, \
                elsewhere modprobe i2c-dev; or name another with power.i2c (`i2cdetect -l` lists them)"
            .into();
    }
    format!(
        "check the wiring of VCC, GND, SDA and SCL, and that {address:#04x} on {bus} is right: `i2cdetect -y N` shows \
         what answers; set power.address or power.i2c"
    )
}

fn hwmon(said: &str) -> &'static str {
    match said {
        said if said.contains("no rail is called") => "correct power.rails",
        said if said.contains("no power monitor") => {
            "nothing to do, unless this is a Jetson, or an INA2xx that the device tree names"
        }
        _ => "make its files under class/hwmon readable",
    }
}

fn pmic(said: &str) -> &'static str {
    match said {
        said if said.contains("No such file") => {
            "nothing to do, unless this is a Raspberry Pi 5: there install raspi-utils, or name the command with power.vcgencmd"
        }
        said if said.to_ascii_lowercase().contains("permission") => {
            "join the group video: sudo usermod -aG video $USER, and log in anew"
        }
        _ => "nothing to do, unless this is a Raspberry Pi 5: only that one measures its own rails",
    }
}

fn powercap(said: &str) -> &'static str {
    match said {
        said if said.contains("no powercap zone") => {
            "nothing to do, unless this is an x86 processor: there modprobe intel_rapl_msr"
        }
        said if said.contains("Permission denied") => {
            "run it as root, or make the counters readable after each start: sudo chmod a+r \
             /sys/class/powercap/*/energy_uj"
        }
        _ => "make the files under class/powercap readable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_power::clock::Clock;
    use dunlin_power::probe;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// The advice where `look` fails under these settings.
    fn advised(settings: &PowerSettings, kind: PowerSource) -> String {
        let error = probe::look(settings, kind, Clock::start()).err().unwrap();
        of(kind, &format!("{error:#}"), settings)
    }

    #[test]
    fn each_way_to_fail_has_its_advice() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let bare = PowerSettings {
            sysfs: at("sys"),
            vcgencmd: at("vcgencmd"),
            i2c: at("i2c-7"),
            ..PowerSettings::default()
        };
        assert!(advised(&bare, PowerSource::Ina219).contains("dtparam=i2c_arm=on"));
        assert!(advised(&bare, PowerSource::Hwmon).contains("unless this is a Jetson"));
        assert!(advised(&bare, PowerSource::Pmic).contains("raspi-utils"));
        assert!(advised(&bare, PowerSource::Powercap).contains("modprobe intel_rapl_msr"));
        assert!(advised(&bare, PowerSource::Replay).contains("power.trace"));
        fs::write(at("i2c-7"), "no bus").unwrap();
        let wiring = advised(&bare, PowerSource::Ina219);
        assert!(wiring.contains("wiring") && wiring.contains("0x40 on "), "{wiring}");
        let device = at("sys/bus/i2c/devices/7-0040");
        fs::create_dir_all(&device).unwrap();
        symlink("/somewhere/ina2xx", device.join("driver")).unwrap();
        assert!(advised(&bare, PowerSource::Ina219).contains("--power hwmon"));
        let rails = PowerSettings { rails: vec!["VDD_IN".into()], ..bare };
        assert_eq!(advised(&rails, PowerSource::Hwmon), "correct power.rails");
    }

    #[test]
    fn a_permission_that_is_missing_is_named() {
        let settings = PowerSettings::default();
        let denied = "/dev/i2c-1: Permission denied (os error 13)";
        assert!(of(PowerSource::Ina219, denied, &settings).contains("usermod -aG i2c"));
        assert!(of(PowerSource::Powercap, denied, &settings).contains("chmod a+r"));
        assert!(
            of(PowerSource::Pmic, "can't open /dev/vcio: Permission denied", &settings).contains("-aG video")
        );
    }
}
