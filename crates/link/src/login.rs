//! User name and password for a broker.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// The name of the password among a service's credentials.
pub const MQTT_PASSWORD: &str = "dunlin.mqtt-password";

/// User name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// A text that `Debug` doesn't show.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text` from `Debug`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A file's text without its line end.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::read_to_string(path)?.trim_end_matches(['\r', '\n']).into()))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let login = Login { user: "a".into(), password: Secret::new("hush") };
        assert_eq!(format!("{login:?}"), "Login { user: \"a\", password: *** }");
    }
}
