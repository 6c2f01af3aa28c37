use super::*;
use std::fs::{create_dir_all, write};
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// The kernel's and udev's files for a USB card reader, with a card of two partitions, and for a built-in disk.
struct Tree {
    dir: TempDir,
    places: Places,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let places = Places { sysfs: at("sys"), proc: at("proc"), udev: at("udev") };
        let tree = Self { dir, places };
        tree.put(
            "proc/self/mountinfo",
            "22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n23 22 0:21 / /tmp rw - tmpfs tmpfs rw\n",
        );
        tree.put("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/nvme0n1p3 partition 9 0 -2\n");
        tree.device("8:0", "pci/usb1/1-1/host6/block/sda", 62_333_952, "1");
        tree.put("sys/devices/pci/usb1/1-1/host6/block/sda/device/vendor", "Generic \n");
        tree.put("sys/devices/pci/usb1/1-1/host6/block/sda/device/model", "SD/MMC  \n");
        tree.part("8:1", "pci/usb1/1-1/host6/block/sda/sda1", 524_288);
        tree.part("8:2", "pci/usb1/1-1/host6/block/sda/sda2", 61_000_000);
        tree.put("udev/b8:1", "S:disk/by-label/bootfs\nE:ID_FS_LABEL=bootfs\nE:ID_FS_TYPE=vfat\n");
        tree.put("udev/b8:2", "E:ID_FS_TYPE=ext4\n");
        tree.device("259:0", "pci/nvme/nvme0/nvme0n1", 1_000_215_216, "0");
        tree.part("259:2", "pci/nvme/nvme0/nvme0n1/nvme0n1p2", 9);
        tree.part("259:3", "pci/nvme/nvme0/nvme0n1/nvme0n1p3", 9);
        tree.device("179:0", "soc/mmc_host/mmc0/mmc0:1234/block/mmcblk0", 31_116_288, "0");
        tree
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        create_dir_all(path.parent().unwrap()).unwrap();
        write(path, text).unwrap();
    }

    fn device(&self, numbers: &str, path: &str, sectors: u64, removable: &str) {
        let dir = format!("sys/devices/{path}");
        for (file, text) in
            [("size", sectors.to_string().as_str()), ("ro", "0"), ("removable", removable), ("dev", numbers)]
        {
            self.put(&format!("{dir}/{file}"), &format!("{text}\n"));
        }
        let link = self.dir.path().join("sys/dev/block").join(numbers);
        create_dir_all(link.parent().unwrap()).unwrap();
        symlink(self.dir.path().join(dir), link).unwrap();
    }

    fn part(&self, numbers: &str, path: &str, sectors: u64) {
        self.device(numbers, path, sectors, "0");
        self.put(&format!("sys/devices/{path}/partition"), "1\n");
    }

    fn device_at(&self, numbers: &str) -> Device {
        let (name, facts) = Facts::of(numbers, &self.places).unwrap();
        Device { path: format!("/dev/{name}").into(), name, target: Target::Block(facts) }
    }

    fn refusal(&self, numbers: &str) -> String {
        self.device_at(numbers).check().unwrap_err().to_string()
    }
}

const SDA: &str = "sys/devices/pci/usb1/1-1/host6/block/sda";

#[test]
fn a_free_card_is_taken_and_shown() {
    let tree = Tree::new();
    let card = tree.device_at("8:0");
    card.check().unwrap();
    assert_eq!((card.name(), card.capacity()), ("sda", Some(62_333_952 * 512)));
    assert_eq!(
        card.to_string(),
        "/dev/sda is Generic SD/MMC, 31 GB\n  sda1: 268 MB, vfat \"bootfs\"\n  sda2: 31 GB, ext4"
    );
    let card = tree.device_at("179:0");
    card.check().unwrap();
    assert_eq!(card.to_string(), "/dev/mmcblk0 is a device without a name, 15 GB, without partitions");
}

#[test]
fn what_is_in_use_is_refused() {
    let used = |path: &str, text: &str| {
        let tree = Tree::new();
        tree.put(path, text);
        tree.refusal("8:0")
    };
    let mounted = "30 22 8:2 / /media/card rw - ext4 /dev/sda2 rw\n";
    assert_eq!(
        used("proc/self/mountinfo", mounted),
        "/dev/sda: it is in use: sda2 is mounted at /media/card; unmount it first"
    );
    let whole = "30 22 8:0 / /media/card rw - vfat /dev/sda rw\n";
    assert!(used("proc/self/mountinfo", whole).contains("sda is mounted at /media/card"));
    let anonymous = "30 22 0:44 / /media/card rw shared:1 - btrfs /dev/sda2 rw\n";
    assert!(used("proc/self/mountinfo", anonymous).contains("sda2 is mounted at /media/card"));
    assert!(
        used("proc/swaps", "Filename\n/dev/sda1 partition 1 1 -2\n").contains("sda1 is swap; take it out")
    );
    assert!(used(&format!("{SDA}/holders/md0/x"), "").contains("sda belongs to md0"));
    assert!(used(&format!("{SDA}/sda2/holders/dm-0/x"), "").contains("sda2 belongs to dm-0"));
}

#[test]
fn what_is_no_card_is_refused() {
    let tree = Tree::new();
    assert!(tree.refusal("259:0").contains("nvme0n1p2 is mounted at /, nvme0n1p3 is swap"));
    tree.put("proc/self/mountinfo", "");
    tree.put("proc/swaps", "");
    assert_eq!(
        tree.refusal("259:0"),
        "/dev/nvme0n1: a device without a name is built in, not a card or a stick"
    );
    assert_eq!(tree.refusal("8:1"), "/dev/sda1: this is only a partition: name the whole device, /dev/sda");
    tree.put(&format!("{SDA}/ro"), "1\n");
    assert!(tree.refusal("8:0").contains("write-protected"));
    tree.put(&format!("{SDA}/ro"), "0\n");
    tree.put(&format!("{SDA}/size"), "0\n");
    assert!(tree.refusal("8:0").contains("there is no card in it"));
}

#[test]
fn what_the_system_does_not_tell_is_an_error() {
    let tree = Tree::new();
    let error = |numbers: &str| format!("{:#}", Facts::of(numbers, &tree.places).unwrap_err());
    assert!(error("8:99").contains("the kernel shows nothing at"));
    tree.put(&format!("{SDA}/size"), "many\n");
    assert!(error("8:0").ends_with("sda/size contains no valid size"));
    tree.put(&format!("{SDA}/size"), "1\n");
    std::fs::remove_file(tree.dir.path().join("proc/self/mountinfo")).unwrap();
    assert!(error("8:0").contains("mountinfo: No such file"), "who knows what is mounted then");
}

#[test]
fn what_is_neither_device_nor_file_is_refused() {
    let places = Places::default();
    let error = |path: &str| format!("{:#}", Device::examine(Path::new(path), &places).unwrap_err());
    assert!(error("/dev/null").starts_with("/dev/null is a character device: expected a card's device"));
    assert!(error("/").starts_with("/ is a folder"));
    assert!(error("/dev/sdzz").contains("no such device; `lsblk` lists"));
    assert!(error("/nowhere/card.img").contains("no folder for a file"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("card.img");
    assert!(Device::examine(&file, &places).unwrap().is_new());
    write(&file, "old").unwrap();
    let device = Device::examine(&file, &places).unwrap();
    assert!(!device.is_new() && device.to_string().ends_with("card.img is a file of 3 bytes"));
}

#[test]
fn sizes_are_as_on_the_card() {
    assert_eq!([human(512), human(268_435_456), human(31_914_983_424)], ["512 bytes", "268 MB", "31 GB"]);
}
