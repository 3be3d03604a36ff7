//! How a daemon declares its keys.

use crate::{SettingsError, Values};

/// One key, as [`settings!`](crate::settings!) found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The name in the file and of the flag: `listen-mqtt`.
    pub name: String,
    /// For `--help`: the field's doc comment.
    pub help: &'static str,
    pub default: Option<&'static str>,
    /// Whether the flag may stand alone, meaning `true`.
    pub switch: bool,
}

impl Key {
    /// `field` is the name of a Rust field.
    #[must_use]
    pub fn new(
        field: &str,
        help: &'static str,
        default: Option<&'static str>,
        switch: bool,
    ) -> Key {
        Key {
            name: field.replace('_', "-"),
            help: help.trim(),
            default,
            switch,
        }
    }

    /// The environment variable of this key.
    #[must_use]
    pub fn env(&self) -> String {
        format!(
            "{}{}",
            crate::ENV_PREFIX,
            self.name.replace('-', "_").to_uppercase()
        )
    }
}

/// A list of sections, `[[lane]]`: only the file can have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// What stands in the double brackets: `lane`.
    pub name: String,
    /// The keys of one section.
    pub keys: Vec<Key>,
}

impl List {
    /// `field` is the name of a Rust field, `T` what one section is read into.
    #[must_use]
    pub fn new<T: Declaration>(field: &str) -> List {
        List {
            name: field.replace('_', "-"),
            keys: T::keys(),
        }
    }
}

/// A struct of settings. Implemented by [`settings!`](crate::settings!).
pub trait Declaration: Sized {
    fn keys() -> Vec<Key>;
    fn lists() -> Vec<List>;
    /// Parses each value; an error says which key and who set it.
    fn from_values(values: &Values) -> Result<Self, SettingsError>;
}

/// Declares a struct of settings; each field is a key. Each field in `groups` is a struct declared in the same way, whose keys and
/// lists are keys and lists of this one: what several daemons have in common. Each field in `lists` is a list of sections, whose type
/// is declared in the same way, too. See the [crate] for an example.
#[macro_export]
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field_visibility:vis $field:ident : $type:ty $(= $default:literal)?;
            )*
        }
        $(groups {
            $(
                $(#[doc = $group_doc:literal])*
                $group_visibility:vis $group:ident : $part:ty;
            )*
        })?
        $(lists {
            $(
                $(#[doc = $list_doc:literal])*
                $list_visibility:vis $list:ident : $section:ty;
            )*
        })?
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone)]
        $visibility struct $name {
            $( $(#[doc = $doc])* $field_visibility $field: $type, )*
            $($( $(#[doc = $group_doc])* $group_visibility $group: $part, )*)?
            $($( $(#[doc = $list_doc])* $list_visibility $list: ::std::vec::Vec<$crate::Section<$section>>, )*)?
        }

        impl $crate::Declaration for $name {
            fn keys() -> ::std::vec::Vec<$crate::Key> {
                let own = ::std::vec![$(
                    $crate::Key::new(
                        ::core::stringify!($field),
                        ::core::concat!($($doc,)*),
                        $crate::settings!(@default $($default)?),
                        <$type as $crate::Value>::SWITCH,
                    ),
                )*];
                let groups: ::std::vec::Vec<::std::vec::Vec<$crate::Key>> =
                    ::std::vec![$($( <$part as $crate::Declaration>::keys(), )*)?];
                own.into_iter().chain(groups.into_iter().flatten()).collect()
            }

            fn lists() -> ::std::vec::Vec<$crate::List> {
                let own = ::std::vec![$($( $crate::List::new::<$section>(::core::stringify!($list)), )*)?];
                let groups: ::std::vec::Vec<::std::vec::Vec<$crate::List>> =
                    ::std::vec![$($( <$part as $crate::Declaration>::lists(), )*)?];
                own.into_iter().chain(groups.into_iter().flatten()).collect()
            }

            fn from_values(values: &$crate::Values) -> ::core::result::Result<Self, $crate::SettingsError> {
                ::core::result::Result::Ok($name {
                    $( $field: values.get(::core::stringify!($field))?, )*
                    $($( $group: <$part as $crate::Declaration>::from_values(values)?, )*)?
                    $($( $list: values.list(::core::stringify!($list))?, )*)?
                })
            }
        }
    };
    (@default) => { ::core::option::Option::None };
    (@default $default:literal) => { ::core::option::Option::Some($default) };
}
