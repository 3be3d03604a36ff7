//! The topics in the metadata that consumers of the "consumer" protocol type join with.

use bytes::Bytes;

use crate::wire::{Message, Reader};

/// The topics; `None` when the bytes are not such metadata.
pub fn topics(metadata: &Bytes) -> Option<Vec<String>> {
    let mut reader = Reader::new(metadata.clone(), false);
    // All versions begin with the version and the topics; what follows is for the assignor.
    let _version = i16::read(&mut reader, 0).ok()?;
    Vec::<String>::read(&mut reader, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_a_subscription() {
        let metadata =
            Bytes::from_static(b"\x00\x01\x00\x00\x00\x02\x00\x01a\x00\x02bc\xff\xff\xff\xff");
        assert_eq!(
            topics(&metadata),
            Some(vec!["a".to_owned(), "bc".to_owned()])
        );
        assert_eq!(topics(&Bytes::from_static(b"\x00")), None);
    }
}
