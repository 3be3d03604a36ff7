//! How a message is described, and what each type of field looks like on the wire.

use bytes::Bytes;
use uuid::Uuid;

use super::reader::{Reader, WireError};
use super::writer::{Records, Writer};

/// Something with a form on the wire in each version.
pub trait Message: Sized {
    /// Reads it as it looks in `version`.
    fn read(reader: &mut Reader, version: i16) -> Result<Self, WireError>;
    /// Writes it as it looks in `version`.
    fn write(&self, writer: &mut Writer, version: i16);
    /// Reads it where null is allowed, for types that have a null of their own.
    fn read_nullable(reader: &mut Reader, version: i16) -> Result<Option<Self>, WireError> {
        Self::read(reader, version).map(Some)
    }
    /// Writes null, for types that have one.
    fn write_null(_writer: &mut Writer) {}
    /// A random value that can be written in `version`.
    #[cfg(test)]
    fn sample(random: &mut super::oracle_tests::Random, version: i16) -> Self;
}

/// Describes a message: each field with its type and the versions that have it, then where it may be null if not always
/// (for an `Option`), and the value it has where it is absent if not zero or empty.
macro_rules! message {
    (
        $(#[$meta:meta])*
        $name:ident {
            $( $field:ident : $type:ty, $versions:expr $(, null $null:expr)? $(, default $default:expr)? ; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $( pub $field: $type, )* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: crate::wire::message::or_default!($($default)?), )* }
            }
        }

        impl crate::wire::message::Message for $name {
            fn read(
                reader: &mut crate::wire::reader::Reader,
                version: i16,
            ) -> Result<Self, crate::wire::reader::WireError> {
                let _ = version;
                let mut message = Self::default();
                $(
                    if ($versions).contains(&version) {
                        message.$field = crate::wire::message::Message::read(reader, version)?;
                        $(
                            if message.$field.is_none() && !($null).contains(&version) {
                                return Err(crate::wire::reader::WireError::UnexpectedNull);
                            }
                        )?
                    }
                )*
                reader.tagged_fields()?;
                Ok(message)
            }

            fn write(&self, writer: &mut crate::wire::writer::Writer, version: i16) {
                let _ = version;
                $(
                    if ($versions).contains(&version) {
                        crate::wire::message::Message::write(&self.$field, writer, version);
                    }
                )*
                writer.tagged_fields();
            }

            #[cfg(test)]
            fn sample(random: &mut crate::wire::oracle_tests::Random, version: i16) -> Self {
                let _ = (&random, version);
                #[allow(unused_mut)]
                let mut message = Self::default();
                $(
                    if ($versions).contains(&version) {
                        message.$field = crate::wire::message::Message::sample(random, version);
                        $(
                            while message.$field.is_none() && !($null).contains(&version) {
                                message.$field = crate::wire::message::Message::sample(random, version);
                            }
                        )?
                    }
                )*
                message
            }
        }
    };
}
pub(super) use message;

macro_rules! or_default {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}
pub(super) use or_default;

macro_rules! number {
    ($($type:ty => $verb:ident),*) => { $(
        impl Message for $type {
            fn read(reader: &mut Reader, _version: i16) -> Result<Self, WireError> {
                reader.$verb()
            }
            fn write(&self, writer: &mut Writer, _version: i16) {
                writer.$verb(*self);
            }
            #[cfg(test)]
            fn sample(random: &mut super::oracle_tests::Random, _version: i16) -> Self {
                random.next() as $type
            }
        }
    )* };
}
number!(i8 => i8, i16 => i16, u16 => u16, i32 => i32, i64 => i64);

impl Message for bool {
    fn read(reader: &mut Reader, _version: i16) -> Result<Self, WireError> {
        reader.i8().map(|byte| byte != 0)
    }
    fn write(&self, writer: &mut Writer, _version: i16) {
        writer.i8(i8::from(*self));
    }
    #[cfg(test)]
    fn sample(random: &mut super::oracle_tests::Random, _version: i16) -> Self {
        random.below(2) == 1
    }
}

impl Message for Uuid {
    fn read(reader: &mut Reader, _version: i16) -> Result<Self, WireError> {
        reader.uuid()
    }
    fn write(&self, writer: &mut Writer, _version: i16) {
        writer.uuid(*self);
    }
    #[cfg(test)]
    fn sample(random: &mut super::oracle_tests::Random, _version: i16) -> Self {
        Self::from_u64_pair(random.next(), random.next())
    }
}

impl Message for String {
    fn read(reader: &mut Reader, _version: i16) -> Result<Self, WireError> {
        reader.string()?.ok_or(WireError::UnexpectedNull)
    }
    fn read_nullable(reader: &mut Reader, _version: i16) -> Result<Option<Self>, WireError> {
        reader.string()
    }
    fn write(&self, writer: &mut Writer, _version: i16) {
        writer.string(Some(self));
    }
    fn write_null(writer: &mut Writer) {
        writer.string(None);
    }
    #[cfg(test)]
    fn sample(random: &mut super::oracle_tests::Random, _version: i16) -> Self {
        (0..random.below(200))
            .map(|_| char::from(b'a' + random.below(26) as u8))
            .collect()
    }
}

impl Message for Bytes {
    fn read(reader: &mut Reader, _version: i16) -> Result<Self, WireError> {
        reader.byte_string()?.ok_or(WireError::UnexpectedNull)
    }
    fn read_nullable(reader: &mut Reader, _version: i16) -> Result<Option<Self>, WireError> {
        reader.byte_string()
    }
    fn write(&self, writer: &mut Writer, _version: i16) {
        writer.byte_string(Some(self));
    }
    fn write_null(writer: &mut Writer) {
        writer.byte_string(None);
    }
    #[cfg(test)]
    fn sample(random: &mut super::oracle_tests::Random, _version: i16) -> Self {
        (0..random.below(300))
            .map(|_| random.next() as u8)
            .collect()
    }
}

impl Message for Records {
    fn read(reader: &mut Reader, _version: i16) -> Result<Self, WireError> {
        Ok(Self(
            reader
                .byte_string()?
                .into_iter()
                .filter(|bytes| !bytes.is_empty())
                .collect(),
        ))
    }
    fn write(&self, writer: &mut Writer, _version: i16) {
        writer.records(self);
    }
    #[cfg(test)]
    fn sample(random: &mut super::oracle_tests::Random, version: i16) -> Self {
        let bytes = Bytes::sample(random, version);
        Self(
            Some(bytes)
                .into_iter()
                .filter(|bytes| !bytes.is_empty())
                .collect(),
        )
    }
}

impl<T: Message> Message for Vec<T> {
    fn read(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        Self::read_nullable(reader, version)?.ok_or(WireError::UnexpectedNull)
    }
    fn read_nullable(reader: &mut Reader, version: i16) -> Result<Option<Self>, WireError> {
        let Some(length) = reader.array_length()? else {
            return Ok(None);
        };
        // Grows with what is really there: an element in memory is larger than its bytes.
        let mut elements = Vec::with_capacity(length.min(64));
        for _ in 0..length {
            elements.push(T::read(reader, version)?);
        }
        Ok(Some(elements))
    }
    fn write(&self, writer: &mut Writer, version: i16) {
        writer.length(Some(self.len()));
        for element in self {
            element.write(writer, version);
        }
    }
    fn write_null(writer: &mut Writer) {
        writer.length(None);
    }
    #[cfg(test)]
    fn sample(random: &mut super::oracle_tests::Random, version: i16) -> Self {
        (0..random.below(4))
            .map(|_| T::sample(random, version))
            .collect()
    }
}

impl<T: Message> Message for Option<T> {
    fn read(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        T::read_nullable(reader, version)
    }
    fn write(&self, writer: &mut Writer, version: i16) {
        match self {
            Some(value) => value.write(writer, version),
            None => T::write_null(writer),
        }
    }
    #[cfg(test)]
    fn sample(random: &mut super::oracle_tests::Random, version: i16) -> Self {
        (random.below(4) > 0).then(|| T::sample(random, version))
    }
}
