//! Values of a header by key and type: a missing one is `None`, one of another type an error that names the key.

use crate::error::{Error, Result};
use crate::header::{Header, wrong};
use crate::value::{Array, Value};

impl Header {
    /// The string at `key`, if there is one.
    ///
    /// # Errors
    /// [`Error::Value`]: a value of another type, or bytes that aren't UTF-8.
    pub fn optional_string(&self, key: &str) -> Result<Option<&str>> {
        match self.metadata().get(key) {
            None => Ok(None),
            Some(Value::String(text)) => self.in_utf8(key).map(|()| Some(text.as_str())),
            found => Err(wrong(key, "a string", found)),
        }
    }

    /// The truth value at `key`, if there is one.
    ///
    /// # Errors
    /// [`Error::Value`]: a value of another type.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>> {
        match self.metadata().get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            found => Err(wrong(key, "true or false", found)),
        }
    }

    /// The strings at `key`, if there are any.
    ///
    /// # Errors
    /// [`Error::Value`]: a value of another type, or bytes that aren't UTF-8.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        match self.metadata().get(key) {
            None => Ok(None),
            Some(Value::Array(Array::String(texts))) => self.in_utf8(key).map(|()| Some(texts.as_slice())),
            found => Err(wrong(key, "an array of strings", found)),
        }
    }

    /// The floats at `key`, if there are any.
    ///
    /// # Errors
    /// [`Error::Value`]: a value of another type.
    pub fn floats(&self, key: &str) -> Result<Option<&[f32]>> {
        match self.metadata().get(key) {
            None => Ok(None),
            Some(Value::Array(Array::F32(numbers))) => Ok(Some(numbers)),
            found => Err(wrong(key, "an array of 32-bit floats", found)),
        }
    }

    /// The integers at `key`, if there are any.
    ///
    /// # Errors
    /// [`Error::Value`]: a value of another type.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        let widened = match self.metadata().get(key) {
            None => return Ok(None),
            Some(Value::Array(Array::I32(numbers))) => numbers.iter().map(|n| i64::from(*n)).collect(),
            Some(Value::Array(Array::U32(numbers))) => numbers.iter().map(|n| i64::from(*n)).collect(),
            Some(Value::Array(Array::U8(numbers))) => numbers.iter().map(|n| i64::from(*n)).collect(),
            Some(Value::Array(Array::I64(numbers))) => numbers.clone(),
            found => return Err(wrong(key, "an array of integers", found)),
        };
        Ok(Some(widened))
    }

    /// Refuses the strings of `key` if their bytes were replaced when they were read.
    fn in_utf8(&self, key: &str) -> Result<()> {
        if self.is_replaced(key) {
            return Err(Error::value(key, "UTF-8", "other bytes"));
        }
        Ok(())
    }
}
