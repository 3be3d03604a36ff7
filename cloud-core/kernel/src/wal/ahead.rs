//! Reading the files of the log one after another, ahead of whoever uses what is in them: pieces of bounded size are read by the pool, two or
//! more at the same time, into buffers that are used again. Fresh memory, and a device that is asked for one thing at a time, cost more than
//! everything else that a recovery does.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use bytes::{Bytes, BytesMut};

use super::scan::{Found, Opened, Planned, open};
use crate::error::OpenError;
use crate::limits::{RECOVERY_PIECE_BYTES, RECOVERY_PIECES};
use crate::pool::Pool;
use crate::ports::{Disk, DiskFile};

/// The files of a plan, and pieces of them that are read or being read.
pub(crate) struct ReadAhead<'a> {
    disk: &'a dyn Disk,
    pool: &'a Pool,
    /// Files that were not opened yet.
    planned: std::slice::Iter<'a, Planned>,
    /// What of the newest file that was opened is still to be asked for.
    open: Option<Rest>,
    queue: VecDeque<Step>,
    /// Pieces in `queue`.
    pieces: usize,
    /// To be used again.
    buffers: Vec<BytesMut>,
}

/// Files and pieces in their order.
enum Step {
    /// A file begins; its pieces follow.
    File(Result<Found, OpenError>),
    Piece(Receiver<io::Result<BytesMut>>),
}

struct Rest {
    file: Arc<dyn DiskFile>,
    at: u64,
    until: u64,
}

impl<'a> ReadAhead<'a> {
    pub fn new(disk: &'a dyn Disk, pool: &'a Pool, planned: &'a [Planned]) -> ReadAhead<'a> {
        ReadAhead {
            disk,
            pool,
            planned: planned.iter(),
            open: None,
            queue: VecDeque::new(),
            pieces: 0,
            buffers: Vec::new(),
        }
    }

    /// The next file of the plan; what was not taken of the one before is passed over.
    pub fn next_file(&mut self) -> Result<Option<Found>, OpenError> {
        loop {
            self.fill();
            match self.queue.pop_front() {
                Some(Step::File(found)) => return found.map(Some),
                Some(Step::Piece(piece)) => {
                    self.pieces -= 1;
                    if let Ok(Ok(buffer)) = piece.recv() {
                        self.buffers.push(buffer);
                    }
                }
                None => return Ok(None),
            }
        }
    }

    /// The next piece of the file; `None` at its end, or where nothing but zeros follows as far as the system knows.
    pub fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        self.fill();
        if !matches!(self.queue.front(), Some(Step::Piece(_))) {
            return Ok(None);
        }
        let Some(Step::Piece(piece)) = self.queue.pop_front() else {
            return Ok(None);
        };
        self.pieces -= 1;
        // The pool is closed when the kernel is.
        let read = piece.recv().map_err(|_| io::ErrorKind::Interrupted)??;
        Ok(Some(read.freeze()))
    }

    /// Takes the memory of a piece back. If somebody keeps a part of it, it is theirs.
    pub fn give_back(&mut self, piece: Bytes) {
        self.buffers.extend(piece.try_into_mut().ok());
    }

    /// Nothing more is wanted of the file of which the last piece was.
    pub fn leave_file(&mut self) {
        if !self.queue.iter().any(|step| matches!(step, Step::File(_))) {
            self.open = None;
        }
    }

    /// Has as much read as may be on its way.
    fn fill(&mut self) {
        // Without threads nothing is won by reading what may not be wanted.
        let most = if self.pool.is_inline() {
            1
        } else {
            RECOVERY_PIECES
        };
        while self.pieces < most {
            match self.open.take() {
                Some(rest) => self.open = self.read(rest),
                // One file at a time is open ahead.
                None if self.queue.iter().any(|s| matches!(s, Step::File(_))) => return,
                None => match self.planned.next() {
                    Some(planned) => self.begin(planned),
                    None => return,
                },
            }
        }
    }

    fn begin(&mut self, planned: &Planned) {
        let found = open(self.disk, planned);
        if let Ok(Found::Frames(Opened {
            file, from, bytes, ..
        })) = &found
        {
            self.open = Some(Rest {
                file: file.clone(),
                at: *from,
                until: *bytes,
            });
        }
        self.queue.push_back(Step::File(found));
    }

    /// Asks for the next piece; returns what is left after it.
    fn read(&mut self, rest: Rest) -> Option<Rest> {
        let Rest { file, at, until } = rest;
        let left = usize::try_from(until.saturating_sub(at)).unwrap_or(usize::MAX);
        let wanted = left.min(RECOVERY_PIECE_BYTES);
        // Where a frame should be there is nothing: that is the end, whatever comes after it.
        let is_nothing = |data: u64| data >= at + wanted as u64;
        if wanted == 0 || file.next_data(at).is_ok_and(is_nothing) {
            return None;
        }
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.resize(wanted, 0);
        let (sender, receiver) = mpsc::channel();
        let reader = file.clone();
        self.pool.submit(move || {
            let read = reader.read_at(at, &mut buffer);
            // Whoever asked may have given up.
            let _ = sender.send(read.map(|()| buffer));
        });
        self.queue.push_back(Step::Piece(receiver));
        self.pieces += 1;
        let at = at + wanted as u64;
        Some(Rest { file, at, until })
    }
}
