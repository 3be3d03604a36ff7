//! Kafka's variable-length integers: zigzag, then seven bits a byte, least significant first.

use bytes::{BufMut, BytesMut};

/// Bytes that `value` takes as a varint or varlong.
pub(crate) fn encoded_len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

pub(crate) fn put(out: &mut BytesMut, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.put_u8((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Reads a varlong (at most ten bytes) off the front of `input`. `None`: cut off, or more than 64 bits.
pub(crate) fn take_i64(input: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (place, &byte) in input.iter().enumerate().take(10) {
        if place == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            *input = input.get(place + 1..)?;
            return Some(unzigzag(value));
        }
    }
    None
}

/// Reads a varint (at most five bytes) off the front of `input`. `None`: cut off, or more than 32 bits.
pub(crate) fn take_i32(input: &mut &[u8]) -> Option<i32> {
    let mut value = 0u64;
    for (place, &byte) in input.iter().enumerate().take(5) {
        if place == 4 && byte > 0x0f {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            *input = input.get(place + 1..)?;
            return i32::try_from(unzigzag(value)).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(value: i64) -> BytesMut {
        let mut out = BytesMut::new();
        put(&mut out, value);
        out
    }

    #[test]
    fn known_encodings() {
        for (value, bytes) in [
            (0i64, &[0u8][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (
                i64::MIN,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ] {
            assert_eq!(&encoded(value)[..], bytes, "{value}");
        }
    }

    #[test]
    fn too_long_or_cut_off_is_refused() {
        for hostile in [
            &[0x80u8; 11][..],
            &[0x80],
            &[],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        ] {
            assert_eq!(take_i64(&mut &hostile[..]), None);
            assert_eq!(take_i32(&mut &hostile[..]), None);
        }
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None);
    }

    proptest! {
        #[test]
        fn there_and_back(value: i64, tail: [u8; 3]) {
            let mut bytes = encoded(value);
            prop_assert_eq!(bytes.len(), encoded_len(value));
            bytes.extend_from_slice(&tail);
            let mut input = &bytes[..];
            prop_assert_eq!(take_i64(&mut input), Some(value));
            prop_assert_eq!(input, &tail[..]);
            let mut input = &bytes[..];
            match i32::try_from(value) {
                Ok(small) => prop_assert_eq!(take_i32(&mut input), Some(small)),
                Err(_) => prop_assert_eq!(take_i32(&mut input), None),
            }
        }
    }
}
