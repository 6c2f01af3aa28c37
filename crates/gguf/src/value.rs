//! Metadata values.

use crate::error::Result;
use crate::reader::Reader;
use std::fmt;

macro_rules! values {
    ($($(#[$doc:meta])* $name:ident = $number:literal: $type:ty, $read:ident;)*) => {
        /// A metadata value.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Value {
            $($(#[$doc])* $name($type),)*
            /// Values of one type.
            Array(Array),
        }

        /// Values of one type.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Array {
            $($(#[$doc])* $name(Vec<$type>),)*
            /// Arrays, each with a type of its own.
            Array(Vec<Array>),
        }

        impl Value {
            /// Reads a value of the type with `number`; `within` names its key.
            pub(crate) fn read(reader: &mut Reader<'_>, number: u32, within: &str) -> Result<Self> {
                match number {
                    $($number => Ok(Self::$name(reader.$read(within)?)),)*
                    ARRAY => Ok(Self::Array(Array::read(reader, within, 1)?)),
                    found => Err(unknown(within, found)),
                }
            }
        }

        impl Array {
            fn read(reader: &mut Reader<'_>, within: &str, depth: usize) -> Result<Self> {
                let number = reader.u32(within)?;
                let count = reader.count(within, "elements", ARRAY_ELEMENTS_MAX)?;
                match number {
                    $($number => Ok(Self::$name(many(count, || reader.$read(within))?)),)*
                    ARRAY => {
                        let max = ARRAY_DEPTH_MAX as u64;
                        if depth >= ARRAY_DEPTH_MAX {
                            let (within, what) = (within.into(), "arrays within arrays");
                            return Err(Error::TooMany { within, what, found: max + 1, max });
                        }
                        Ok(Self::Array(many(count, || Array::read(reader, within, depth + 1))?))
                    }
                    found => Err(unknown(within, found)),
                }
            }

            /// The number of elements.
            pub fn len(&self) -> usize {
                match self {
                    $(Self::$name(elements) => elements.len(),)*
                    Self::Array(elements) => elements.len(),
                }
            }
        }
    };
}

use crate::error::Error;
use crate::limits::{ARRAY_DEPTH_MAX, ARRAY_ELEMENTS_MAX};

/// The number of the array type in a file.
const ARRAY: u32 = 9;

/// Most elements for which memory is reserved before they are read.
const PREALLOCATED_MAX: u64 = 4096;

values! {
    /// An unsigned integer of 8 bits.
    U8 = 0: u8, u8;
    /// A signed integer of 8 bits.
    I8 = 1: i8, i8;
    /// An unsigned integer of 16 bits.
    U16 = 2: u16, u16;
    /// A signed integer of 16 bits.
    I16 = 3: i16, i16;
    /// An unsigned integer of 32 bits.
    U32 = 4: u32, u32;
    /// A signed integer of 32 bits.
    I32 = 5: i32, i32;
    /// A float of 32 bits.
    F32 = 6: f32, f32;
    /// A truth value.
    Bool = 7: bool, bool;
    /// A text; bytes that aren't UTF-8 are replaced, zeros at its end left out.
    String = 8: String, string;
    /// An unsigned integer of 64 bits.
    U64 = 10: u64, u64;
    /// A signed integer of 64 bits.
    I64 = 11: i64, i64;
    /// A float of 64 bits.
    F64 = 12: f64, f64;
}

impl Value {
    /// The value as an unsigned integer; `None` if it is not an integer or is negative.
    pub fn to_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => v.try_into().ok(),
            Self::I16(v) => v.try_into().ok(),
            Self::I32(v) => v.try_into().ok(),
            Self::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }
}

impl Array {
    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Array(array) => write!(f, "an array of {}", array.len()),
            other => write!(f, "{other:?}"),
        }
    }
}

fn unknown(within: &str, found: u32) -> Error {
    Error::Type { within: within.into(), found }
}

fn many<T>(count: u64, mut read: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    let mut elements = Vec::with_capacity(count.min(PREALLOCATED_MAX) as usize);
    for _ in 0..count {
        elements.push(read()?);
    }
    Ok(elements)
}
