//! Builds a file part by part.

use dunlin_gguf::{Error, Header};

/// The bytes of a file of version 3 under construction.
#[derive(Clone)]
pub(crate) struct File {
    version: u32,
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    /// Bytes of all tensors.
    pub(crate) data: Vec<u8>,
    /// Alignment of the data in bytes.
    pub(crate) alignment: usize,
}

impl File {
    pub(crate) fn new() -> Self {
        Self::of_version(3)
    }

    pub(crate) fn of_version(version: u32) -> Self {
        Self { version, keys: Vec::new(), tensors: Vec::new(), data: Vec::new(), alignment: 32 }
    }

    fn length(&self, length: usize) -> Vec<u8> {
        match self.version {
            1 => (length as u32).to_le_bytes().into(),
            _ => (length as u64).to_le_bytes().into(),
        }
    }

    pub(crate) fn string(&self, text: &str) -> Vec<u8> {
        [self.length(text.len()), text.into()].concat()
    }

    /// Adds a key with the bytes of its value.
    pub(crate) fn key(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.keys.push([self.string(key), kind.to_le_bytes().into(), value.into()].concat());
        self
    }

    pub(crate) fn text(self, key: &str, text: &str) -> Self {
        let value = self.string(text);
        self.key(key, 8, &value)
    }

    /// The bytes of an array.
    pub(crate) fn array(&self, kind: u32, count: usize, elements: &[u8]) -> Vec<u8> {
        [kind.to_le_bytes().into(), self.length(count), elements.into()].concat()
    }

    /// Adds a tensor with its dimensions, fastest first, at the end of the data.
    pub(crate) fn tensor(self, name: &str, dimensions: &[u64], kind: u32, bytes: &[u8]) -> Self {
        let offset = self.data.len() as u64;
        let mut file = self.tensor_at(name, dimensions, kind, offset);
        file.data.extend(bytes);
        file.data.resize(file.data.len().next_multiple_of(32), 0);
        file
    }

    /// Adds a tensor at an offset of the data.
    pub(crate) fn tensor_at(mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let mut tensor = self.string(name);
        tensor.extend((dimensions.len() as u32).to_le_bytes());
        dimensions.iter().for_each(|size| tensor.extend(self.length(*size as usize)));
        tensor.extend(kind.to_le_bytes());
        tensor.extend(offset.to_le_bytes());
        self.tensors.push(tensor);
        self
    }

    /// The file's bytes, and the offset of its data.
    pub(crate) fn bytes(&self) -> (Vec<u8>, usize) {
        let mut bytes = [&b"GGUF"[..], &self.version.to_le_bytes()].concat();
        bytes.extend(self.length(self.tensors.len()));
        bytes.extend(self.length(self.keys.len()));
        bytes.extend(self.keys.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        let data = bytes.len();
        bytes.extend(&self.data);
        (bytes, data)
    }

    pub(crate) fn read(&self) -> Result<Header, Error> {
        read(&self.bytes().0)
    }
}

pub(crate) fn read(bytes: &[u8]) -> Result<Header, Error> {
    Header::read(&mut &bytes[..], bytes.len() as u64)
}

/// A file with every kind of value and some kinds of tensors.
pub(crate) fn whole(version: u32) -> File {
    let file = File::of_version(version);
    let texts = [file.string("a"), file.string("ß")].concat();
    let inner = file.array(5, 2, &[7, 0, 0, 0, 255, 255, 255, 255]);
    let (texts, nested) = (file.array(8, 2, &texts), file.array(9, 1, &inner));
    file.text("general.architecture", "llama")
        .key("llama.context_length", 4, &512u32.to_le_bytes())
        .key("u8", 0, &[200])
        .key("i8", 1, &[200])
        .key("u16", 2, &40_000u16.to_le_bytes())
        .key("i16", 3, &(-2i16).to_le_bytes())
        .key("i32", 5, &(-3i32).to_le_bytes())
        .key("f32", 6, &0.5f32.to_le_bytes())
        .key("bool", 7, &[1])
        .key("texts", 9, &texts)
        .key("nested", 9, &nested)
        .key("u64", 10, &u64::MAX.to_le_bytes())
        .key("i64", 11, &9i64.to_le_bytes())
        .key("f64", 12, &0.25f64.to_le_bytes())
        .tensor("token_embd.weight", &[32, 3], 8, &[1; 3 * 34])
        .tensor("norm", &[5], 0, &[2; 20])
        .tensor("output.weight", &[256, 2], 20, &[3; 16 * 18])
}
