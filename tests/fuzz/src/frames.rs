//! The sync protocol, and enrolment tokens.

use bytes::Bytes;
use sync::{Frame, FrameReader, Receiver, Sender, Window, limits};
use sync_quic::Token;

/// The bytes of a stream: the first says how they are cut. The frames go to the machines of both sides.
pub fn sync_frames(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else {
        return;
    };
    let mut reader = FrameReader::new(limits::MAX_LANE_FRAME);
    let (mut receiver, mut sender) = (Receiver::new(), Sender::new(Window::default()));
    for part in data.chunks(usize::from(*cut).max(1)) {
        reader.push(part);
        while let Ok(Some(frame)) = reader.next_frame() {
            crate::stands_still(written, body(&frame));
            match frame {
                Frame::Batch(batch) => {
                    if receiver.handle_frame(batch.lane, batch.frame).is_ok()
                        && batch.batch.len() % 2 == 0
                    {
                        receiver.handle_settled(batch.lane, batch.frame);
                    }
                    let _ = sender.sent(batch.lane, batch.frame, batch.weight());
                }
                Frame::Gap(gap) => {
                    if receiver.handle_frame(gap.lane, gap.frame).is_ok() {
                        receiver.handle_settled(gap.lane, gap.frame);
                    }
                    let _ = sender.sent(gap.lane, gap.frame, gap.weight());
                }
                Frame::Ack { lane, frame } => {
                    let _ = sender.handle_ack(lane, frame);
                    receiver.handle_settled(lane, frame);
                }
                Frame::Refused(refused) => {
                    let _ = sender.handle_refused(refused.lane, refused.frame);
                }
                Frame::Hello(_) => sender.handle_disconnect(),
                _ => {}
            }
            while receiver.poll_ack().is_some() {}
            assert!(receiver.in_flight() <= limits::MAX_IN_FLIGHT_FRAMES);
        }
    }
}

fn written(bytes: Bytes) -> Option<Bytes> {
    Frame::decode(bytes).ok().map(|frame| body(&frame))
}

/// A frame without its length. All that was read can be written.
fn body(frame: &Frame) -> Bytes {
    match frame.encode() {
        Ok((head, tail)) => head.into_iter().skip(4).chain(tail).collect(),
        Err(error) => panic!("{frame:?} was read and cannot be written: {error}"),
    }
}

/// A token that somebody has pasted.
pub fn sync_token(data: &[u8]) {
    if let Ok(token) = Token::parse(&String::from_utf8_lossy(data)) {
        assert_eq!(Token::parse(&token.to_string()), Ok(token));
    }
}
