//! What can be a setting: anything that is written as text, in the same way in all layers.

use std::path::PathBuf;
use std::time::Duration;

use crate::units;

pub trait Value: Sized {
    /// Whether the flag may stand without a value, meaning `true`.
    const SWITCH: bool = false;

    /// The error says what is wrong and what is allowed; key, value and origin are added to it.
    fn parse(text: &str) -> Result<Self, String>;

    /// The value when no layer sets one. `None`: the key is required.
    #[must_use]
    fn absent() -> Option<Self> {
        None
    }
}

impl<V: Value> Value for Option<V> {
    const SWITCH: bool = V::SWITCH;

    fn parse(text: &str) -> Result<Self, String> {
        V::parse(text).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("a path must not be empty".to_owned())
        } else {
            Ok(PathBuf::from(text))
        }
    }
}

impl Value for bool {
    const SWITCH: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("expected true or false".to_owned()),
        }
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Value for $number {
            fn parse(text: &str) -> Result<Self, String> {
                // TOML allows 1_000.
                text.replace('_', "")
                    .parse()
                    .map_err(|_| format!("expected a whole number from {} to {}", <$number>::MIN, <$number>::MAX))
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, usize, i32, i64);

impl Value for f64 {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text.replace('_', "").parse().ok();
        number
            .filter(|number: &f64| number.is_finite())
            .ok_or_else(|| "expected a number".to_owned())
    }
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        units::duration(text)
    }
}

macro_rules! from_str {
    ($($name:ty),*) => {$(
        impl Value for $name {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse()
            }
        }
    )*};
}
from_str!(units::Size, units::Rate, units::Listen, units::HostPort);

/// An enum of which each variant is one word: `choices! { pub enum Evict { Oldest = "oldest", Newest = "newest" } }`.
#[macro_export]
macro_rules! choices {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident {
            $( $(#[doc = $doc:literal])* $variant:ident = $word:literal, )*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name {
            $( $(#[doc = $doc])* $variant, )*
        }

        impl $crate::Value for $name {
            fn parse(text: &str) -> ::core::result::Result<Self, ::std::string::String> {
                match text {
                    $( $word => ::core::result::Result::Ok($name::$variant), )*
                    _ => ::core::result::Result::Err(::std::format!("expected one of: {}", [$($word),*].join(", "))),
                }
            }
        }
    };
}
