//! Models that can't be loaded as they are: imported when they are first used, and kept beside their source.

use crate::hugging_face;
use crate::import::{Destination, HeadBits, Import, import_to};
use crate::layers::LayerChoice;
use crate::report::ImportReport;
use crate::watch::Watch;
use dunlin_lm::bundle::weights_of;
use dunlin_lm::{Error, Result, Role};
use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The record of the source in a folder that was imported on first use.
const RECORD: &str = "source.txt";
/// First line of a record. Another one means that this program makes something else of the same source.
const RECORD_FORM: &str = "dunlin import 1";
/// Most files of a record: the weights' parts, and what is beside them.
const RECORD_FILES_MAX: usize = 2048;

/// A model as it can be loaded.
#[derive(Debug)]
pub enum Loadable {
    /// At this path.
    At(PathBuf),
    /// After an import.
    Pending(PendingImport),
}

impl Loadable {
    /// The form of the model at `path` that `role` can load. A drafter is made of a GGUF file or of safetensors, a target
    /// of safetensors.
    ///
    /// # Errors
    /// A folder can't be read.
    pub fn of(path: &Path, role: Role) -> Result<Self> {
        if path.join("model.toml").exists() {
            return Ok(Self::At(path.into()));
        }
        let weights = weights_of(path)?;
        let is = |wanted: &str| {
            weights.as_ref().is_some_and(|file| file.extension().is_some_and(|found| found == wanted))
        };
        let is_folder = hugging_face::is_source(path);
        let (source, out) = match (role, weights.as_ref()) {
            // Safetensors first: their numbers are rounded once, those of a GGUF file the second time.
            (Role::Drafter, _) if is_folder && !is("onnx") => (path, path.join("dunlin-drafter")),
            (Role::Drafter, Some(file)) if is("gguf") => {
                (file.as_path(), file.with_extension("dunlin-drafter"))
            }
            (Role::Target, _) if is_folder && !is("gguf") => (path, path.join("dunlin-target")),
            _ => return Ok(Self::At(path.into())),
        };
        let pending = PendingImport { record: record(source)?, source: source.into(), out, role };
        Ok(if pending.is_made()? { Self::At(pending.out) } else { Self::Pending(pending) })
    }
}

/// An import that must be made before a model can be loaded.
#[derive(Debug)]
pub struct PendingImport {
    /// A GGUF file, or a folder of safetensors.
    pub source: PathBuf,
    /// The folder that keeps the result.
    pub out: PathBuf,
    role: Role,
    record: String,
}

impl fmt::Display for PendingImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is imported once, into {}", self.source.display(), self.out.display())
    }
}

impl PendingImport {
    /// Makes the folder; returns the report, or `None` if another program made it meanwhile. A folder of an older source
    /// is replaced.
    ///
    /// # Errors
    /// As [`crate::import`]; or `out` holds something else.
    pub fn run(&self, watch: &mut Watch<'_>) -> Result<Option<ImportReport>> {
        let parent =
            self.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The lock is the folder's own: it leaves no file, and ends with this program.
        let folder = File::open(parent).map_err(|error| Error::io(parent, error))?;
        folder.lock().map_err(|error| Error::io(parent, error))?;
        if self.is_made()? {
            return Ok(None);
        }
        let import = Import {
            source: self.source.clone(),
            out: self.out.clone(),
            name: None,
            role: self.role,
            layers: LayerChoice::All,
            head: HeadBits::Measured,
        };
        import_to(&import, Destination::Kept { record: (RECORD, &self.record) }, watch).map(Some)
    }

    /// True if the folder was made of the source as it is now.
    fn is_made(&self) -> Result<bool> {
        let file = self.out.join(RECORD);
        match fs::read_to_string(&file) {
            Ok(found) => Ok(found == self.record),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let is_empty = self.out.read_dir().is_ok_and(|mut entries| entries.next().is_none());
                if self.out.exists() && !is_empty {
                    let expected = format!("nothing, or what was imported on first use, with its {RECORD}");
                    let found = "something else: give its path as the model, or remove it";
                    return Err(Error::value(&self.out, "folder", expected, found));
                }
                Ok(false)
            }
            Err(error) => Err(Error::io(&file, error)),
        }
    }
}

/// Names, sizes and times of the files that an import reads.
fn record(source: &Path) -> Result<String> {
    let wrong = |error| Error::io(source, error);
    let mut files = Vec::new();
    if source.is_dir() {
        for entry in source.read_dir().map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            let kinds = ["json", "safetensors", "jinja", "model"];
            let counts = path.extension().is_some_and(|found| kinds.iter().any(|kind| found == *kind));
            if counts && path.is_file() {
                files.push(path);
            }
        }
    } else {
        files.push(source.into());
        // A tokenizer beside a GGUF file is read with it.
        files.extend(Some(source.with_file_name("tokenizer.json")).filter(|file| file.is_file()));
    }
    if files.len() > RECORD_FILES_MAX {
        return Err(Error::value(source, "files", format!("at most {RECORD_FILES_MAX}"), files.len()));
    }
    files.sort();
    let mut record = format!("{RECORD_FORM}\n");
    for file in files {
        let metadata = file.metadata().map_err(|error| Error::io(&file, error))?;
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let nanoseconds = modified.map_or(0, |time| time.as_nanos());
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        record.push_str(&format!("{} bytes, changed at {nanoseconds} ns: {:?}\n", metadata.len(), name));
    }
    Ok(record)
}
