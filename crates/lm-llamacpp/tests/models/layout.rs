//! The parts of a GGUF file, to be changed one by one and written again whether they fit together or not.

/// Types of values.
pub(crate) const U32: u32 = 4;
pub(crate) const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Every offset of a tensor is a multiple of this.
const ALIGNMENT: usize = 32;

#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) kind: u32,
    /// The value as it is stored.
    pub(crate) value: Vec<u8>,
}

#[derive(Clone)]
pub(crate) struct Placed {
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) offset: u64,
}

/// A file of version 2 or 3.
#[derive(Clone)]
pub(crate) struct Layout {
    version: u32,
    pub(crate) keys: Vec<Key>,
    pub(crate) tensors: Vec<Placed>,
    pub(crate) data: Vec<u8>,
}

/// The rest of a file that is being read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let length = self.u64() as usize;
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }

    /// Skips a value of this type.
    fn skip(&mut self, kind: u32) {
        match kind {
            0 | 1 | 7 => drop(self.take(1)),
            2 | 3 => drop(self.take(2)),
            4..=6 => drop(self.take(4)),
            STRING => drop(self.text()),
            ARRAY => {
                let (of, count) = (self.u32(), self.u64());
                (0..count).for_each(|_| self.skip(of));
            }
            _ => drop(self.take(8)),
        }
    }
}

impl Layout {
    pub(crate) fn parse(file: &[u8]) -> Self {
        let rest = &mut Rest(file);
        assert_eq!(rest.take(4), b"GGUF");
        let version = rest.u32();
        let (tensors, keys) = (rest.u64(), rest.u64());
        let key = |rest: &mut Rest<'_>| {
            let (name, kind) = (rest.text(), rest.u32());
            let begin = rest.0;
            rest.skip(kind);
            Key { name, kind, value: begin[..begin.len() - rest.0.len()].to_vec() }
        };
        let keys = (0..keys).map(|_| key(rest)).collect();
        let placed = |rest: &mut Rest<'_>| {
            let (name, dimensions) = (rest.text(), rest.u32());
            let shape = (0..dimensions).map(|_| rest.u64()).collect();
            Placed { name, shape, kind: rest.u32(), offset: rest.u64() }
        };
        let tensors = (0..tensors).map(|_| placed(rest)).collect();
        let begin = (file.len() - rest.0.len()).next_multiple_of(ALIGNMENT);
        Self { version, keys, tensors, data: file[begin..].to_vec() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.keys.len() as u64).to_le_bytes());
        for key in &self.keys {
            file.extend([text(&key.name), key.kind.to_le_bytes().to_vec(), key.value.clone()].concat());
        }
        for tensor in &self.tensors {
            file.extend(text(&tensor.name));
            file.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|size| file.extend(size.to_le_bytes()));
            file.extend(tensor.kind.to_le_bytes());
            file.extend(tensor.offset.to_le_bytes());
        }
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(&self.data);
        file
    }

    /// Sets a key, or adds it.
    pub(crate) fn set(&mut self, name: &str, kind: u32, value: Vec<u8>) {
        self.keys.retain(|key| key.name != name);
        self.keys.push(Key { name: name.into(), kind, value });
    }

    /// The architecture; empty if there is none.
    pub(crate) fn architecture(&self) -> String {
        let key = self.keys.iter().find(|key| key.name == "general.architecture" && key.kind == STRING);
        key.and_then(|key| key.value.get(8..))
            .map_or_else(String::new, |text| String::from_utf8_lossy(text).into())
    }
}
