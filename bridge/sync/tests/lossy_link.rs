//! A sender and a receiver over a link that is cut at any moment, with everything in flight lost. Whatever happens: the core's log
//! has every frame once and in order, and the edge hears an acknowledgement only of what was committed before. What the edge evicts
//! meanwhile is said in its place: each frame is in the log or in a reported gap, and no hole is taken for granted.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use sync::{
    BatchFlags, BatchFrame, Frame, FrameReader, GapFrame, LaneFrame, Receiver, ReceiverViolation,
    Sender, SenderViolation, Window, limits,
};

const LANES: u8 = 3;
const FRAMES: u64 = 40;

#[derive(Debug, Clone)]
enum Step {
    /// The edge sends the next frame of a lane, if the window has room.
    Send(u8),
    /// Bytes arrive at the core.
    Up(usize),
    /// Bytes arrive at the edge.
    Down(usize),
    /// The core commits one of the lanes' oldest batch in flight.
    Commit(u8),
    /// The outbox of a lane is full: so many of the oldest frames that are not acknowledged go.
    Evict(u8, u64),
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..LANES).prop_map(Step::Send),
        6 => (1_usize..200).prop_map(Step::Up),
        4 => (1_usize..40).prop_map(Step::Down),
        5 => (0..LANES).prop_map(Step::Commit),
        1 => (0..LANES, 1_u64..6).prop_map(|(lane, frames)| Step::Evict(lane, frames)),
        1 => Just(Step::Cut),
    ]
}

/// One connection: everything in it is lost with it.
struct Link {
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    at_core: FrameReader,
    at_edge: FrameReader,
    receiver: Receiver,
    committing: BTreeMap<u8, VecDeque<LaneFrame>>,
}

impl Link {
    fn new() -> Link {
        Link {
            up: VecDeque::new(),
            down: VecDeque::new(),
            at_core: FrameReader::new(limits::MAX_LANE_FRAME),
            at_edge: FrameReader::new(limits::MAX_CONTROL_FRAME),
            receiver: Receiver::new(),
            committing: BTreeMap::new(),
        }
    }
}

struct World {
    sender: Sender,
    /// Where the edge reads on, by lane: after a cut, behind what was acknowledged.
    cursor: [u64; LANES as usize],
    acked: [u64; LANES as usize],
    /// The last frame that was evicted, by lane.
    evicted: [u64; LANES as usize],
    link: Link,
    /// What the core's log holds, by lane.
    log: [Vec<u64>; LANES as usize],
    /// What it was told is missing: first and last.
    gaps: [Vec<(u64, u64)>; LANES as usize],
    /// What it expects next. A frame before it is a duplicate, one behind it is a hole (the strict rule).
    next: [u64; LANES as usize],
}

fn take(queue: &mut VecDeque<u8>, count: usize) -> Vec<u8> {
    let count = count.min(queue.len());
    queue.drain(..count).collect()
}

impl World {
    fn new() -> World {
        World {
            sender: Sender::new(Window {
                bytes: 1500,
                frames: 12,
            }),
            cursor: [1; LANES as usize],
            acked: [0; LANES as usize],
            evicted: [0; LANES as usize],
            link: Link::new(),
            log: Default::default(),
            gaps: Default::default(),
            next: [1; LANES as usize],
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send(lane) => self.send(*lane),
            Step::Up(count) => self.up(*count),
            Step::Down(count) => self.down(*count),
            Step::Commit(lane) => self.commit(*lane),
            Step::Evict(lane, frames) => {
                let lane = *lane as usize;
                let from = self.acked[lane].max(self.evicted[lane]);
                self.evicted[lane] = (from + frames).min(FRAMES);
            }
            Step::Cut => {
                self.link = Link::new();
                self.sender.handle_disconnect();
                for lane in 0..LANES {
                    assert_eq!(
                        self.sender.acked(lane).unwrap_or(0),
                        self.acked[lane as usize]
                    );
                    self.cursor[lane as usize] = self.acked[lane as usize] + 1;
                }
            }
        }
    }

    fn send(&mut self, lane: u8) {
        let number = self.cursor[lane as usize];
        let evicted = self.evicted[lane as usize];
        if number > FRAMES {
            return;
        }
        let frame = if number <= evicted {
            LaneFrame::Gap(GapFrame {
                lane,
                frame: evicted,
                report: Bytes::from(number.to_string()),
                producer_id: i64::from(lane),
                epoch: 0,
                next: vec![("s".to_owned(), evicted as i32 + 1)],
            })
        } else {
            LaneFrame::Batch(BatchFrame {
                lane,
                frame: number,
                stream: "s".to_owned(),
                flags: BatchFlags::empty(),
                link: None,
                batch: Bytes::from(vec![lane; 1 + (number as usize * 37) % 300]),
            })
        };
        let (last, weight) = (frame.number(), frame.weight());
        if !self.sender.has_room(weight) {
            return;
        }
        self.sender.sent(lane, last, weight).unwrap();
        self.cursor[lane as usize] = last + 1;
        let frame = match frame {
            LaneFrame::Batch(frame) => Frame::Batch(frame),
            LaneFrame::Gap(frame) => Frame::Gap(frame),
        };
        let (head, batch) = frame.encode().unwrap();
        self.link.up.extend(head);
        self.link.up.extend(batch);
    }

    fn up(&mut self, count: usize) {
        let bytes = take(&mut self.link.up, count);
        self.link.at_core.push(&bytes);
        while let Some(frame) = self.link.at_core.next_frame().unwrap() {
            let frame = match frame {
                Frame::Batch(frame) => LaneFrame::Batch(frame),
                Frame::Gap(frame) => LaneFrame::Gap(frame),
                other => panic!("{other:?} on a lane"),
            };
            let (lane, number) = (frame.lane(), frame.number());
            self.link.receiver.handle_frame(lane, number).unwrap();
            let committing = self.link.committing.entry(lane).or_default();
            committing.push_back(frame);
        }
    }

    fn commit(&mut self, lane: u8) {
        let oldest = self
            .link
            .committing
            .get_mut(&lane)
            .and_then(VecDeque::pop_front);
        let Some(frame) = oldest else { return };
        let (number, next) = (frame.number(), &mut self.next[lane as usize]);
        match &frame {
            LaneFrame::Batch(_) => {
                assert!(
                    number <= *next,
                    "a hole before {number} that nobody has told of"
                );
                if number == *next {
                    self.log[lane as usize].push(number);
                    *next = number + 1;
                }
            }
            LaneFrame::Gap(gap) => {
                let first = std::str::from_utf8(&gap.report).unwrap().parse().unwrap();
                self.gaps[lane as usize].push((first, number));
                *next = (*next).max(gap.next[0].1 as u64);
            }
        }
        self.link.receiver.handle_settled(lane, number);
        while let Some((lane, frame)) = self.link.receiver.poll_ack() {
            let (head, _) = Frame::Ack { lane, frame }.encode().unwrap();
            self.link.down.extend(head);
        }
    }

    fn down(&mut self, count: usize) {
        let bytes = take(&mut self.link.down, count);
        self.link.at_edge.push(&bytes);
        while let Some(frame) = self.link.at_edge.next_frame().unwrap() {
            let Frame::Ack { lane, frame } = frame else {
                panic!("not an acknowledgement")
            };
            self.sender.handle_ack(lane, frame).unwrap();
            let committed = self.next[lane as usize] - 1;
            assert!(
                frame <= committed,
                "frame {frame} acknowledged, {committed} committed"
            );
            self.acked[lane as usize] = frame;
        }
    }

    fn is_done(&self) -> bool {
        self.acked.iter().all(|acked| *acked == FRAMES)
    }
}

proptest! {
    #[test]
    fn every_frame_is_committed_once_and_in_order_or_reported(steps in prop::collection::vec(step(), 0..1500)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        // The link comes back and stays.
        world.step(&Step::Cut);
        for _ in 0..10_000 {
            if world.is_done() {
                break;
            }
            for lane in 0..LANES {
                world.step(&Step::Send(lane));
                world.step(&Step::Commit(lane));
            }
            world.step(&Step::Up(500));
            world.step(&Step::Down(500));
        }
        prop_assert!(world.is_done(), "acknowledged only {:?}", world.acked);
        for (log, gaps) in world.log.iter().zip(&world.gaps) {
            prop_assert!(log.is_sorted_by(|a, b| a < b), "{log:?}");
            for frame in 1..=FRAMES {
                let reported = gaps.iter().any(|(first, last)| (*first..=*last).contains(&frame));
                prop_assert!(log.contains(&frame) || reported, "frame {frame} vanished: {gaps:?}");
            }
        }
        prop_assert_eq!((world.sender.in_flight_bytes(), world.sender.in_flight_frames()), (0, 0));
    }

    #[test]
    fn commits_in_any_order_are_acknowledged_in_order(order in Just((1_u64..=20).collect::<Vec<_>>()).prop_shuffle()) {
        let mut receiver = Receiver::new();
        for frame in 1..=20 {
            receiver.handle_frame(0, frame).unwrap();
        }
        let mut settled = std::collections::BTreeSet::new();
        for frame in order {
            settled.insert(frame);
            receiver.handle_settled(0, frame);
            let gapless = (1..=20).take_while(|frame| settled.contains(frame)).last();
            if let Some((_, acked)) = receiver.poll_ack() {
                prop_assert_eq!(Some(acked), gapless);
            }
        }
        prop_assert_eq!(receiver.in_flight(), 0);
    }
}

#[test]
fn rules_of_the_lanes() {
    let mut sender = Sender::new(Window {
        bytes: 100,
        frames: 3,
    });
    assert!(
        sender.has_room(1_000_000),
        "an empty window takes any one frame"
    );
    sender.sent(0, 5, 90).unwrap();
    assert!(!sender.has_room(20));
    let repeated = SenderViolation::NotIncreasing {
        lane: 0,
        frame: 5,
        last: 5,
    };
    assert_eq!(sender.sent(0, 5, 1), Err(repeated));
    let unknown = SenderViolation::AckNotInFlight { lane: 0, frame: 6 };
    assert_eq!(sender.handle_ack(0, 6), Err(unknown));
    let other_lane = SenderViolation::AckNotInFlight { lane: 1, frame: 5 };
    assert_eq!(sender.handle_ack(1, 5), Err(other_lane));
    assert_eq!(sender.handle_ack(0, 5), Ok(1));
    assert_eq!(
        sender.handle_ack(0, 5),
        Ok(0),
        "a repetition settles nothing"
    );
    assert_eq!(
        sender.handle_refused(0, 5),
        Err(SenderViolation::RefusalNotInFlight { lane: 0, frame: 5 })
    );

    let mut receiver = Receiver::new();
    receiver.handle_frame(0, 7).unwrap();
    let back = ReceiverViolation::NotIncreasing {
        lane: 0,
        frame: 7,
        last: 7,
    };
    assert_eq!(receiver.handle_frame(0, 7), Err(back));
    for lane in 1..limits::MAX_LANES as u8 {
        receiver.handle_frame(lane, 1).unwrap();
    }
    let many = limits::MAX_LANES as u8;
    assert_eq!(
        receiver.handle_frame(many, 1),
        Err(ReceiverViolation::TooManyLanes(many))
    );
}
