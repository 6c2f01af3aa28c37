//! Files that are summed while they are written.

use dunlin_lm::bundle::{FileSum, hex};
use dunlin_lm::{Error, Result};
use dunlin_lm_tract::graph::Place;
use half::f16;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Tensors begin at multiples of this many bytes.
const ALIGNMENT: u64 = 64;
const BUFFER_BYTES: usize = 1 << 20;

/// A file under construction.
pub(crate) struct SummedFile {
    path: PathBuf,
    file: BufWriter<File>,
    digest: Sha256,
    written: u64,
}

impl SummedFile {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(|e| Error::io(path, e))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path: path.into(), file, digest: Sha256::new(), written: 0 })
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io(&self.path, e))?;
        self.digest.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Fills up to the place where a tensor may begin, which is returned.
    pub(crate) fn align(&mut self) -> Result<u64> {
        self.align_to(ALIGNMENT)
    }

    /// Fills up to the next multiple of `alignment`, which is returned.
    pub(crate) fn align_to(&mut self, alignment: u64) -> Result<u64> {
        let gap = self.written.next_multiple_of(alignment) - self.written;
        self.write(&vec![0; gap as usize])?;
        Ok(self.written)
    }

    /// Appends floats as a tensor.
    pub(crate) fn floats(&mut self, numbers: &[f32]) -> Result<Place> {
        let offset = self.align()?;
        for numbers in numbers.chunks(1 << 14) {
            self.write(&little_endian(numbers))?;
        }
        Ok(self.place(offset))
    }

    /// Appends numbers as 16-bit floats, which must hold them, as a tensor.
    pub(crate) fn halves(&mut self, numbers: &[f32]) -> Result<Place> {
        let offset = self.align()?;
        for numbers in numbers.chunks(1 << 14) {
            let bytes: Vec<u8> =
                numbers.iter().flat_map(|number| f16::from_f32(*number).to_le_bytes()).collect();
            self.write(&bytes)?;
        }
        Ok(self.place(offset))
    }

    /// The place of what was written from `offset` on.
    pub(crate) fn place(&self, offset: u64) -> Place {
        Place { offset, length: self.written - offset }
    }

    /// The file so far, to be read.
    pub(crate) fn reader(&mut self) -> Result<(PathBuf, File)> {
        let opened = self.file.flush().and_then(|()| File::open(&self.path));
        Ok((self.path.clone(), opened.map_err(|e| Error::io(&self.path, e))?))
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Brings the file to the disk; returns its name and sum.
    pub(crate) fn finish(self) -> Result<FileSum> {
        let wrong = |error| Error::io(&self.path, error);
        let file = self.file.into_inner().map_err(|error| wrong(error.into_error()))?;
        file.sync_all().map_err(wrong)?;
        let file = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(FileSum { file, sha256: hex(&self.digest.finalize()) })
    }
}

/// The bytes of floats in a file.
pub(crate) fn little_endian(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Writes a small file whole.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<FileSum> {
    let mut file = SummedFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}
