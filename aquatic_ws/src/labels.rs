//! Enums whose variants are the values of a metric label.

/// Declares an enum without fields, with the array `ALL` of its variants in the order of their numbers, and
/// the method `name`, which returns the value of the label.
macro_rules! labels {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// All variants, in the order of their numbers.
            pub(crate) const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// Returns the value of the label.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}

pub(crate) use labels;
