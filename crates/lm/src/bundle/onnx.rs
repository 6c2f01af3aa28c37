//! The place of an ONNX file and of the files that belong to it.

use super::{ModelDir, files_with, hugging_face, manifest};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Names of files that hold the same model, the best for a board first: 4 bits before floats. Others come behind them:
/// those of 8 bits run slowly.
const PREFERRED: [&str; 7] = [
    "model_q4.onnx",
    "model_q4f16.onnx",
    "model.onnx",
    "model_fp16.onnx",
    "decoder_model_merged.onnx",
    "decoder_with_past_model.onnx",
    "decoder.onnx",
];

/// Most other files named in a message.
const NAMED_MAX: usize = 8;

/// The folder in which model hubs keep ONNX files.
const SUBFOLDER: &str = "onnx";

/// ONNX files of a directory and of its folder `onnx`, the one to take first.
///
/// # Errors
/// A directory can't be read.
pub(super) fn candidates(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files_in(directory)?;
    let subfolder = directory.join(SUBFOLDER);
    if subfolder.is_dir() {
        files.extend(files_in(&subfolder)?);
    }
    Ok(files)
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files_with(directory, "onnx")?;
    let place = |file: &PathBuf| {
        let name = file.file_name();
        PREFERRED.iter().position(|known| name.is_some_and(|name| name == *known)).unwrap_or(PREFERRED.len())
    };
    files.sort_by_key(place);
    Ok(files)
}

/// Opens the first of a directory's [`candidates`]. With several, a warning says which it is.
pub(super) fn open_first(directory: &Path, files: Vec<PathBuf>) -> Result<ModelDir> {
    let mut files = files.into_iter();
    let Some(first) = files.next() else {
        return Err(Error::value(directory, "weights", "an .onnx file", "none"));
    };
    let others: Vec<String> = files.map(|file| file.display().to_string()).collect();
    if !others.is_empty() {
        let more = if others.len() > NAMED_MAX { ", …" } else { "" };
        let (taken, others) = (first.display(), others[..others.len().min(NAMED_MAX)].join(", "));
        tracing::warn!("taken of several models: {taken}; to take another, give its path: {others}{more}");
    }
    hugging_face::open_onnx(directory, first)?.prompted()
}

/// Opens an ONNX file with the files beside it, or above it if it is in a folder `onnx`.
pub(super) fn open_file(path: &Path) -> Result<ModelDir> {
    path.metadata().map_err(|error| Error::io(path, error))?;
    let folder = parent(path);
    let is_sub = folder.file_name().is_some_and(|name| name == SUBFOLDER);
    let folder = if is_sub && !folder.join("tokenizer.json").exists() { parent(folder) } else { folder };
    if folder.join("model.toml").exists() {
        let dir = manifest::open(folder)?;
        if is_same(&dir.weights, path) {
            return Ok(dir);
        }
        let (file, own) = (folder.join("model.toml"), dir.weights.display());
        tracing::warn!("{} is left out: it describes {own}, not {}", file.display(), path.display());
    }
    hugging_face::open_onnx(folder, path.into())?.prompted()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
