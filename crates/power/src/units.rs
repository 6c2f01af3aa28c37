//! Electrical quantities in whole micro-units: readings stay exact, and units can't be confused.
//!
//! Invariant: no operating system and no allocation; `ina219` and this file build for bare metal.

use core::fmt;

macro_rules! quantity {
    ($name:ident, $what:literal, $micro:literal, $symbol:literal) => {
        #[doc = concat!($what, ", in ", $micro, ".")]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(i64);

        impl $name {
            #[doc = concat!("A quantity of so many ", $micro, ".")]
            pub const fn from_micro(micro: i64) -> Self {
                Self(micro)
            }

            #[doc = concat!("The quantity in ", $micro, ".")]
            pub const fn micro(self) -> i64 {
                self.0
            }

            #[doc = concat!("The nearest quantity to so many ", $symbol, "; what is no number is none.")]
            pub const fn from_f64(value: f64) -> Self {
                let micro = value * 1e6;
                Self((if micro < 0.0 { micro - 0.5 } else { micro + 0.5 }) as i64)
            }

            #[doc = concat!("The quantity in ", $symbol, ".")]
            pub const fn as_f64(self) -> f64 {
                self.0 as f64 / 1e6
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let decimals = f.precision().unwrap_or(3);
                write!(f, concat!("{:.*} ", $symbol), decimals, self.as_f64())
            }
        }
    };
}

quantity!(Volts, "A voltage", "microvolts", "V");
quantity!(Amperes, "A current", "microamperes", "A");
quantity!(Watts, "A power", "microwatts", "W");
quantity!(Joules, "An energy", "microjoules", "J");

impl core::ops::Mul<Amperes> for Volts {
    type Output = Watts;
    /// The power of a current at this voltage.
    fn mul(self, current: Amperes) -> Watts {
        let pico = i128::from(self.0) * i128::from(current.0);
        Watts((pico / 1_000_000) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volts_times_amperes_are_watts() {
        assert_eq!(Volts::from_f64(5.1) * Amperes::from_f64(0.6), Watts::from_f64(3.06));
        assert_eq!(
            Volts::from_micro(i64::MAX) * Amperes::from_micro(1),
            Watts::from_micro(i64::MAX / 1_000_000)
        );
    }

    #[test]
    fn quantities_are_written_with_their_unit() {
        assert_eq!(Watts::from_micro(2_718_281).to_string(), "2.718 W");
        assert_eq!(format!("{:.1}", Joules::from_f64(-0.25)), "-0.2 J");
        assert_eq!((Watts::from_f64(-1.5).micro(), Watts::from_f64(f64::NAN).micro()), (-1_500_000, 0));
    }
}
