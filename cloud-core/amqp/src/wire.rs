//! The elementary types of AMQP 0-9-1 (clause 4.2.5): integers, strings and field tables.
//!
//! Reading is bounded: a length is compared with what is there before anything is taken, and nesting is limited, since a table
//! of tables costs its sender six bytes a level and a recursive reader a stack frame.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{TABLE_DEPTH, TABLE_ENTRIES};

/// What is wrong with bytes from the wire. Ends the connection with 502 SYNTAX_ERROR (501 FRAME_ERROR for frames).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the data ends inside a field")]
    Short,
    #[error("a string that must be text is not UTF-8")]
    NotUtf8,
    #[error("unknown field type {0:#04x}")]
    UnknownType(u8),
    #[error("tables are nested deeper than {TABLE_DEPTH}")]
    TooDeep,
    #[error("a table has more than {TABLE_ENTRIES} entries")]
    TooLong,
    #[error("bytes are left over after the last field")]
    Trailing,
}

/// A cursor over one frame's payload.
#[derive(Clone)]
pub struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn rest(self) -> Bytes {
        self.bytes
    }

    fn take(&mut self, n: usize) -> Result<Bytes, WireError> {
        if self.bytes.len() < n {
            return Err(WireError::Short);
        }
        Ok(self.bytes.split_to(n))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, _) = self
            .bytes
            .split_first_chunk::<N>()
            .ok_or(WireError::Short)?;
        let head = *head;
        let _ = self.take(N)?;
        Ok(head)
    }

    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A short string as bytes: one length byte.
    pub fn short_bytes(&mut self) -> Result<Bytes, WireError> {
        let n = self.u8()?;
        self.take(usize::from(n))
    }

    /// A short string that must be text (names, routing keys).
    pub fn short_str(&mut self) -> Result<String, WireError> {
        let bytes = self.short_bytes()?;
        std::str::from_utf8(&bytes)
            .map(str::to_owned)
            .map_err(|_| WireError::NotUtf8)
    }

    /// A long string: four length bytes.
    pub fn long_bytes(&mut self) -> Result<Bytes, WireError> {
        let n = self.u32()?;
        self.take(usize::try_from(n).map_err(|_| WireError::Short)?)
    }

    pub fn table(&mut self) -> Result<Table, WireError> {
        self.table_at(0)
    }

    fn table_at(&mut self, depth: usize) -> Result<Table, WireError> {
        if depth >= TABLE_DEPTH {
            return Err(WireError::TooDeep);
        }
        let mut inner = Reader::new(self.long_bytes()?);
        let mut table = Table::default();
        while !inner.is_empty() {
            let name = inner.short_bytes()?;
            let value = inner.value_at(depth + 1)?;
            // Tables are compared entry by entry, for each message of a headers exchange.
            if table.0.len() == TABLE_ENTRIES {
                return Err(WireError::TooLong);
            }
            table.0.push((name, value));
        }
        Ok(table)
    }

    /// One value. The type letters are those RabbitMQ and all clients use, where they differ from the specification's (`s`, `L`, `l`).
    fn value_at(&mut self, depth: usize) -> Result<Value, WireError> {
        Ok(match self.u8()? {
            b't' => Value::Bool(self.u8()? != 0),
            b'b' => Value::Int(b'b', i64::from(i8::from_be_bytes(self.array()?))),
            b'B' => Value::Int(b'B', i64::from(self.u8()?)),
            t @ (b's' | b'U') => Value::Int(t, i64::from(i16::from_be_bytes(self.array()?))),
            b'u' => Value::Int(b'u', i64::from(self.u16()?)),
            b'I' => Value::Int(b'I', i64::from(i32::from_be_bytes(self.array()?))),
            b'i' => Value::Int(b'i', i64::from(self.u32()?)),
            t @ (b'l' | b'L') => Value::Int(t, i64::from_be_bytes(self.array()?)),
            b'f' => Value::Float(f32::from_be_bytes(self.array()?)),
            b'd' => Value::Double(f64::from_be_bytes(self.array()?)),
            b'D' => Value::Decimal(self.u8()?, self.u32()?),
            b'S' => Value::LongString(self.long_bytes()?),
            b'x' => Value::Bytes(self.long_bytes()?),
            b'T' => Value::Timestamp(self.u64()?),
            b'F' => Value::Table(self.table_at(depth)?),
            b'A' => {
                if depth >= TABLE_DEPTH {
                    return Err(WireError::TooDeep);
                }
                let mut inner = Reader::new(self.long_bytes()?);
                let mut items = Vec::new();
                while !inner.is_empty() {
                    items.push(inner.value_at(depth + 1)?);
                }
                Value::Array(items)
            }
            b'V' => Value::Void,
            other => return Err(WireError::UnknownType(other)),
        })
    }

    /// All must have been read.
    pub fn finish(self) -> Result<(), WireError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }
}

/// A field value. Integers keep their type letter, so that a table can be written back as it came.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(u8, i64),
    Float(f32),
    Double(f64),
    Decimal(u8, u32),
    LongString(Bytes),
    Bytes(Bytes),
    Timestamp(u64),
    Table(Table),
    Array(Vec<Value>),
    Void,
}

impl Value {
    pub fn text(text: &str) -> Value {
        Value::LongString(Bytes::copy_from_slice(text.as_bytes()))
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::LongString(b) | Value::Bytes(b) => std::str::from_utf8(b).ok(),
            _ => None,
        }
    }

    /// Equality of a headers binding: the same value, whatever the width of the integer or the kind of string.
    pub fn same(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Int(_, a), Value::Int(_, b)) => a == b,
            (Value::LongString(a) | Value::Bytes(a), Value::LongString(b) | Value::Bytes(b)) => {
                a == b
            }
            (Value::Float(a), Value::Double(b)) | (Value::Double(b), Value::Float(a)) => {
                f64::from(*a) == *b
            }
            (a, b) => a == b,
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            Value::Bool(v) => {
                out.put_u8(b't');
                out.put_u8(u8::from(*v));
            }
            Value::Int(letter, v) => {
                out.put_u8(*letter);
                // The cast gives back exactly the width it was read with.
                match letter {
                    b'b' | b'B' => out.put_u8(*v as u8),
                    b's' | b'U' | b'u' => out.put_u16(*v as u16),
                    b'I' | b'i' => out.put_u32(*v as u32),
                    _ => out.put_i64(*v),
                }
            }
            Value::Float(v) => {
                out.put_u8(b'f');
                out.put_f32(*v);
            }
            Value::Double(v) => {
                out.put_u8(b'd');
                out.put_f64(*v);
            }
            Value::Decimal(scale, v) => {
                out.put_u8(b'D');
                out.put_u8(*scale);
                out.put_u32(*v);
            }
            Value::LongString(v) => {
                out.put_u8(b'S');
                put_long(out, v);
            }
            Value::Bytes(v) => {
                out.put_u8(b'x');
                put_long(out, v);
            }
            Value::Timestamp(v) => {
                out.put_u8(b'T');
                out.put_u64(*v);
            }
            Value::Table(t) => {
                out.put_u8(b'F');
                t.put(out);
            }
            Value::Array(items) => {
                out.put_u8(b'A');
                put_sized(out, |out| items.iter().for_each(|v| v.put(out)));
            }
            Value::Void => out.put_u8(b'V'),
        }
    }
}

/// A field table: names in the order they came, duplicates kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table(pub Vec<(Bytes, Value)>);

impl Table {
    /// Reads a table that stands alone, without its length before it.
    pub fn parse_fields(fields: Bytes) -> Result<Table, WireError> {
        let length = u32::try_from(fields.len()).unwrap_or(u32::MAX);
        let mut whole = BytesMut::with_capacity(4 + fields.len());
        whole.put_u32(length);
        whole.put_slice(&fields);
        Reader::new(whole.freeze()).table()
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(n, _)| n == name.as_bytes())
            .map(|(_, v)| v)
    }

    pub fn with(mut self, name: &str, value: Value) -> Table {
        self.0
            .push((Bytes::copy_from_slice(name.as_bytes()), value));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn put(&self, out: &mut BytesMut) {
        put_sized(out, |out| {
            for (name, value) in &self.0 {
                put_short(out, name);
                value.put(out);
            }
        });
    }

    /// The same names with the same values, in any order: what decides whether two declarations are equivalent.
    pub fn equivalent(&self, other: &Table) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .all(|(name, value)| other.0.iter().any(|(n, v)| n == name && v.same(value)))
    }
}

/// At most 255 bytes; longer text is cut at a character, which only diagnostics and foreign routing keys can reach.
pub fn put_short(out: &mut BytesMut, bytes: &[u8]) {
    let mut n = bytes.len().min(255);
    if n < bytes.len() {
        while n > 0 && bytes.get(n).is_some_and(|b| b & 0xC0 == 0x80) {
            n -= 1;
        }
    }
    out.put_u8(n as u8);
    out.put_slice(bytes.get(..n).unwrap_or_default());
}

pub fn put_long(out: &mut BytesMut, bytes: &[u8]) {
    let n = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.put_u32(n);
    out.put_slice(bytes.get(..n as usize).unwrap_or(bytes));
}

/// Writes a four-byte length in front of what `fill` writes.
pub fn put_sized(out: &mut BytesMut, fill: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u32(0);
    fill(out);
    let n = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(at..at + 4) {
        field.copy_from_slice(&n.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i8>().prop_map(|v| Value::Int(b'b', v.into())),
            any::<u8>().prop_map(|v| Value::Int(b'B', v.into())),
            any::<i16>().prop_map(|v| Value::Int(b's', v.into())),
            any::<u16>().prop_map(|v| Value::Int(b'u', v.into())),
            any::<i32>().prop_map(|v| Value::Int(b'I', v.into())),
            any::<u32>().prop_map(|v| Value::Int(b'i', v.into())),
            any::<i64>().prop_map(|v| Value::Int(b'l', v)),
            any::<u64>().prop_map(Value::Timestamp),
            (any::<u8>(), any::<u32>()).prop_map(|(s, v)| Value::Decimal(s, v)),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|v| Value::LongString(v.into())),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|v| Value::Bytes(v.into())),
            Just(Value::Void),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::vec(("[a-z]{0,5}", inner), 0..4).prop_map(|v| Value::Table(
                    Table(v.into_iter().map(|(n, v)| (Bytes::from(n), v)).collect())
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_table_is_written_as_it_was_read(v in value()) {
            let table = Table::default().with("k", v);
            let mut out = BytesMut::new();
            table.put(&mut out);
            let mut reader = Reader::new(out.freeze());
            prop_assert_eq!(reader.table().unwrap(), table);
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reader::new(bytes.into()).table();
        }

        /// amq-protocol is what lapin writes and reads with.
        #[test]
        fn tables_agree_with_amq_protocol(v in value()) {
            use amq_protocol::types::{generation::gen_field_table, parsing::parse_field_table};
            let mut ours = BytesMut::new();
            Table::default().with("k", v).put(&mut ours);
            let (rest, theirs) = parse_field_table(&ours[..]).unwrap();
            prop_assert!(rest.is_empty());
            // Tables inside are sorted there, so what comes back is compared by its length and read by us again.
            let written = crate::oracle::written(gen_field_table(&theirs));
            prop_assert!(Reader::new(written).table().is_ok());
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut table = Table::default();
        for _ in 0..TABLE_DEPTH + 1 {
            table = Table::default().with("t", Value::Table(table));
        }
        let mut out = BytesMut::new();
        table.put(&mut out);
        assert_eq!(Reader::new(out.freeze()).table(), Err(WireError::TooDeep));
    }

    #[test]
    fn a_table_of_too_many_entries_is_refused() {
        let mut table = Table::default();
        for entry in 0..=TABLE_ENTRIES {
            table = table.with(&entry.to_string(), Value::Void);
        }
        let mut out = BytesMut::new();
        table.put(&mut out);
        assert_eq!(Reader::new(out.freeze()).table(), Err(WireError::TooLong));
    }

    #[test]
    fn a_length_beyond_the_data_is_refused() {
        assert_eq!(
            Reader::new(Bytes::from_static(&[0xFF, 0xFF, 0xFF, 0xFF, 1])).long_bytes(),
            Err(WireError::Short)
        );
    }
}
