//! Producer sequence numbers: non-negative, and after `i32::MAX` comes 0, as in Kafka's `DefaultRecordBatch`.

/// The sequence `records` places after `sequence`.
#[must_use]
pub fn sequence_after(sequence: i32, records: u32) -> i32 {
    // Counted modulo 2^31; the mask keeps the result in i32.
    let sum = (i64::from(sequence) + i64::from(records)) & 0x7fff_ffff;
    i32::try_from(sum).unwrap_or(0)
}

/// The sequence that follows `sequence`.
#[must_use]
pub fn next_sequence(sequence: i32) -> i32 {
    sequence_after(sequence, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_to_zero_after_the_largest() {
        assert_eq!(next_sequence(0), 1);
        assert_eq!(next_sequence(i32::MAX), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_after(i32::MAX, 0), i32::MAX);
        assert_eq!(sequence_after(5, 0x7fff_ffff), 4);
    }
}
