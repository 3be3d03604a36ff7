//! Kafka's default partitioner, so that all producers agree on where a key lives.

/// The murmur2 hash as Kafka computes it (`Utils.murmur2`): seed `0x9747b28c`, 32 bits.
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Kafka's length is a Java int; keys are far shorter than 2^32.
    let mut hash = SEED ^ (data.len() as u32);
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = chunk
            .iter()
            .rev()
            .fold(0u32, |acc, &byte| (acc << 8) | u32::from(byte));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (place, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash.cast_signed()
}

/// Kafka's `Utils.toPositive`: the sign bit cleared, which is not the absolute value.
#[must_use]
pub fn to_positive(number: i32) -> u32 {
    (number & 0x7fff_ffff).cast_unsigned()
}

/// The partition a key belongs to, out of `partitions`. A record without a key goes to partition 0.
#[must_use]
pub fn partition_for_key(key: Option<&[u8]>, partitions: u32) -> u32 {
    match key {
        Some(key) if partitions > 1 => to_positive(murmur2(key)) % partitions,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn agrees_with_kafka() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn to_positive_clears_the_sign_bit() {
        assert_eq!(to_positive(-1), 0x7fff_ffff);
        assert_eq!(to_positive(i32::MIN), 0);
        assert_eq!(to_positive(7), 7);
    }

    #[test]
    fn partitions_are_in_range_and_no_key_is_partition_zero() {
        assert_eq!(partition_for_key(None, 12), 0);
        assert_eq!(partition_for_key(Some(b"abc"), 0), 0);
        assert_eq!(partition_for_key(Some(b"abc"), 10), 479_470_107 % 10);
        assert_eq!(
            partition_for_key(Some(b"21"), 6),
            ((-973_932_308i32) & 0x7fff_ffff) as u32 % 6
        );
    }
}
