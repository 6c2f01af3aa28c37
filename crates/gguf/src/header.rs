//! The header of a file: metadata and the list of tensors.

use crate::block_type::BlockType;
use crate::error::{Error, Result};
use crate::limits::{ALIGNMENT_MAX, DIMENSIONS_MAX, KEYS_MAX, TENSORS_MAX};
use crate::reader::Reader;
use crate::value::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

const MAGIC: [u8; 4] = *b"GGUF";
const EMBEDDING: &str = "token_embd.weight";
const ALIGNMENT: &str = "general.alignment";
const ALIGNMENT_DEFAULT: u64 = 32;

/// The header of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
    /// Keys whose strings weren't UTF-8.
    replaced: BTreeSet<String>,
}

/// Type, shape and place of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The element type.
    pub kind: BlockType,
    /// The shape, slowest dimension first.
    pub shape: Vec<u64>,
    /// First byte, from the beginning of the file.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

impl Header {
    /// Reads the header of a file of `file_bytes` bytes from its beginning.
    ///
    /// # Errors
    /// Reading fails, or the file is invalid: see [`Error`].
    pub fn read(stream: &mut dyn Read, file_bytes: u64) -> Result<Self> {
        let reader = &mut Reader::new(stream);
        read_version(reader)?;
        let tensor_count = reader.count("the number of tensors", "tensors", TENSORS_MAX)?;
        let key_count = reader.count("the number of keys", "keys", KEYS_MAX)?;
        let (mut metadata, mut replaced) = (BTreeMap::new(), BTreeSet::new());
        for _ in 0..key_count {
            let key = reader.string("a key")?;
            let number = reader.u32(&key)?;
            reader.replaced = false;
            let value = Value::read(reader, number, &key)?;
            if reader.replaced {
                replaced.insert(key.clone());
            }
            if metadata.contains_key(&key) {
                return Err(Error::Repeated { what: "key", name: key });
            }
            metadata.insert(key, value);
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = reader.string("a tensor's name")?;
            let info = read_tensor(reader, &name)?;
            if tensors.contains_key(&name) {
                return Err(Error::Repeated { what: "tensor", name });
            }
            tensors.insert(name, info);
        }
        let begin = reader.taken().next_multiple_of(alignment(&metadata)?);
        for (name, info) in &mut tensors {
            place(name, info, begin, file_bytes)?;
        }
        Ok(Self { metadata, tensors, replaced })
    }

    /// The metadata, ordered by key.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// True when a string of `key` had bytes that aren't UTF-8, which were replaced.
    pub fn is_replaced(&self, key: &str) -> bool {
        self.replaced.contains(key)
    }

    /// The tensors, ordered by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// The string at `key`.
    ///
    /// # Errors
    /// [`Error::Value`]: there is none, or a value of another type.
    pub fn string(&self, key: &str) -> Result<&str> {
        match self.metadata.get(key) {
            Some(Value::String(text)) => Ok(text),
            found => Err(wrong(key, "a string", found)),
        }
    }

    /// The unsigned integer at `key`, if there is one.
    ///
    /// # Errors
    /// [`Error::Value`]: a value of another type, or one that exceeds 32 bits.
    pub fn optional_u32(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        let narrow = value.to_u64().and_then(|v| u32::try_from(v).ok());
        narrow.map(Some).ok_or_else(|| wrong(key, "an unsigned integer", Some(value)))
    }

    /// The unsigned integer at `key`.
    ///
    /// # Errors
    /// [`Error::Value`]: there is none, or a value of another type, or one that exceeds 32 bits.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.optional_u32(key)?.ok_or_else(|| wrong(key, "an unsigned integer", None))
    }

    /// The number at `key`, if there is one.
    ///
    /// # Errors
    /// [`Error::Value`]: a value that isn't a float.
    pub fn optional_f32(&self, key: &str) -> Result<Option<f32>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::F32(v)) => Ok(Some(*v)),
            Some(Value::F64(v)) => Ok(Some(*v as f32)),
            found => Err(wrong(key, "a number", found)),
        }
    }

    /// The number of rows of a language model's embedding, which is the number of its tokens.
    ///
    /// # Errors
    /// [`Error::Value`]: there is no embedding, or it isn't a matrix.
    pub fn vocabulary_size(&self) -> Result<u32> {
        let wrong = |found: String| Error::value(format!("tensor {EMBEDDING}"), "a matrix", found);
        let info = self.tensors.get(EMBEDDING).ok_or_else(|| wrong("nothing".into()))?;
        match *info.shape {
            [rows, _] => u32::try_from(rows).map_err(|_| wrong(format!("{:?}", info.shape))),
            _ => Err(wrong(format!("{:?}", info.shape))),
        }
    }

    /// The longest context of a language model, in tokens.
    ///
    /// # Errors
    /// [`Error::Value`]: the key, or that of the architecture, is missing or of another type.
    pub fn context_length(&self) -> Result<u32> {
        self.u32(&format!("{}.context_length", self.string("general.architecture")?))
    }
}

pub(crate) fn wrong(key: &str, expected: &str, found: Option<&Value>) -> Error {
    let found = found.map_or_else(|| "nothing".into(), |value| shortened(value.to_string()));
    Error::value(key, expected, found)
}

/// A value truncated for a message, since a file's text may have megabytes.
fn shortened(text: String) -> String {
    const SHOWN_CHARACTERS_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<()> {
    const WHERE: &str = "its first bytes";
    match reader.bytes(WHERE) {
        Ok(MAGIC) => {}
        Ok(_) | Err(Error::CutOff { .. }) => return Err(Error::Magic),
        Err(error) => return Err(error),
    }
    match reader.u32(WHERE)? {
        version @ 1..=3 => reader.narrow = version == 1,
        version if version > u32::from(u16::MAX) => return Err(Error::BigEndian),
        version => return Err(Error::Version(version)),
    }
    Ok(())
}

fn read_tensor(reader: &mut Reader<'_>, name: &str) -> Result<TensorInfo> {
    let within = format!("tensor {name}");
    let dimensions = reader.u32(&within)?;
    if dimensions == 0 || dimensions > DIMENSIONS_MAX {
        return Err(Error::value(within, format!("1 to {DIMENSIONS_MAX} dimensions"), dimensions));
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        shape.push(if reader.narrow { reader.u32(&within)?.into() } else { reader.u64(&within)? });
    }
    shape.reverse();
    let number = reader.u32(&within)?;
    let offset = reader.u64(&within)?;
    let kind = BlockType::from_number(number).ok_or_else(|| {
        let expected = "a known type (requantize the model, such as to Q8_0 or Q4_K_M)";
        Error::value(&within, expected, format!("type {number}"))
    })?;
    let row = shape.last().copied().unwrap_or(0);
    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let whole = row.is_multiple_of(kind.block_elements());
    let bytes = elements.filter(|elements| whole && *elements > 0).and_then(|elements| kind.bytes(elements));
    let Some(bytes) = bytes else {
        let expected = format!("a shape of whole blocks of {} numbers of type {kind}", kind.block_elements());
        return Err(Error::value(within, expected, format!("{shape:?}")));
    };
    Ok(TensorInfo { kind, shape, offset, bytes })
}

/// The alignment of tensors in bytes.
fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64> {
    match metadata.get(ALIGNMENT) {
        None => Ok(ALIGNMENT_DEFAULT),
        Some(value) => match value.to_u64() {
            Some(bytes) if bytes.is_power_of_two() && bytes <= ALIGNMENT_MAX => Ok(bytes),
            _ => Err(wrong(ALIGNMENT, &format!("a power of 2 up to {ALIGNMENT_MAX}"), Some(value))),
        },
    }
}

/// Converts a tensor's offset to one from the beginning of the file, and checks that the tensor is inside the file.
fn place(name: &str, info: &mut TensorInfo, begin: u64, file_bytes: u64) -> Result<()> {
    let offset = info.offset.checked_add(begin);
    let end = offset.and_then(|offset| offset.checked_add(info.bytes));
    match (offset, end) {
        (Some(offset), Some(end)) if end <= file_bytes => info.offset = offset,
        _ => {
            let expected = format!("{} bytes at {} of its data", info.bytes, info.offset);
            let found = format!("a file of {file_bytes} bytes, which is cut off or damaged");
            return Err(Error::value(format!("tensor {name}"), expected, found));
        }
    }
    Ok(())
}
