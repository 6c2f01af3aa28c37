//! Keys of earlier versions: rewrites a configuration file with today's keys, keeping its comments, and refuses old
//! keys. A file from before TLS, whose broker is on another machine, gets the permission to do without TLS.
//!
//! Invariant: the password's own file is on the disk before the configuration is replaced, in one step. So an
//! interruption leaves either the old or the new configuration, and never loses the password.

use crate::address::BrokerAddress;
use crate::login::Secret;
use anyhow::{Context, Result, anyhow, bail};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, Item, Key, Table, Value};

/// Keys that were at the top level, and their names under `[mqtt]` now.
const OLD_KEYS: [(&str, &str); 3] =
    [("username", "user"), (PASSWORD, "password_file"), ("keep_alive_s", "keep_alive_seconds")];
/// The key whose value moved to a file of its own.
const PASSWORD: &str = "password";
/// The table of the new keys.
const TABLE: &str = "mqtt";
/// The permission to do without TLS.
const INSECURE: &str = "insecure";
/// The comment above that permission.
const INSECURE_COMMENT: &str = "# Set on an upgrade, so that this program keeps its broker, which has no TLS: everybody on the way can read and\n\
     # change the text. Use mqtts:// (see dunlin-fleet), and remove this line.\n";
/// Mode of a file with a password.
const PRIVATE: u32 = 0o600;

/// A configuration with today's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The configuration.
    pub text: String,
    /// The password that the configuration contained, for a file of its own.
    pub password: Option<Secret>,
    /// The broker's address, if plain MQTT to another machine had to be allowed.
    pub plain: Option<String>,
}

/// The result of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Migrated {
    /// The configuration has no old keys.
    Unchanged,
    /// The configuration was rewritten.
    Rewritten {
        /// The file of the password that it contained.
        password: Option<PathBuf>,
        /// The broker's address, if plain MQTT to another machine had to be allowed.
        plain: Option<String>,
    },
}

impl Migrated {
    /// A line for the user.
    pub fn report(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Unchanged => format!("{path}: nothing to rewrite"),
            Self::Rewritten { password, plain } => {
                let password =
                    password.as_ref().map(|file| format!("; its password is in {}", file.display()));
                let plain = plain.as_ref().map(|broker| {
                    format!(
                        "; warning: {broker} has no TLS, so everybody on the way can read and change the text, and \
                         {TABLE}.{INSECURE} = true was added: use mqtts://, see dunlin-fleet"
                    )
                });
                let (password, plain) = (password.unwrap_or_default(), plain.unwrap_or_default());
                format!("{path}: rewritten with today's keys{password}{plain}")
            }
        }
    }
}

/// Refuses a configuration with old keys; `path` is for the message, `text` is the content.
///
/// # Errors
/// Names the first old key, its line, and its new name. The value is not shown.
pub fn refuse_old_keys(path: &Path, text: &str) -> Result<()> {
    // Leave invalid TOML to the configuration's own reader.
    let Ok(document) = toml_edit::Document::parse(text) else { return Ok(()) };
    let found = OLD_KEYS.iter().filter_map(|(old, new)| {
        let (key, _) = document.as_table().get_key_value(old)?;
        Some((key.span().map_or(0, |span| span.start), *old, *new))
    });
    let Some((at, old, new)) = found.min() else { return Ok(()) };
    let what = if old == PASSWORD { ", a file with nothing but the password" } else { "" };
    bail!(
        "{}:{}: {old} is now {new} under [{TABLE}]{what}; the command migrate-config rewrites the file",
        path.display(),
        line_of(text, at)
    )
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Rewrites the file at `path` with today's keys. A password in it moves to a file beside it, readable only for the
/// owner of `path`.
///
/// # Errors
/// The file can't be read, parsed or rewritten; it is then unchanged.
pub fn migrate(path: &Path) -> Result<Migrated> {
    let shown = || path.display().to_string();
    let path = fs::canonicalize(path).with_context(shown)?;
    let text = fs::read_to_string(&path).with_context(shown)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let password_file = format!("{stem}.mqtt-password");
    let Some(migration) = renewed(&text, &password_file).with_context(shown)? else {
        return Ok(Migrated::Unchanged);
    };
    let place = path.with_file_name(&password_file);
    let password = migration.password.as_ref();
    if let Some(password) = password {
        let line = format!("{}\n", password.expose());
        put_password(&place, line.as_bytes(), &path).with_context(|| place.display().to_string())?;
    }
    replace(&path, migration.text.as_bytes()).with_context(shown)?;
    Ok(Migrated::Rewritten { password: password.map(|_| place), plain: migration.plain })
}

/// The configuration with today's keys, which names `password_file` instead of a password; `None` without old keys and
/// without a broker that the permission to do without TLS is missing for.
///
/// # Errors
/// It is not TOML, or contains an old key and its new one.
pub fn renewed(text: &str, password_file: &str) -> Result<Option<Migration>> {
    let mut document = text.parse::<DocumentMut>().map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        anyhow!("line {line}: {}", error.message())
    })?;
    let names = document.as_table().iter().map(|(name, _)| name.to_owned());
    let old: Vec<(String, &str)> = names
        .filter_map(|name| {
            let (_, new) = OLD_KEYS.iter().find(|(old, _)| *old == name)?;
            Some((name, *new))
        })
        .collect();
    let plain = plain_broker(&document);
    if old.is_empty() && plain.is_none() {
        return Ok(None);
    }
    let (mut moved, mut password) = (Vec::new(), None);
    // In reverse order, because a removed key leaves other comments to the key after it.
    for (old, new) in old.into_iter().rev() {
        let (key, mut item) = take(&mut document, &old).context("a key that was just seen")?;
        if old == PASSWORD {
            let text = item.as_str().context("password is not a text")?;
            password = Some(Secret::new(text));
            replace_value(&mut item, password_file);
        }
        moved.push((old, new, key, item));
    }
    let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
    let table = document.as_table_mut().entry(TABLE).or_insert_with(|| {
        let mut table = Table::new();
        // Comments at the end of the file stay above the new table.
        table.decor_mut().set_prefix(format!("{trailing}\n"));
        Item::Table(table)
    });
    for (old, new, key, item) in moved.into_iter().rev() {
        put(table, new, &key, item).with_context(|| format!("{old} and {TABLE}.{new}"))?;
    }
    if plain.is_some() {
        allow_plain(table).context(INSECURE)?;
    }
    let is_new = table.as_table().is_some_and(|table| table.position().is_none());
    if is_new {
        document.set_trailing("");
    }
    Ok(Some(Migration { text: document.to_string(), password, plain }))
}

/// The address of a broker on another machine that has no TLS, where the file doesn't say if that is allowed.
fn plain_broker(document: &DocumentMut) -> Option<String> {
    let broker: BrokerAddress = document.get("broker")?.as_str()?.parse().ok()?;
    let decided = document.get(TABLE).is_some_and(|table| table.get(INSECURE).is_some());
    (!broker.tls && !broker.is_loopback() && !decided).then(|| broker.url())
}

/// Adds the permission to do without TLS.
fn allow_plain(table: &mut Item) -> Result<()> {
    if let Some(table) = table.as_table_mut() {
        let mut key = Key::new(INSECURE);
        key.leaf_decor_mut().set_prefix(INSECURE_COMMENT);
        table.insert_formatted(&key, Item::Value(Value::from(true)));
        return Ok(());
    }
    table.as_inline_table_mut().context("mqtt is not a table")?.insert(INSECURE, Value::from(true));
    Ok(())
}

/// Removes a key with the comment directly above it; earlier comments move to whatever follows.
fn take(document: &mut DocumentMut, name: &str) -> Option<(Key, Item)> {
    let root = document.as_table_mut();
    let next = root.iter().skip_while(|(key, _)| *key != name).nth(1).map(|(key, _)| key.to_owned());
    let (mut key, item) = root.remove_entry(name)?;
    let prefix = key.leaf_decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned();
    let (before, own) = prefix.split_at(comment_of(&prefix));
    key.leaf_decor_mut().set_prefix(own);
    if before.is_empty() {
        return Some((key, item));
    }
    let joined = |after: Option<&str>| format!("{before}{}", after.unwrap_or_default());
    match next {
        None => {
            let trailing = joined(document.trailing().as_str());
            document.set_trailing(trailing);
        }
        Some(next) => match root.get_mut(&next) {
            Some(Item::Table(table)) => {
                let prefix = joined(table.decor().prefix().and_then(|prefix| prefix.as_str()));
                table.decor_mut().set_prefix(prefix);
            }
            _ => {
                let mut next = root.key_mut(&next)?;
                let prefix = joined(next.leaf_decor().prefix().and_then(|prefix| prefix.as_str()));
                next.leaf_decor_mut().set_prefix(prefix);
            }
        },
    }
    Some((key, item))
}

/// The start of the comment directly above a key. Only prose counts, not commented-out keys.
fn comment_of(prefix: &str) -> usize {
    let mut start = prefix.len();
    for line in prefix.split_inclusive('\n').rev() {
        if !line.starts_with("# ") {
            break;
        }
        start -= line.len();
    }
    start
}

/// Inserts a value under its new name, with the comments of its old one.
fn put(table: &mut Item, name: &str, old: &Key, item: Item) -> Result<()> {
    if let Some(table) = table.as_table_mut() {
        if table.contains_key(name) {
            bail!("both are set: remove one");
        }
        table.insert_formatted(&Key::new(name).with_leaf_decor(old.leaf_decor().clone()), item);
        return Ok(());
    }
    let table = table.as_inline_table_mut().context("mqtt is not a table")?;
    let mut value = item.into_value().map_err(|_| anyhow!("it is not a value"))?;
    value.decor_mut().clear();
    match table.insert(name, value) {
        None => Ok(()),
        Some(_) => bail!("both are set: remove one"),
    }
}

fn replace_value(item: &mut Item, text: &str) {
    let mut new = Value::from(text);
    if let Some(old) = item.as_value() {
        *new.decor_mut() = old.decor().clone();
    }
    *item = Item::Value(new);
}

/// Writes the password's file for the owner of `config`. A file with the same content is accepted, because an
/// interrupted migration leaves it.
fn put_password(place: &Path, line: &[u8], config: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(place) {
        Ok(file) => filled(file, line, config),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if fs::read(place)? != line {
                bail!(
                    "it is there already, with another content: remove it, or name it as mqtt.password_file"
                );
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Replaces a file in one step, keeping mode and owner.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().context("it has no name")?.to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let old = path.metadata()?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(&fresh)?;
    file.set_permissions(old.permissions())?;
    filled(file, bytes, path)?;
    fs::rename(&fresh, path)?;
    let dir = path.parent().context("it has no folder")?;
    Ok(File::open(dir)?.sync_all()?)
}

/// Writes a new file to the disk, with the owner of the file `like`.
fn filled(mut file: File, bytes: &[u8], like: &Path) -> Result<()> {
    let (wanted, own) = (like.metadata()?, file.metadata()?);
    if (wanted.uid(), wanted.gid()) != (own.uid(), own.gid()) {
        fchown(&file, Some(wanted.uid()), Some(wanted.gid())).context("its owner")?;
    }
    file.write_all(bytes)?;
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const OLD: &str = "\
# The configuration.

# The target.
model = \"target\"
# a-z and 0-9.
#id = \"verifier-1\"
# Where the address has none.
username = \"me\" # that's me
# Not for everybody.
password = 'hush'
#threads = 3
# At least 5.
keep_alive_s = 20
drain_s = 10
# What devices report.
#energy_log = \"e\"
";

    const NEW: &str = "\
# The configuration.

# The target.
model = \"target\"
# a-z and 0-9.
#id = \"verifier-1\"
#threads = 3
drain_s = 10
# What devices report.
#energy_log = \"e\"

[mqtt]
# Where the address has none.
user = \"me\" # that's me
# Not for everybody.
password_file = \"p\"
# At least 5.
keep_alive_seconds = 20
";

    fn text(old: &str) -> String {
        renewed(old, "p").unwrap().unwrap().text
    }

    #[test]
    fn keys_move_with_their_comments_and_the_rest_stays() {
        let migration = renewed(OLD, "p").unwrap().unwrap();
        assert_eq!(migration.text, NEW);
        assert_eq!(migration.password, Some(Secret::new("hush")));
        assert_eq!(renewed(NEW, "p").unwrap(), None, "once is enough");
    }

    #[test]
    fn a_table_that_is_there_takes_them() {
        let old = "username = 'a'\n\n[mqtt]\nkeep_alive_seconds = 9\n\n[policy]\nname = 'x'\n";
        assert_eq!(text(old), "\n[mqtt]\nkeep_alive_seconds = 9\nuser = 'a'\n\n[policy]\nname = 'x'\n");
        assert_eq!(text("username = 'a'\nmqtt = { }\n").replace("  ", " "), "mqtt = { user = 'a' }\n");
        assert_eq!(text("keep_alive_s = 7"), "\n[mqtt]\nkeep_alive_seconds = 7\n");
    }

    #[test]
    fn a_plain_broker_elsewhere_is_allowed_once_where_the_file_does_not_decide() {
        let allowed =
            |text: &str| renewed(text, "p").unwrap().map(|migration| (migration.text, migration.plain));
        let url = Some("mqtt://192.168.1.10:1883".to_owned());
        let (text, plain) = allowed("broker = 'me:hush@192.168.1.10'\n").unwrap();
        assert_eq!(
            text,
            format!("broker = 'me:hush@192.168.1.10'\n\n[mqtt]\n{INSECURE_COMMENT}insecure = true\n")
        );
        assert_eq!(plain, url);
        assert_eq!(allowed(&text), None, "once is enough");
        let (text, _) = allowed("broker = '192.168.1.10'\nmqtt = { user = 'a' }\n").unwrap();
        assert!(text.contains("user = 'a'") && text.contains("insecure = true"), "{text}");
        for kept in [
            "broker = 'mqtts://192.168.1.10'",
            "broker = 'localhost'",
            "broker = '192.168.1.10'\n[mqtt]\ninsecure = false",
            "broker = '::'",
            "",
        ] {
            assert_eq!(allowed(kept), None, "{kept}");
        }
        let (text, plain) = allowed("broker = '192.168.1.10'\nusername = 'a'\n").unwrap();
        assert!(text.contains("user = 'a'") && text.contains("insecure = true"), "{text}");
        let report = Migrated::Rewritten { password: None, plain }.report(Path::new("a.toml"));
        assert!(report.contains("warning: mqtt://192.168.1.10:1883 has no TLS"), "{report}");
        assert!(!report.contains("hush"), "{report}");
    }

    #[test]
    fn what_can_not_be_rewritten_is_named_without_its_value() {
        for (old, words) in [
            ("username = 'a'\n[mqtt]\nuser = 'b'\n", "username and mqtt.user: both are set"),
            ("username = 'a'\nmqtt = { user = 'b' }\n", "both are set"),
            ("password = 7\n", "password is not a text"),
            ("username = 'a'\nmqtt = 3\n", "not a table"),
            ("a = 1\npassword = 'hush\n", "line 2: "),
        ] {
            let error = format!("{:#}", renewed(old, "p").unwrap_err());
            assert!(error.contains(words) && !error.contains("hush"), "{old}: {error}");
        }
    }

    #[test]
    fn an_old_key_is_refused_with_its_line_and_its_new_name() {
        let refused = |text: &str| refuse_old_keys(Path::new("v.toml"), text).unwrap_err().to_string();
        assert!(refused(OLD).starts_with("v.toml:8: username is now user under [mqtt]; the command"));
        let password = refused("id = 'a'\n\npassword = 'hush'\n");
        assert!(password.starts_with("v.toml:3: password is now password_file under [mqtt], a file with"));
        assert!(!password.contains("hush"), "{password}");
        assert!(refused("keep_alive_s = 1").contains(":1: keep_alive_s is now keep_alive_seconds"));
        assert!(refuse_old_keys(Path::new("v.toml"), NEW).is_ok());
        assert!(refuse_old_keys(Path::new("v.toml"), "= broken").is_ok());
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_the_password_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("verifier.toml");
        fs::write(&path, OLD).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let Migrated::Rewritten { password: Some(place), plain: None } = migrate(&path).unwrap() else {
            panic!("no password")
        };
        assert_eq!(place.file_name().unwrap(), "verifier.mqtt-password");
        assert_eq!(fs::read_to_string(&place).unwrap(), "hush\n");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&place), mode(&path)), (0o600, 0o640));
        assert_eq!(fs::read_to_string(&path).unwrap(), NEW.replace("\"p\"", "\"verifier.mqtt-password\""));
        assert_eq!(migrate(&path).unwrap(), Migrated::Unchanged);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn a_password_that_is_there_already_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (path, place) = (dir.path().join("v.toml"), dir.path().join("v.mqtt-password"));
        fs::write(&path, OLD).unwrap();
        fs::write(&place, "other\n").unwrap();
        assert!(format!("{:#}", migrate(&path).unwrap_err()).contains("there already"));
        assert_eq!(fs::read_to_string(&path).unwrap(), OLD);
        fs::write(&place, "hush\n").unwrap();
        assert_eq!(
            migrate(&path).unwrap(),
            Migrated::Rewritten { password: Some(place), plain: None },
            "a migration that was cut goes on"
        );
    }
}
