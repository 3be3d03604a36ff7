//! One edge's connection, seen from the core.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sync::{
    AnswerFrame, CloseCode, DictionaryFrame, DownFrame, DownPosition, Frame, FrameReader,
    LaneFrame, Pace, QueryFrame, Receiver, RefuseCode, Refused, limits,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::Transport;
use crate::carrier::{CONTROL_PRIORITY, Carrier, CloseOnDrop, RecvPipe, SendPipe};
use crate::wire::{ReadFrameError, read_frame, say_and_close, write_frame};

/// Bytes of batches that one connection may have between the network and their commit.
const MAX_UNSETTLED_BYTES: usize = 2 * limits::MAX_LANE_FRAME;
/// Batches read ahead of the caller.
const READ_AHEAD: usize = 64;
/// Downlink acknowledgements read ahead of the caller.
const DOWN_ACK_READ_AHEAD: usize = 16;

/// A handle to the connection. Cheap to clone; the connection closes when all clones are dropped.
#[derive(Clone)]
pub struct EdgeConnection {
    shared: Arc<Shared>,
    downlink: Arc<tokio::sync::Mutex<Option<SendPipe>>>,
    _guard: Arc<CloseOnDrop>,
}

struct Shared {
    carrier: Carrier,
    remote: SocketAddr,
    outgoing: Mutex<Outgoing>,
    outgoing_more: Notify,
    unsettled: Arc<Semaphore>,
}

/// What the control stream's writer has to say. Refusals go before acknowledgements, because an acknowledgement covers them.
struct Outgoing {
    receiver: Receiver,
    refused: VecDeque<Refused>,
    queries: VecDeque<QueryFrame>,
    pace: Option<Pace>,
    last_word: Option<Refused>,
}

impl Shared {
    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.carrier.close(code, reason);
    }

    fn violation(&self, reason: &str) {
        tracing::warn!(remote = %self.remote, reason, "an edge broke the sync protocol");
        self.close(CloseCode::Protocol, reason);
    }
}

/// A frame of a lane that has arrived. Keep it until it is settled: dropping it makes room for the next.
pub struct Received {
    pub frame: LaneFrame,
    _room: OwnedSemaphorePermit,
}

/// What comes up the lanes, each lane in its order; the end is the end of the connection.
pub struct Lanes(mpsc::Receiver<Received>);

impl Lanes {
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Received> {
        self.0.recv().await
    }
}

/// What the edge says to [`EdgeConnection::query`], in the order in which it answers.
pub struct Answers(mpsc::Receiver<AnswerFrame>);

impl Answers {
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<AnswerFrame> {
        self.0.recv().await
    }
}

/// A welcome edge: the handle to its connection, and what comes from it.
pub struct WelcomeEdge {
    pub connection: EdgeConnection,
    pub lanes: Lanes,
    pub down_acks: DownAcks,
    pub answers: Answers,
}

/// What the edge has stored of the downlink.
pub struct DownAcks(mpsc::Receiver<DownPosition>);

impl DownAcks {
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<DownPosition> {
        self.0.recv().await
    }
}

impl EdgeConnection {
    pub(crate) fn start(
        guard: CloseOnDrop,
        send: SendPipe,
        recv: RecvPipe,
        reader: FrameReader,
        remote: SocketAddr,
    ) -> WelcomeEdge {
        let shared = Arc::new(Shared {
            carrier: guard.0.clone(),
            remote,
            outgoing: Mutex::new(Outgoing {
                receiver: Receiver::new(),
                refused: VecDeque::new(),
                queries: VecDeque::new(),
                pace: None,
                last_word: None,
            }),
            outgoing_more: Notify::new(),
            unsettled: Arc::new(Semaphore::new(MAX_UNSETTLED_BYTES)),
        });
        let (lanes_tx, lanes_rx) = mpsc::channel(READ_AHEAD);
        let (acks_tx, acks_rx) = mpsc::channel(DOWN_ACK_READ_AHEAD);
        let (answers_tx, answers_rx) = mpsc::channel(limits::MAX_QUERIES);
        tokio::spawn(accept_streams(shared.clone(), lanes_tx, answers_tx));
        tokio::spawn(read_control(shared.clone(), recv, reader, acks_tx));
        tokio::spawn(write_control(shared.clone(), send));
        let connection = EdgeConnection {
            _guard: Arc::new(guard),
            shared,
            downlink: Arc::default(),
        };
        WelcomeEdge {
            connection,
            lanes: Lanes(lanes_rx),
            down_acks: DownAcks(acks_rx),
            answers: Answers(answers_rx),
        }
    }

    pub fn remote(&self) -> SocketAddr {
        self.shared.carrier.remote()
    }

    pub fn transport(&self) -> Transport {
        self.shared.carrier.transport()
    }

    /// The frame is committed (or was before): the acknowledgement goes out once everything before it in its lane is settled too.
    pub fn settle(&self, lane: u8, frame: u64) {
        self.shared.outgoing().receiver.handle_settled(lane, frame);
        self.shared.outgoing_more.notify_one();
    }

    /// The frame will not be taken. A code that is not retryable settles the frame; a retryable one ends the connection once it
    /// has been said, and nothing after it may be settled.
    pub fn refuse(&self, lane: u8, frame: u64, code: RefuseCode, reason: &str) {
        let refused = Refused {
            lane,
            frame,
            code,
            reason: reason.to_owned(),
        };
        {
            let mut outgoing = self.shared.outgoing();
            if code.is_retryable() {
                outgoing.last_word.get_or_insert(refused);
            } else {
                outgoing.refused.push_back(refused);
                outgoing.receiver.handle_settled(lane, frame);
            }
        }
        self.shared.outgoing_more.notify_one();
    }

    /// Asks the edge something about itself; the answer comes from [`Answers`]. At most [`limits::MAX_QUERIES`] may be open.
    pub fn query(&self, query: QueryFrame) {
        self.shared.outgoing().queries.push_back(query);
        self.shared.outgoing_more.notify_one();
    }

    /// Tells the edge how fast to send and when to come back from now on.
    pub fn pace(&self, pace: Pace) {
        self.shared.outgoing().pace = Some(pace);
        self.shared.outgoing_more.notify_one();
    }

    /// Sends commands or configuration; waits while the link is slow. Calls must come one after the other. An error means that
    /// the connection is over. Not cancel-safe.
    pub async fn send_down(&self, frame: DownFrame) -> Result<(), String> {
        self.send_downlink(Frame::Down(frame)).await
    }

    /// Sends a dictionary, as [`EdgeConnection::send_down`] sends commands.
    pub async fn send_dictionary(&self, frame: DictionaryFrame) -> Result<(), String> {
        self.send_downlink(Frame::Dictionary(frame)).await
    }

    async fn send_downlink(&self, frame: Frame) -> Result<(), String> {
        let mut downlink = self.downlink.lock().await;
        let stream = match downlink.as_mut() {
            Some(stream) => stream,
            None => {
                let stream = self
                    .shared
                    .carrier
                    .open_uni(CONTROL_PRIORITY)
                    .await
                    .map_err(|error| error.to_string())?;
                downlink.insert(stream)
            }
        };
        write_frame(stream, &frame)
            .await
            .map_err(|error| error.to_string())
    }

    /// Closes at once.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.shared.close(code, reason);
    }

    /// Resolves with the reason when the connection is over. Cancel-safe.
    pub async fn closed(&self) -> String {
        self.shared.carrier.closed().await.to_string()
    }
}

async fn accept_streams(
    shared: Arc<Shared>,
    lanes: mpsc::Sender<Received>,
    answers: mpsc::Sender<AnswerFrame>,
) {
    while let Ok(recv) = shared.carrier.accept_uni().await {
        tokio::spawn(read_stream(
            shared.clone(),
            recv,
            lanes.clone(),
            answers.clone(),
        ));
    }
}

/// Reads a lane, or one answer: the first frame says which.
async fn read_stream(
    shared: Arc<Shared>,
    mut recv: RecvPipe,
    lanes: mpsc::Sender<Received>,
    answers: mpsc::Sender<AnswerFrame>,
) {
    let mut reader = FrameReader::new(limits::MAX_LANE_FRAME);
    let mut lane = None;
    loop {
        let frame = match read_frame(&mut recv, &mut reader).await {
            Ok(Some(Frame::Batch(frame))) => LaneFrame::Batch(frame),
            Ok(Some(Frame::Gap(frame))) => LaneFrame::Gap(frame),
            Ok(Some(Frame::Answer(answer))) if lane.is_none() => {
                // An error: nobody waits for answers any more, since the connection is over.
                let _ = answers.send(answer).await;
                return;
            }
            Ok(Some(_)) => return shared.violation("a frame that does not belong on a lane"),
            Ok(None) | Err(ReadFrameError::Connection(_)) => return,
            Err(error) => return shared.violation(&error.to_string()),
        };
        if *lane.get_or_insert(frame.lane()) != frame.lane() {
            return shared.violation("two lanes on one stream");
        }
        // The semaphore is never closed; its size covers the largest frame.
        let weight = u32::try_from(frame.weight().min(MAX_UNSETTLED_BYTES)).unwrap_or(u32::MAX);
        let Ok(room) = shared.unsettled.clone().acquire_many_owned(weight).await else {
            return;
        };
        let noted = shared
            .outgoing()
            .receiver
            .handle_frame(frame.lane(), frame.number());
        if let Err(violation) = noted {
            return shared.violation(&violation.to_string());
        }
        if lanes.send(Received { frame, _room: room }).await.is_err() {
            return;
        }
    }
}

async fn read_control(
    shared: Arc<Shared>,
    mut recv: RecvPipe,
    mut reader: FrameReader,
    acks: mpsc::Sender<DownPosition>,
) {
    loop {
        match read_frame(&mut recv, &mut reader).await {
            Ok(Some(Frame::DownAck(position))) => {
                if acks.send(position).await.is_err() {
                    return;
                }
            }
            Ok(Some(_)) => {
                return shared.violation("a frame that does not belong on the control stream");
            }
            Ok(None) | Err(ReadFrameError::Connection(_)) => return,
            Err(error) => return shared.violation(&error.to_string()),
        }
    }
}

/// The only task that writes to the control stream. It ends with the connection.
async fn write_control(shared: Arc<Shared>, mut send: SendPipe) {
    loop {
        let (frames, last_word) = {
            let mut outgoing = shared.outgoing();
            let mut frames: Vec<Frame> = outgoing.refused.drain(..).map(Frame::Refused).collect();
            while let Some((lane, frame)) = outgoing.receiver.poll_ack() {
                frames.push(Frame::Ack { lane, frame });
            }
            frames.extend(outgoing.pace.take().map(Frame::Pace));
            frames.extend(outgoing.queries.drain(..).map(Frame::Query));
            (frames, outgoing.last_word.take())
        };
        for frame in &frames {
            if write_frame(&mut send, frame).await.is_err() {
                return;
            }
        }
        if let Some(refused) = last_word {
            return say_and_close(&shared.carrier, &mut send, Frame::Refused(refused)).await;
        }
        tokio::select! {
            () = shared.outgoing_more.notified() => {}
            _ = shared.carrier.closed() => return,
        }
    }
}
