//! A card and a data partition in a folder: the effects of a set-up file, with a power failure at every step.

mod card;

use super::disk::DiskStep;
use super::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me";
const FULL: &str = "name = plover-1\nbroker = mqtt://10.0.0.1\nbroker_user = plover-1\nbroker_password = s3cret\n\
    wifi_ssid = Home\nwifi_password = open sesame\n";
const AGENT: &str = "dunlin/etc/agent.toml";
const PASSWORD: &str = "dunlin/credstore/dunlin.mqtt-password";
const WIFI: &str = "network/wpa_supplicant-wlan0.conf";

/// A board with a card.
struct Board {
    dir: TempDir,
}

/// The content of every file, by path.
type Files = BTreeMap<String, String>;

impl Board {
    fn new() -> Self {
        let board = Self { dir: TempDir::new().unwrap() };
        fs::create_dir(board.dir.path().join("fat")).unwrap();
        fs::create_dir(board.dir.path().join("data")).unwrap();
        board
    }

    fn with(text: &str) -> Self {
        let board = Self::new();
        board.fill_in(text);
        board
    }

    fn fill_in(&self, text: impl AsRef<[u8]>) {
        fs::write(self.file(), text).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("fat/dunlin.txt")
    }

    fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::create_dir_all(self.data(name).parent().unwrap()).unwrap();
        fs::write(self.data(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.data(name)).unwrap()
    }

    fn card(&self) -> Card {
        Card {
            file: self.file(),
            places: DataPlaces::of(&self.data("")),
            defaults: Defaults { board: Some("rpi4".into()), model: "/models/drafter".into() },
        }
    }

    /// Boots once.
    fn boots(&self) -> Provisioned {
        self.boots_on(&mut DataDisk::new())
    }

    fn boots_on(&self, disk: &mut DataDisk<'_>) -> Provisioned {
        let card = self.card();
        let standing = Standing::read(&card.places).unwrap();
        let found = look(&card.file, &standing).unwrap();
        take(&card, &standing, &found, disk)
    }

    fn mistakes(&self) -> Vec<String> {
        let taken = self.boots();
        assert_eq!(taken.outcome, ProvisionOutcome::Invalid);
        taken.wrong.unwrap().lines()
    }

    fn files(&self) -> Files {
        let mut files = Files::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(self.dir.path()).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
                }
            }
        }
        files
    }
}

#[test]
fn a_good_file_sets_a_board_up_and_is_gone() {
    let board = Board::with(&format!("{FULL}wifi_country = de\nssh_key = {KEY}\n"));
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    let files: Vec<_> = board.files().into_iter().map(|(name, text)| format!("== {name}\n{text}")).collect();
    insta::assert_snapshot!(files.join("\n"));
    for (name, mode) in [(AGENT, PUBLIC), (PASSWORD, SECRET), (WIFI, SECRET), ("ssh/authorized_keys", SECRET)]
    {
        assert_eq!(fs::metadata(board.data(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    let before = board.files();
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done, "the boot after");
    assert_eq!(board.files(), before);
}

#[test]
fn a_later_file_changes_what_it_names() {
    let board = Board::with(FULL);
    board.boots();
    let before = board.files();
    board.fill_in("wifi_ssid = Cellar\nwifi_password = 0123456789\n");
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    let mut after = board.files();
    let wifi = after.insert(format!("data/{WIFI}"), before[&format!("data/{WIFI}")].clone()).unwrap();
    assert!(wifi.contains("Cellar") && after == before, "nothing but the network has changed");
    board.fill_in("broker = mqtt://elsewhere:1884\n");
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    assert!(board.read(AGENT).contains("broker = \"mqtt://elsewhere:1884\"\n"));
    assert!(board.read(AGENT).contains("device = \"plover-1\"\n") && board.read(PASSWORD) == "s3cret");
}

#[test]
fn what_was_edited_by_hand_stays() {
    let board = Board::with(FULL);
    let edited = "# mine\ndevice = 'old' # the name\nmodel = \"/my/model\"\nboard = \"rpi5\"\n\n# how\n[policy]\nname = \
        \"hlm\" # slow\n\n[mqtt]\npassword_file = \"secret\"\nkeep_alive_seconds = 20\n";
    board.put(AGENT, edited);
    board.put("ssh/authorized_keys", "ssh-rsa AAAA other");
    board.fill_in(format!("{FULL}ssh_key = {KEY}\n"));
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    insta::assert_snapshot!(board.read(AGENT));
    assert_eq!(board.read("ssh/authorized_keys"), format!("ssh-rsa AAAA other\n{KEY}\n"));
    board.fill_in(format!("ssh_key = {KEY}\n"));
    board.boots();
    assert_eq!(board.read("ssh/authorized_keys").lines().count(), 2, "no key comes twice");
}

#[test]
fn a_configuration_that_is_none_is_kept_beside_a_new_one() {
    let board = Board::with("wifi_ssid = Home\nwifi_password = 12345678\n");
    board.put(AGENT, "device = \"a\"\nbroker = \n");
    let said = board.mistakes();
    assert!(said.iter().any(|line| line.contains("agent.toml:2: ")), "{said:?}");
    board.fill_in(FULL);
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    assert_eq!(board.read("dunlin/etc/agent.toml.unreadable"), "device = \"a\"\nbroker = \n");
    assert!(board.read(AGENT).contains("device = \"plover-1\""));
}

#[test]
fn a_file_with_mistakes_changes_nothing_and_says_all_of_them() {
    let board = Board::with(
        "name = Plover 1\nbroker = mqtt://me:hunter2@host\nbroker_password = hunter2\nwifi_ssid = \
         an-SSID-of-more-than-32-characters\nwifi_password = hunter2\nwifi_country = UK\nssh_key = ssh-rsa hunter2\n\
         broker_user =\nhunter2\n",
    );
    let text = fs::read_to_string(board.file()).unwrap();
    insta::assert_snapshot!(board.mistakes().join("\n"));
    let files = board.files();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["fat/dunlin-problems.txt", "fat/dunlin.txt"]);
    assert_eq!(files["fat/dunlin.txt"], text);
    assert!(files["fat/dunlin-problems.txt"].contains("line 6: wifi_country"));
    let told = board.boots().wrong.unwrap().report();
    for said in [files["fat/dunlin-problems.txt"].as_str(), told.text.as_str()] {
        assert!(!said.contains("hunter2"), "a password is shown: {said}");
    }
    board.fill_in(FULL);
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    assert!(board.files().keys().all(|name| name.starts_with("data/")), "nothing is left on the card");
}

#[test]
fn what_belongs_together_is_asked_for_together() {
    let said = |text: &str| Board::with(&format!("name = a\nbroker = mqtt://h\n{text}")).mistakes();
    assert_eq!(said("broker_user = u\n"), ["broker_password is missing: broker_user needs it"]);
    assert_eq!(said("broker_password = p\n"), ["broker_user is missing: broker_password needs it"]);
    assert_eq!(
        said("wifi_ssid = s\n"),
        ["wifi_password is missing: a network without one needs wifi_password = open"]
    );
    assert_eq!(said("wifi_password = 12345678\n"), ["wifi_ssid is missing: wifi_password needs it"]);
    assert_eq!(said("wifi_country = de\n").len(), 2);
    let both = Board::with("wifi_ssid = s\nwifi_password = open\n").mistakes();
    assert_eq!(
        both,
        ["name is missing: this board has none yet", "broker is missing: this board has none yet"]
    );
    let open = Board::with("name = a\nbroker = mqtt://h\nwifi_ssid = s\nwifi_password = open\n");
    assert_eq!(open.boots().outcome, ProvisionOutcome::Done);
}

#[test]
fn wrong_values_are_named_with_what_to_do() {
    let said = |text: &str| {
        let lines = Board::with(&format!("name = a\nbroker = mqtt://h\n{text}")).mistakes();
        lines.into_iter().find(|line| line.starts_with("line ")).unwrap()
    };
    assert!(said("name = b").contains("line 3: name is in line 1 already"));
    let of = |text: &str| Board::with(text).mistakes().remove(0);
    for wrong in ["-a", "a-", "ä", "a b", "a_b", &"a".repeat(33)] {
        assert!(of(&format!("name = {wrong}\nbroker = mqtt://h")).contains("line 1: name: "), "{wrong}");
    }
    for (wrong, what) in [
        ("http://host", "unknown scheme"),
        ("mqtt://h:99999", "port"),
        ("mqtt://host # mine", "write a comment on a line of its own"),
        (&format!("mqtt://{}", "h".repeat(300)), "longer than 300 bytes"),
    ] {
        let line = of(&format!("broker = {wrong}\nname = a"));
        assert!(line.starts_with("line 1: broker: ") && line.contains(what), "{line}");
    }
}

#[test]
fn a_file_that_is_no_text_stays_and_is_named() {
    for bytes in [b"name = M\xfcller".to_vec(), b"n\0a\0m\0e\0".to_vec(), vec![b'#'; 20_000]] {
        let board = Board::new();
        board.fill_in(&bytes);
        assert!(!board.mistakes().is_empty());
        assert_eq!(fs::read(board.file()).unwrap(), bytes);
    }
}

#[test]
fn a_template_that_nobody_filled_in_is_no_mistake() {
    let template = include_str!("../../../boards/image/dunlin.txt");
    let board = Board::with(template);
    let taken = board.boots();
    assert!(taken.outcome == ProvisionOutcome::Done && taken.wrong.is_none());
    assert_eq!(board.files().into_values().collect::<Vec<_>>(), [template], "it waits to be filled in");
    let filled = template
        .replace("\nname =\n", "\nname = plover-1\n")
        .replace("\nbroker =\n", "\nbroker = mqtt://h\n")
        .replace("#broker_user =", "broker_user = u")
        .replace("#broker_password =", "broker_password = p")
        .replace("#wifi_ssid =", "wifi_ssid = s")
        .replace("#wifi_password =", "wifi_password = open")
        .replace("#wifi_country =", "wifi_country = gb")
        .replace("#ssh_key =", &format!("ssh_key = {KEY}"));
    let of_cards = parse::SetupKey::TLS.len() + parse::SetupKey::SEALING.len();
    let typed = parse::SetupKey::ALL.len() - of_cards;
    assert_eq!(parse::parse(&filled).entries.len(), typed, "the template has every key but those of a card");
    board.fill_in(filled);
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    assert!(!board.file().exists());
}

/// Boots with a power failure before step `at`; returns false if there are fewer steps.
fn cut(board: &Board, at: usize) -> bool {
    let (mut step, mut fell) = (0, false);
    board.boots_on(&mut DataDisk::with(|_, _| {
        step += 1;
        fell |= step > at;
        if fell { Err(io::Error::other("the power is cut")) } else { Ok(()) }
    }));
    fell
}

#[test]
fn the_power_may_be_cut_before_any_step() {
    let old = "name = old\nbroker = mqtt://old\nbroker_user = old\nbroker_password = old-password\nwifi_ssid = old\n\
        wifi_password = old password\n";
    // Longer than the head that is overwritten first.
    let new = format!("{FULL}#{}\n", "x".repeat(2000));
    let started = |text: &str| {
        let board = Board::with(old);
        board.boots();
        board.fill_in(text);
        fs::write(problems(&board.file()), "of before").unwrap();
        board
    };
    let (before, whole) = (started(&new).files(), started(&new));
    whole.boots();
    let after = whole.files();
    let mut at = 0;
    loop {
        let board = started(&new);
        if !cut(&board, at) {
            break;
        }
        for (name, text) in board.files() {
            let known = before.get(&name) == Some(&text) || after.get(&name) == Some(&text);
            let unfinished = name.ends_with(".new") || name == "fat/dunlin-problems.txt";
            assert!(known || unfinished || text.starts_with('\0'), "step {at}: {name} is neither: {text}");
        }
        assert_eq!(board.boots().outcome, ProvisionOutcome::Done, "the boot after step {at}");
        assert_eq!(board.files(), after, "after step {at}");
        at += 1;
    }
    assert!(at >= 25, "{at} steps");
}

#[test]
fn every_file_is_synced_before_the_text_is_touched() {
    let board = Board::with("name = a\nbroker = mqtt://h\n");
    let steps = RefCell::new(Vec::new());
    board.boots_on(&mut DataDisk::with(|step, path| {
        let name = path.strip_prefix(board.dir.path()).unwrap().display();
        steps.borrow_mut().push(format!("{step:?} {name}"));
        Ok(())
    }));
    insta::assert_snapshot!(steps.into_inner().join("\n"));
}

#[test]
fn without_space_nothing_changes_and_nothing_is_lost() {
    let full = |step, path: &Path| match step {
        DiskStep::Write if path.to_str().unwrap().contains("/data/") && path.ends_with("hostname.new") => {
            Err(io::Error::from(ErrorKind::StorageFull))
        }
        _ => Ok(()),
    };
    let board = Board::with(FULL);
    let taken = board.boots_on(&mut DataDisk::with(full));
    assert_eq!(taken.outcome, ProvisionOutcome::Failed);
    let said = taken.wrong.unwrap().lines();
    assert!(said[0].contains("it is valid, but could not be applied: "), "{said:?}");
    assert!(said[0].contains("hostname.new: no storage space"), "{said:?}");
    let files = board.files();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["fat/dunlin-problems.txt", "fat/dunlin.txt"]);
    assert_eq!(files["fat/dunlin.txt"], FULL);
    let problems_said = &files["fat/dunlin-problems.txt"];
    assert!(problems_said.contains("the next start tries again") && !problems_said.contains("mistake"));
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done, "with space again");
    assert!(!board.file().exists() && !problems(&board.file()).exists());
}

#[test]
fn a_card_that_cannot_be_written_is_said_and_the_board_is_set_up() {
    let locked = |_, path: &Path| match path.to_str().unwrap().contains("/fat/") {
        true => Err(io::Error::from(ErrorKind::ReadOnlyFilesystem)),
        false => Ok(()),
    };
    let board = Board::with(FULL);
    let taken = board.boots_on(&mut DataDisk::with(locked));
    assert!(taken.outcome == ProvisionOutcome::Failed && taken.wrong.is_none());
    assert!(board.read(AGENT).contains("plover-1"));
    board.fill_in("wrong");
    assert_eq!(
        board.boots_on(&mut DataDisk::with(locked)).outcome,
        ProvisionOutcome::Invalid,
        "mistakes are said all the same"
    );
}

#[test]
fn no_card_and_no_text_are_all_right_and_a_folder_is_not() {
    let board = Board::new();
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    fs::remove_dir(board.file().parent().unwrap()).unwrap();
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done, "the partition isn't mounted");
    fs::create_dir_all(board.file()).unwrap();
    let standing = Standing::read(&DataPlaces::of(&board.data(""))).unwrap();
    let error = look(&board.file(), &standing).err().unwrap();
    assert!(format!("{error:#}").contains("dunlin.txt: Is a directory"), "{error:#}");
}

#[test]
fn a_card_is_not_worn_by_the_same_problems() {
    let board = Board::with("wrong");
    board.boots();
    let steps = RefCell::new(0);
    board.boots_on(&mut DataDisk::with(|_, _| {
        *steps.borrow_mut() += 1;
        Ok(())
    }));
    assert_eq!(steps.into_inner(), 0);
}

#[test]
fn the_boards_name_comes_from_its_file() {
    let board = Board::with(FULL);
    let file = board.data("board");
    fs::write(&file, "jetson-nano\n").unwrap();
    assert_eq!(board_of(&file).as_deref(), Some("jetson-nano"));
    fs::write(&file, "\n").unwrap();
    assert_eq!((board_of(&file), board_of(Path::new("/nowhere"))), (None, None));
}
