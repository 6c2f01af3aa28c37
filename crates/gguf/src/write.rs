//! The header of a new file: its metadata, and where its tensors will lie.

use crate::block_type::BlockType;
use crate::error::{Error, Result};

/// Tensors begin at multiples of this many bytes.
pub const ALIGNMENT: u64 = 32;
const MAGIC: &[u8] = b"GGUF";
const VERSION: u32 = 3;
/// Numbers of the types of metadata that are written.
const U32: u32 = 4;
const F32: u32 = 6;
const STRING: u32 = 8;

/// A header that grows key by key and tensor by tensor. The tensors' data follow it in the same order, each filled up
/// to a multiple of [`ALIGNMENT`].
#[derive(Clone, Debug, Default)]
pub struct HeaderWriter {
    keys: (u64, Vec<u8>),
    tensors: (u64, Vec<u8>),
    data_bytes: u64,
}

impl HeaderWriter {
    /// Adds a string.
    pub fn string(&mut self, key: &str, text: &str) {
        self.key(key, STRING);
        append_string(&mut self.keys.1, text);
    }

    /// Adds an unsigned integer.
    pub fn u32(&mut self, key: &str, number: u32) {
        self.key(key, U32);
        self.keys.1.extend(number.to_le_bytes());
    }

    /// Adds a float.
    pub fn f32(&mut self, key: &str, number: f32) {
        self.key(key, F32);
        self.keys.1.extend(number.to_le_bytes());
    }

    /// Adds a tensor of this shape, rows before columns.
    ///
    /// # Errors
    /// Its elements are no whole blocks, or more than a file can have.
    pub fn tensor(&mut self, name: &str, shape: &[u64], kind: BlockType) -> Result<()> {
        let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
        let bytes = elements.and_then(|elements| kind.bytes(elements));
        let bytes = bytes.ok_or_else(|| {
            Error::value(format!("tensor {name}"), format!("whole blocks of {kind}"), format!("{shape:?}"))
        })?;
        let entry = &mut self.tensors.1;
        append_string(entry, name);
        entry.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|size| entry.extend(size.to_le_bytes()));
        entry.extend(kind.number().to_le_bytes());
        entry.extend(self.data_bytes.to_le_bytes());
        self.tensors.0 += 1;
        self.data_bytes += bytes.next_multiple_of(ALIGNMENT);
        Ok(())
    }

    /// The bytes before the tensors' data.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [MAGIC, &VERSION.to_le_bytes()].concat();
        bytes.extend(self.tensors.0.to_le_bytes());
        bytes.extend(self.keys.0.to_le_bytes());
        bytes.extend(&self.keys.1);
        bytes.extend(&self.tensors.1);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        bytes
    }

    fn key(&mut self, key: &str, kind: u32) {
        append_string(&mut self.keys.1, key);
        self.keys.1.extend(kind.to_le_bytes());
        self.keys.0 += 1;
    }
}

fn append_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Header, Value};

    #[test]
    fn a_written_header_is_read_back() {
        let mut writer = HeaderWriter::default();
        writer.string("general.architecture", "llama");
        writer.u32("llama.block_count", 7);
        writer.f32("llama.rope.freq_base", 1e6);
        writer.tensor("a", &[3, 64], BlockType::Q8_0).unwrap();
        writer.tensor("b", &[5], BlockType::F32).unwrap();
        let mut bytes = writer.encode();
        let start = bytes.len() as u64;
        // 3 rows of 2 blocks of 34 bytes, filled up to 224; 5 floats, filled up to 32.
        bytes.resize(bytes.len() + 224 + 32, 0);
        let header = Header::read(&mut &bytes[..], bytes.len() as u64).unwrap();
        assert_eq!(header.string("general.architecture").unwrap(), "llama");
        assert_eq!(header.metadata()["llama.block_count"], Value::U32(7));
        assert_eq!(header.optional_f32("llama.rope.freq_base").unwrap(), Some(1e6));
        let (a, b) = (&header.tensors()["a"], &header.tensors()["b"]);
        assert_eq!(
            (a.shape.as_slice(), a.kind, a.offset, a.bytes),
            (&[3, 64][..], BlockType::Q8_0, start, 204)
        );
        assert_eq!(
            (b.shape.as_slice(), b.kind, b.offset, b.bytes),
            (&[5][..], BlockType::F32, start + 224, 20)
        );
    }

    #[test]
    fn a_part_of_a_block_is_refused() {
        let refused = HeaderWriter::default().tensor("a", &[3, 33], BlockType::Q8_0).unwrap_err();
        assert!(refused.to_string().contains("tensor a"), "{refused}");
        assert!(HeaderWriter::default().tensor("a", &[u64::MAX, 2], BlockType::F32).is_err());
    }
}
