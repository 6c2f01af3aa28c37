//! Structs of counters with their arithmetic: a new field takes part in all of it.

/// Defines a struct whose fields are all `u64`, with `add` and `since` over every one of them.
macro_rules! counters {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $field:ident: u64),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: u64),+
        }

        impl $name {
            /// Adds the counts of another machine or session.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)+
            }

            /// The counts since `earlier`, which must be an earlier state of the same counters.
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($field: self.$field - earlier.$field),+ }
            }
        }
    };
}

pub(crate) use counters;

#[cfg(test)]
mod tests {
    #![allow(unreachable_pub, reason = "the macro makes what others see")]

    counters! {
        /// Two counters.
        pub struct Two {
            /// The first.
            pub first: u64,
            /// The last.
            pub last: u64,
        }
    }

    #[test]
    fn every_field_is_added_and_subtracted() {
        let earlier = Two { first: 1, last: 20 };
        let mut sum = earlier;
        sum.add(&Two { first: 300, last: 4000 });
        assert_eq!(sum, Two { first: 301, last: 4020 });
        assert_eq!(sum.since(&earlier), Two { first: 300, last: 4000 });
    }
}
