//! What comes before a protocol: the PROXY header, and the frames of a WebSocket.

use transport::limits;
use transport::proxy::{self, Parsed};
use transport::websocket::{Decoder, Step};

/// A header in front of anything. However little of it is there, the verdict is the same or still open.
pub fn proxy_header(data: &[u8]) {
    let whole = proxy::parse(data);
    if let Ok(Parsed::Header { length, .. }) = whole {
        assert!(length <= data.len() && length <= limits::PROXY_HEADER + 16);
    }
    for end in 0..data.len().min(64) {
        match (proxy::parse(data.get(..end).unwrap_or_default()), &whole) {
            (Ok(Parsed::Incomplete { missing }), _) => assert!(missing > 0),
            (Ok(parsed), Ok(whole)) => assert_eq!(parsed, *whole),
            (Ok(parsed), Err(error)) => panic!("{parsed:?}, and with more bytes: {error}"),
            (Err(error), Ok(whole)) => panic!("{error}, and with more bytes: {whole:?}"),
            (Err(_), Err(_)) => {}
        }
    }
}

/// The bytes of a WebSocket: the first says how they are cut, which changes nothing.
pub fn websocket_frames(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else {
        return;
    };
    assert_eq!(
        payloads(data, usize::from(*cut).max(1)),
        payloads(data, usize::MAX)
    );
}

/// What is read, what is answered, and whether it went well to the end.
fn payloads(data: &[u8], cut: usize) -> (Vec<u8>, Vec<Vec<u8>>, bool) {
    let (mut read, mut pings) = (Vec::new(), Vec::new());
    let mut decoder = Decoder::default();
    for part in data.chunks(cut) {
        let mut part = part.to_vec();
        let mut rest = &mut part[..];
        while !rest.is_empty() {
            let used = match decoder.step(rest) {
                Ok(Step::Payload(length)) => {
                    read.extend_from_slice(rest.get(..length).unwrap_or_default());
                    length
                }
                Ok(Step::Passed(length)) => length,
                Ok(Step::Ping(length, payload)) => {
                    assert!(payload.len() <= 125);
                    pings.push(payload);
                    length
                }
                Ok(Step::Close(_)) => return (read, pings, true),
                Err(_) => return (read, pings, false),
            };
            assert!(used > 0, "it does not go on");
            rest = rest.split_at_mut(used).1;
        }
    }
    (read, pings, true)
}
