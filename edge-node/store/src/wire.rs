//! Reading integers and short strings from bytes that may be damaged.

use bytes::{Buf, Bytes};

/// The bytes end too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

pub(crate) struct Reader(pub Bytes);

macro_rules! ints {
    ($($name:ident $type:ty;)*) => {
        $(pub fn $name(&mut self) -> Result<$type, Short> {
            if self.0.len() < size_of::<$type>() {
                return Err(Short);
            }
            Ok(self.0.$name())
        })*
    };
}

impl Reader {
    ints! {
        get_u8 u8; get_u16 u16; get_u32 u32; get_u64 u64; get_i16 i16; get_i32 i32; get_i64 i64;
    }

    pub fn take(&mut self, len: usize) -> Result<Bytes, Short> {
        if self.0.len() < len {
            return Err(Short);
        }
        Ok(self.0.split_to(len))
    }

    /// A string after its length in two bytes.
    pub fn text(&mut self) -> Result<String, Short> {
        let len = self.get_u16()?;
        let bytes = self.take(len.into())?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Short)
    }
}

/// A string after its length in two bytes; the caller has checked that it is not longer.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= usize::from(u16::MAX));
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
