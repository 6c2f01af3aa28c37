//! Search for boards' files.

use crate::read::read;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use thiserror::Error;
use toml::Table;

/// Folder of the boards' files that a package installs.
pub const INSTALLED: &str = "/usr/share/dunlin/boards";

/// No board has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown board {name:?}{}", places(.known, .dirs))]
pub struct UnknownBoard {
    /// The name.
    pub name: String,
    /// The names of the known boards.
    pub known: Vec<String>,
    /// The folders that were searched.
    pub dirs: Vec<PathBuf>,
}

fn places(known: &[String], dirs: &[PathBuf]) -> String {
    let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    let dirs = dirs.join(", ");
    match known {
        [] => format!(": {dirs} contain no board; a path of a .toml file works as well"),
        _ => {
            format!("; known boards are {} ({dirs}); a path of a .toml file works as well", known.join(", "))
        }
    }
}

/// The file of a board: `board` is a name, looked up in `dirs` in turn, or a path, taken from `base`.
///
/// # Errors
/// No board has that name.
pub fn find(board: &Path, base: &Path, dirs: &[PathBuf]) -> Result<PathBuf, UnknownBoard> {
    let text = board.to_string_lossy();
    if text.contains('/') || board.extension().is_some_and(|ending| ending == "toml") {
        return Ok(base.join(board));
    }
    let candidates = dirs.iter().map(|dir| dir.join(format!("{text}.toml")));
    candidates.into_iter().find(|path| path.exists()).ok_or_else(|| UnknownBoard {
        name: text.into_owned(),
        known: boards_in(dirs),
        dirs: dirs.to_vec(),
    })
}

/// The names of the boards in `dirs`, for messages. TOML files without a `name` are other configuration and left out.
fn boards_in(dirs: &[PathBuf]) -> Vec<String> {
    let files = listed(dirs).unwrap_or_default().into_iter();
    let is_board = |path: &Path| read::<Table>(path).map_or(true, |file| file.contains_key("name"));
    files.filter(|(_, path)| is_board(path)).map(|(name, _)| name).collect()
}

/// The boards in `dirs`, by name. If two have the same name, the first folder's counts. A missing folder counts as
/// empty.
///
/// # Errors
/// A folder can't be read.
pub fn listed(dirs: &[PathBuf]) -> Result<Vec<(String, PathBuf)>> {
    let mut boards: Vec<(String, PathBuf)> = Vec::new();
    for dir in dirs.iter().filter(|dir| dir.exists()) {
        for entry in dir.read_dir().with_context(|| dir.display().to_string())? {
            let path = entry.with_context(|| dir.display().to_string())?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let is_board = path.extension().is_some_and(|ending| ending == "toml");
            if is_board && !boards.iter().any(|(known, _)| *known == name) {
                boards.push((name, path));
            }
        }
    }
    boards.sort();
    Ok(boards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, write};

    #[test]
    fn a_name_is_looked_up_and_a_path_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().join("a"), dir.path().join("b"), dir.path().join("missing")];
        for (dir, names) in dirs.iter().zip([&["one", "two"][..], &["two", "three"]]) {
            create_dir(dir).unwrap();
            for name in names {
                write(dir.join(format!("{name}.toml")), format!("name = '{name}'")).unwrap();
            }
            write(dir.join("README.md"), "").unwrap();
        }
        let of = |board: &str| find(Path::new(board), Path::new("base"), &dirs);
        assert_eq!(of("two"), Ok(dirs[0].join("two.toml")));
        assert_eq!(of("three"), Ok(dirs[1].join("three.toml")));
        assert_eq!(of("x.toml"), Ok("base/x.toml".into()));
        assert_eq!(of("./x"), Ok("base/./x".into()));
        assert_eq!(of("/x.toml"), Ok("/x.toml".into()));
        write(dirs[1].join("agent.toml"), "device = 'a'").unwrap();
        write(dirs[1].join("torn.toml"), "name = 'tor").unwrap();
        let said = of("four").unwrap_err().to_string();
        assert!(
            said.starts_with("unknown board \"four\"; known boards are one, three, torn, two ("),
            "{said}"
        );
        let said = find(Path::new("four"), Path::new(""), &dirs[2..]).unwrap_err().to_string();
        assert!(said.contains("contain no board; a path"), "{said}");
        let names: Vec<_> = listed(&dirs).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["agent", "one", "three", "torn", "two"]);
    }
}
