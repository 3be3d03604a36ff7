//! The floor of a comparison: one thread that receives from many and sends to one, with large buffers, and looks at nothing but the lengths
//! of packets. What a broker does besides comes on top, as long as it lets the system copy what it receives and what it sends.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;

use anyhow::{Context, Result};
use clap::Args;
use rustix::event::{PollFd, PollFlags, epoll, poll};

use crate::extent;

/// Bytes that are received at a time, at most.
const PIECE: usize = 256 * 1024;
const PUBLISH: u8 = 3;

#[derive(Debug, Args)]
pub struct Relay {
    /// Where it listens; everything that is published at QoS 0 goes to the client that subscribed last
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,
}

struct Connection {
    stream: Rc<TcpStream>,
    /// The beginning of a packet whose end was not there yet, and room for a piece.
    buffer: Vec<u8>,
    kept: usize,
}

/// Runs until it is killed.
pub fn relay(options: &Relay) -> Result<()> {
    let listener = TcpListener::bind(&options.listen).with_context(|| options.listen.clone())?;
    let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let watch = |fd: &dyn AsFd, number: RawFd| {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&events, fd.as_fd(), data, epoll::EventFlags::IN)
    };
    watch(&listener, listener.as_raw_fd())?;
    let mut connections: HashMap<RawFd, Connection> = HashMap::new();
    let mut reader: Option<Rc<TcpStream>> = None;
    let mut ready = Vec::with_capacity(256);
    loop {
        ready.clear();
        epoll::wait(&events, rustix::buffer::spare_capacity(&mut ready), None)?;
        for event in &ready {
            let number = event.data.u64() as RawFd;
            if number == listener.as_raw_fd() {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let number = stream.as_raw_fd();
                watch(&stream, number)?;
                let connection = Connection {
                    stream: Rc::new(stream),
                    buffer: Vec::new(),
                    kept: 0,
                };
                connections.insert(number, connection);
            } else if let Some(connection) = connections.get_mut(&number)
                && !connection.serve(&mut reader).unwrap_or(false)
            {
                reader = reader.filter(|reader| !Rc::ptr_eq(reader, &connection.stream));
                connections.remove(&number);
            }
        }
    }
}

impl Connection {
    /// What has come; false at its end.
    fn serve(&mut self, reader: &mut Option<Rc<TcpStream>>) -> Result<bool> {
        self.buffer.resize(self.kept + PIECE, 0);
        let got = match (&*self.stream).read(&mut self.buffer[self.kept..]) {
            Ok(0) => return Ok(false),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let end = self.kept + got;
        // Messages in a row are sent with one call.
        let (mut from, mut at) = (0, 0);
        while let Some((body, next)) = extent(&self.buffer[at..end])?
            && at + next <= end
        {
            let kind = self.buffer[at] >> 4;
            if kind != PUBLISH {
                send(reader.as_deref(), &self.buffer[from..at])?;
                from = at + next;
                let id = self.buffer.get(at + body..at + body + 2).unwrap_or(&[0; 2]);
                let reply = match kind {
                    1 => vec![0x20, 2, 0, 0],
                    8 => vec![0x90, 3, id[0], id[1], 0],
                    12 => vec![0xd0, 0],
                    _ => Vec::new(),
                };
                if kind == 8 {
                    *reader = Some(Rc::clone(&self.stream));
                }
                send(Some(&self.stream), &reply)?;
            }
            at += next;
        }
        send(reader.as_deref(), &self.buffer[from..at])?;
        self.buffer.copy_within(at..end, 0);
        self.kept = end - at;
        Ok(true)
    }
}

fn send(to: Option<&TcpStream>, mut bytes: &[u8]) -> Result<()> {
    let Some(mut to) = to else {
        return Ok(());
    };
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
