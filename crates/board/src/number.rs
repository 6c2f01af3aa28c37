//! Bounded numbers in files.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// A finite number, 0 or more.
///
/// # Errors
/// The number is outside this range.
pub fn amount<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let x = f64::deserialize(from)?;
    if x.is_finite() && x >= 0.0 {
        Ok(x)
    } else {
        Err(D::Error::custom(format!("{x} is not a number of at least 0")))
    }
}

/// A finite number above 0.
///
/// # Errors
/// The number is outside this range.
pub fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let x = f64::deserialize(from)?;
    if x.is_finite() && x > 0.0 {
        Ok(x)
    } else {
        Err(D::Error::custom(format!("{x} is not a number above 0")))
    }
}
