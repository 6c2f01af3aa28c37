//! The identity of a target: its name, its weights, and its engine and numerics, which determine its bits.

use crate::bundle::hex;
use crate::error::{Error, Result};
use dunlin_gguf::{Header, TensorInfo};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

pub mod cache;

/// The first bytes of what is hashed of tensors: the version of the rules.
const WEIGHTS_RULES: &[u8] = b"dunlin weights 1\0";

/// The first bytes of what is hashed of tensors and settings: the version of the rules.
const MODEL_RULES: &[u8] = b"dunlin model 1\0";

/// Bytes that are hashed at once.
const PIECE_BYTES: usize = 1 << 20;

/// The identity of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetIdentity {
    /// The model's name.
    pub model: String,
    /// SHA-256 over the weights and the settings that they are used with: see [`model_digest`].
    pub weights: [u8; 32],
    /// The engine and its version.
    pub engine: String,
    /// The kernels and the cache type, which determine the bits.
    pub numerics: String,
}

impl TargetIdentity {
    /// SHA-256 over engine and numerics, separated by a zero byte.
    pub fn numerics_digest(&self) -> [u8; 32] {
        let text = format!("{}\0{}", self.engine, self.numerics);
        Sha256::digest(text.as_bytes()).into()
    }

    /// The weights' digest in hexadecimal digits.
    pub fn weights_hex(&self) -> String {
        hex(&self.weights)
    }
}

impl fmt::Display for TargetIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, weights, engine, numerics } = self;
        write!(f, "{model}, weights {}, {engine}, {numerics}", hex(&weights[..6]))
    }
}

/// SHA-256 over a version, the digest of a model's tensors, and every other number that its logits depend on.
///
/// Numbers have 64 bits, the lowest byte first. Which numbers in which order is the engine's matter.
pub fn model_digest(tensors: &[u8; 32], settings: &[u64]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(MODEL_RULES);
    digest.update(tensors);
    settings.iter().for_each(|setting| digest.update(setting.to_le_bytes()));
    digest.finalize().into()
}

/// SHA-256 over the tensors of GGUF files, whatever their order and however they are split over files.
///
/// The hashed bytes are a version, then for each tensor, ordered by name: the name's length and bytes, the type's
/// number, the number of dimensions and each of them, slowest first, and the tensor's bytes. Numbers have 64 bits,
/// lowest byte first. `progress` is called with the bytes hashed so far and those of all tensors.
///
/// # Errors
/// A file can't be read or isn't in its format, or a tensor is in two files.
pub fn weights_digest(paths: &[&Path], progress: &mut dyn FnMut(u64, u64)) -> Result<[u8; 32]> {
    let mut files = Vec::with_capacity(paths.len());
    let mut tensors: Vec<(usize, String, TensorInfo)> = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let bytes = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let header = Header::read(&mut BufReader::new(&file), bytes).map_err(|e| Error::gguf(path, e))?;
        tensors.extend(header.tensors().iter().map(|(name, info)| (index, name.clone(), info.clone())));
        files.push(file);
    }
    tensors.sort_by(|a, b| a.1.cmp(&b.1));
    if let Some([_, (index, name, _)]) = tensors.windows(2).find(|pair| pair[0].1 == pair[1].1) {
        return Err(Error::format(
            paths[*index],
            "GGUF",
            format!("tensor {name} is in another file as well"),
        ));
    }
    let total = tensors.iter().map(|(_, _, info)| info.bytes).sum();
    let (mut digest, mut done) = (Sha256::new(), 0);
    digest.update(WEIGHTS_RULES);
    for (index, name, info) in &tensors {
        describe(&mut digest, name, info);
        let counted = &mut |bytes| {
            done += bytes;
            progress(done, total);
        };
        hash(&mut digest, &mut files[*index], info, counted).map_err(|e| Error::io(paths[*index], e))?;
    }
    Ok(digest.finalize().into())
}

fn describe(digest: &mut Sha256, name: &str, info: &TensorInfo) {
    let mut number = |number: u64| digest.update(number.to_le_bytes());
    number(name.len() as u64);
    digest.update(name.as_bytes());
    let mut number = |number: u64| digest.update(number.to_le_bytes());
    number(info.kind.number().into());
    number(info.shape.len() as u64);
    info.shape.iter().for_each(|size| number(*size));
}

fn hash(
    digest: &mut Sha256,
    file: &mut File,
    info: &TensorInfo,
    counted: &mut dyn FnMut(u64),
) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(info.offset))?;
    let mut left = info.bytes;
    let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
    while left > 0 {
        let size = piece.len().min(usize::try_from(left).unwrap_or(piece.len()));
        file.read_exact(&mut piece[..size])?;
        digest.update(&piece[..size]);
        left -= size as u64;
        counted(size as u64);
    }
    Ok(())
}
