use super::*;
use crate::find::listed;
use proptest::prelude::*;
use std::fs::write;
use std::path::PathBuf;

const BOARD: &str = r#"name = "b"
[build]
target = "aarch64-unknown-linux-gnu"
cpu_features = ["neon"]
glibc = "2.31"
emulated_cpu = "cortex-a72"
[drafter]
context_tokens_max = 2048
threads = 1
memory_mib = 1024
[link]
keep_alive_seconds = 20
radio = "wifi"
[power]
source = "ina219"
i2c = "/dev/i2c-1"
calibration = "power.toml"
[image]
boot = "raspberry-pi"
packages = ["firmware-brcm80211"]
device_trees = ["broadcom/bcm2711-rpi-4-b.dtb"]
config = ["dtparam=i2c_arm=on"]
kernel_arguments = ["console=ttyS1,115200"]
emulated_machine = "raspi3b"
"#;

fn load_as(file: &str, text: &str) -> Result<Board> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file);
    write(&path, text).unwrap();
    Board::load(&path)
}

fn boards() -> Vec<(String, PathBuf)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../boards");
    listed(&[dir]).unwrap()
}

#[test]
fn every_board_of_the_repository_is_sound() {
    let boards = boards();
    let names: Vec<&str> = boards.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "arm64",
        "host",
        "jetson-nano",
        "jetson-orin-nano",
        "rpi-zero2w",
        "rpi2",
        "rpi3",
        "rpi4",
        "rpi5",
        "virt",
    ];
    assert_eq!(names, expected);
    for (name, path) in &boards {
        let board = Board::load(path).unwrap();
        assert_eq!(board.name, *name);
        assert_eq!(board.build.target.is_some(), name != "host", "only `host` is without a target: {name}");
        assert!(board.build.target.is_none() || board.build.glibc.as_deref() == Some("2.31"), "{name}");
        assert!(
            matches!(board.power.choice(), Ok(crate::Choice::Auto)),
            "{name}: a missing sensor must not stop the agent"
        );
    }
}

#[test]
fn the_readme_names_every_key() {
    let readme = include_str!("../../../../boards/README.md");
    for key in crate::KEYS {
        let last = key.rsplit('.').next().unwrap_or(key);
        assert!(readme.contains(&format!("`{last}`")), "{key} is missing");
    }
}

#[test]
fn a_board_with_every_table_is_read() {
    let board = load_as("b.toml", BOARD).unwrap();
    assert_eq!(board.build.target.as_deref(), Some(TARGET_ARM64));
    assert_eq!((board.drafter.threads, board.drafter.memory_mib), (Some(1), Some(1024)));
    assert_eq!(board.link.radio, Some(Radio::Wifi));
    assert!(board.power.calibration.unwrap().is_absolute(), "beside its file");
    assert_eq!(board.image.unwrap().boot, Boot::RaspberryPi);
    assert_eq!(load_as("b.toml", "name = 'b'").unwrap(), Board { name: "b".into(), ..Board::default() });
}

/// A text to replace, its replacement, and the expected error.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("name = \"b\"", "name = \"c\"", "b.toml:1: name: the file of a board called \"c\" is called c.toml"),
    ("name = \"b\"", "name = \"B b\"", "b.toml:1: name: invalid name \"B b\""),
    ("name = \"b\"", "name = \"b\"\n[colour]", "b.toml:2: unknown field `colour`"),
    ("glibc", "glibz", "b.toml:5: unknown field `glibz`"),
    ("\"2.31\"", "2.31", "b.toml:5: invalid type: floating point `2.31`, expected a string (glibc = 2.31)"),
    ("2.31", "2", "b.toml:5: build.glibc: invalid version \"2\""),
    ("2.31", "2.x", "b.toml:5: build.glibc: invalid version \"2.x\""),
    (
        "aarch64-unknown",
        "arm64-unknown",
        "b.toml:3: build.target: unknown target \"arm64-unknown-linux-gnu\"; known are aarch64-",
    ),
    (
        "aarch64-unknown-linux-gnu",
        "armv7-unknown-linux-gnueabihf",
        "b.toml:18: image: an image needs build.target",
    ),
    ("target = \"aarch64-unknown-linux-gnu\"\n", "", "b.toml:17: image: an image needs build.target"),
    ("\"neon\"", "\"+neon\"", "b.toml:4: build.cpu_features: invalid feature name \"+neon\""),
    ("cortex-a72", "cortex a72", "b.toml:6: build.emulated_cpu: invalid processor name"),
    (
        "context_tokens_max = 2048",
        "context_tokens_max = 0",
        "b.toml:8: drafter.context_tokens_max: must be above 0",
    ),
    ("context_tokens_max = 2048", "context_tokens_max = -1", "b.toml:8: invalid value"),
    (
        "threads = 1",
        "threads = 0",
        "b.toml:9: drafter.threads: 0 is invalid; use 1: a run of the drafter uses one thread (threads = 0)",
    ),
    ("threads = 1", "threads = 4", "b.toml:9: drafter.threads: 4 is invalid; use 1"),
    ("memory_mib = 1024", "memory_mib = 0", "b.toml:10: drafter.memory_mib: 0 leaves nothing for a model"),
    ("memory_mib = 1024", "memory_mib = 24", "b.toml:10: drafter.memory_mib: 24 leaves nothing"),
    ("seconds = 20", "seconds = 4", "b.toml:12: link.keep_alive_seconds: 4 is outside 5 to 65535"),
    ("seconds = 20", "seconds = 65536", "b.toml:12: link.keep_alive_seconds: 65536 is outside"),
    (
        "\"wifi\"",
        "\"wi-fi\"",
        "b.toml:13: unknown variant `wi-fi`, expected one of `wifi`, `ethernet`, `lte-m`, `lora`",
    ),
    (
        "source = \"ina219\"",
        "source = \"hwmon\"",
        "b.toml:16: power.i2c: has no effect with power.source = \"hwmon\"",
    ),
    (
        "calibration = \"power.toml\"",
        "address = 0x50",
        "b.toml:17: power.address: 0x50 is not within 0x40 and 0x4f",
    ),
    ("calibration = \"power.toml\"", "rails = ['VDD_IN']", "b.toml:17: power.rails: has no effect with"),
    ("\"raspberry-pi\"", "\"grub\"", "b.toml:19: unknown variant `grub`, expected `raspberry-pi` or `virt`"),
    ("boot = \"raspberry-pi\"\n", "", "b.toml:18: missing field `boot`"),
    ("\"raspberry-pi\"", "\"virt\"", "b.toml:21: image.device_trees: has no effect with image.boot"),
    (
        "broadcom/bcm2711-rpi-4-b.dtb",
        "../etc/shadow.dtb",
        "b.toml:21: image.device_trees: \"../etc/shadow.dtb\" is not a valid path",
    ),
    (
        "broadcom/bcm2711-rpi-4-b.dtb",
        "/x.dtb",
        "b.toml:21: image.device_trees: \"/x.dtb\" is not a valid path",
    ),
    (
        "device_trees = [\"broadcom/bcm2711-rpi-4-b.dtb\"]\n",
        "",
        "b.toml:18: image.device_trees: a Raspberry Pi's kernel",
    ),
    (
        "firmware-brcm80211",
        "firmware-brcm80211; rm",
        "b.toml:20: image.packages: \"firmware-brcm80211; rm\" is not a valid name",
    ),
    ("dtparam=i2c_arm=on", "a\\nb", "b.toml:22: image.config: \"a\\nb\" is not one line"),
    ("dtparam=i2c_arm=on", "os_prefix=c/", "b.toml:22: image.config: \"os_prefix=c/\": a board's file can't"),
    ("dtparam=i2c_arm=on", "kernel=own", "b.toml:22: image.config: \"kernel=own\": a board's file can't"),
    ("\"raspi3b\"", "\"raspi9\"", "b.toml:24: unknown variant `raspi9`, expected `virt` or `raspi3b`"),
    ("\"raspi3b\"", "\"virt\"", "b.toml:24: image.emulated_machine: the machine \"virt\" and boot"),
    ("firmware-brcm80211", "f", "b.toml:20: image.packages: \"f\" is not a valid name"),
    (
        "console=ttyS1,115200",
        "quiet splash",
        "b.toml:23: image.kernel_arguments: \"quiet splash\" is not one",
    ),
];

#[test]
fn a_mistake_is_reported_with_file_line_and_key() {
    for (from, to, expected) in MISTAKES {
        assert!(BOARD.contains(from), "{from}");
        let error = load_as("b.toml", &BOARD.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    let virt = BOARD
        .replace("raspberry-pi", "virt")
        .replace("device_trees = [\"broadcom/bcm2711-rpi-4-b.dtb\"]\n", "");
    let error = load_as("b.toml", &virt).unwrap_err().to_string();
    assert!(error.contains("image.config: has no effect with"), "{error}");
    let virt = virt.replace("config = [\"dtparam=i2c_arm=on\"]\n", "");
    let error = load_as("b.toml", &virt).unwrap_err().to_string();
    assert!(error.contains("image.emulated_machine: the machine \"virt\""), "{error}");
    load_as("b.toml", &virt.replace("raspi3b", "virt")).unwrap();
    let error = Board::load(Path::new("/nowhere/b.toml")).unwrap_err();
    assert!(format!("{error:#}").starts_with("/nowhere/b.toml: No such file"), "{error:#}");
}

#[test]
fn weights_fit_with_the_agent_beside_them() {
    let of = |memory_mib| DrafterTable { memory_mib, ..DrafterTable::default() };
    // Weights of 8 MiB take 1 more while they are loaded, and 4096 tokens take 9.
    assert_eq!(of(Some(42)).fits(8 << 20, 4096), Ok(()));
    assert_eq!(of(Some(42)).fits((8 << 20) + 1, 4096), Err(43));
    assert_eq!(of(Some(42)).fits(8 << 20, 4097), Err(43));
    assert_eq!(of(None).fits(1 << 40, 4096), Ok(()));
    // The drafter of `make paper-size`.
    assert_eq!(DrafterTable::needed_mib(591 << 20, 32_000), 760);
}

#[test]
fn a_radio_has_one_name() {
    for radio in Radio::ALL {
        let text = format!("name = 'b'\n[link]\nradio = '{}'\n", radio.name());
        assert_eq!(load_as("b.toml", &text).unwrap().link.radio, Some(radio));
    }
}

proptest! {
    /// A truncated or corrupted file gives either a board or an error with the file's name.
    #[test]
    fn a_broken_file_is_an_error(cut in 0..BOARD.len(), at in 0..BOARD.len(), byte in any::<u8>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.toml");
        let mut bytes = BOARD.as_bytes()[..BOARD.len() - cut].to_vec();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        write(&path, bytes).unwrap();
        if let Err(error) = Board::load(&path) {
            prop_assert!(format!("{error:#}").contains("b.toml"), "{error:#}");
        }
    }
}
