//! Enums whose values have names, used in configurations and reports.

use core::fmt;

/// A name that none of an enum's values has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownName {
    what: &'static str,
    known: &'static [&'static str],
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {}; known are", self.what)?;
        self.known.iter().enumerate().try_for_each(|(i, name)| {
            let separator = if i == 0 { " " } else { ", " };
            write!(f, "{separator}{name}")
        })
    }
}

impl core::error::Error for UnknownName {}

impl UnknownName {
    /// The error for a name of `what` that is not among `known`.
    pub(crate) const fn new(what: &'static str, known: &'static [&'static str]) -> Self {
        Self { what, known }
    }
}

/// Defines an enum with a name for each value: `ALL`, `name`, `Display` and `FromStr`; with the feature `serde`
/// also `Deserialize`, by name.
macro_rules! named {
    ($(#[$meta:meta])* $choice:ident, $what:literal: $($(#[$doc:meta])* $value:ident = $name:literal),+ $(,)?) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $choice {
            $($(#[$doc])* $value),+
        }

        impl $choice {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The name in configurations and reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name),+
                }
            }
        }

        impl core::fmt::Display for $choice {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl core::str::FromStr for $choice {
            type Err = $crate::named::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                const UNKNOWN: $crate::named::UnknownName =
                    $crate::named::UnknownName::new($what, &[$($name),+]);
                Self::ALL.iter().copied().find(|value| value.name() == name).ok_or(UNKNOWN)
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $choice {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str($crate::named::NameVisitor::new($what))
            }
        }
    };
}

pub(crate) use named;

/// Reads an enum by name.
#[cfg(feature = "serde")]
pub(crate) struct NameVisitor<T> {
    what: &'static str,
    choice: core::marker::PhantomData<T>,
}

#[cfg(feature = "serde")]
impl<T> NameVisitor<T> {
    /// A visitor that expects the name of a `what`.
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, choice: core::marker::PhantomData }
    }
}

#[cfg(feature = "serde")]
impl<T: core::str::FromStr<Err = UnknownName>> serde::de::Visitor<'_> for NameVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name of a {}", self.what)
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<T, E> {
        name.parse().map_err(E::custom)
    }
}
