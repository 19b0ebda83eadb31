//! Signalling copies out of the two ring buffers, in the order of their time.
//!
//! It hands records on as they are; what is in them is the engine's matter. Invariant: a packet that follows from another one comes
//! after it, whichever way each of them went.

use std::io;

use aya::maps::{MapData, RingBuf};
use sipfilter_common::{
    abi::map,
    record::{EGRESS, INGRESS, RecordHeader},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    clock,
    datapath::{Datapath, DatapathError},
    watch::watch,
};
use crate::engine::{Direction, Input, Instant};

/// How many records are handed on before other work gets its turn.
const BATCH: usize = 256;

/// How many that are there by now are handed on at once: a flood of them must not keep the task from what it wants to do.
const READY: usize = 4_096;

/// The ring buffers' reading ends.
pub struct Capture {
    arriving: Tap,
    leaving: Tap,
}

/// One ring buffer, and the record that was taken out of it and waits for its turn.
struct Tap {
    ring: AsyncFd<RingBuf<MapData>>,
    head: Option<RecordHeader>,
    /// The packet of `head`.
    bytes: Vec<u8>,
}

/// Why capturing stopped or cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The map is missing.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// A ring buffer cannot be waited for.
    #[error("the ring buffers of signalling copies: {0}")]
    Ring(#[from] io::Error),
}

impl Capture {
    /// Takes the ring buffers over.
    ///
    /// # Errors
    /// [`CaptureError`]. Must run inside a tokio runtime.
    pub fn new(datapath: &mut Datapath) -> Result<Self, CaptureError> {
        Ok(Self {
            arriving: Tap::new(datapath, map::SIGNALLING_IN)?,
            leaving: Tap::new(datapath, map::SIGNALLING_OUT)?,
        })
    }

    /// Waits for records and hands each to `handle`, a batch at a time. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// What the event queue says.
    pub async fn read(&mut self, mut handle: impl FnMut(Instant, Input<'_>)) -> io::Result<()> {
        if self.arriving.head.is_none() && self.leaving.head.is_none() {
            // Whichever it is, both are looked at; only a look that finds nothing unmakes readiness.
            let mut ready = tokio::select! {
                ready = self.arriving.ring.readable_mut() => ready?,
                ready = self.leaving.ring.readable_mut() => ready?,
            };
            ready.retain_ready();
        }
        for _ in 0..BATCH {
            let Some(tap) = self.next() else { break };
            if let Some((time, input)) = tap.take() {
                handle(time, input);
            }
        }
        Ok(())
    }

    /// Hands on what is there by now, without waiting for more.
    pub fn read_ready(&mut self, mut handle: impl FnMut(Instant, Input<'_>)) {
        for _ in 0..READY {
            let Some(tap) = self.next() else { break };
            if let Some((time, input)) = tap.take() {
                handle(time, input);
            }
        }
    }

    /// Where the oldest record waits.
    fn next(&mut self) -> Option<&mut Tap> {
        self.arriving.fill();
        self.leaving.fill();
        // The record that leaves may follow from one that arrived after the first look found nothing.
        self.arriving.fill();
        match (&self.arriving.head, &self.leaving.head) {
            (None, None) => None,
            (Some(_), None) => Some(&mut self.arriving),
            (Some(arriving), Some(leaving)) if arriving.time < leaving.time => {
                Some(&mut self.arriving)
            }
            (_, Some(_)) => Some(&mut self.leaving),
        }
    }
}

impl Tap {
    fn new(datapath: &mut Datapath, name: &'static str) -> Result<Self, CaptureError> {
        let ring: RingBuf<MapData> = datapath.take(name)?;
        Ok(Self {
            ring: watch(ring)?,
            head: None,
            bytes: Vec::new(),
        })
    }

    /// Takes the next record out, if none waits.
    fn fill(&mut self) {
        let Self { ring, head, bytes } = self;
        if head.is_some() {
            return;
        }
        *head = take_record(ring.get_mut(), bytes);
        if head.is_none() {
            // A ring is waited for only once a look that began after the last event has found nothing.
            *head = ring
                .try_io_mut(Interest::READABLE, |ring| {
                    take_record(ring, bytes).ok_or_else(|| io::ErrorKind::WouldBlock.into())
                })
                .ok();
        }
    }

    /// The waiting record as the engine's input; one of an unknown direction comes from another version and is left out.
    fn take(&mut self) -> Option<(Instant, Input<'_>)> {
        let header = self.head.take()?;
        let direction = match header.direction {
            INGRESS => Direction::Ingress,
            EGRESS => Direction::Egress,
            _ => return None,
        };
        Some((
            clock::from_kernel(header.time),
            Input::Packet {
                direction,
                bytes: &self.bytes,
                truncated: header.is_truncated(),
            },
        ))
    }
}

/// The next record, copied, so that its place in the ring is free at once. One that contradicts itself is left out.
fn take_record(ring: &mut RingBuf<MapData>, bytes: &mut Vec<u8>) -> Option<RecordHeader> {
    while let Some(record) = ring.next() {
        if let Some((header, packet)) = RecordHeader::split(&record) {
            bytes.clear();
            bytes.extend_from_slice(packet);
            return Some(header);
        }
    }
    None
}
