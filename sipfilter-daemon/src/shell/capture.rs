//! Signalling copies out of the ring buffer.
//!
//! It hands records on as they are; what is in them is the engine's matter.

use std::io;

use aya::maps::{MapData, RingBuf};
use sipfilter_common::{
    abi::map,
    record::{EGRESS, INGRESS, RecordHeader},
};
use tokio::io::unix::AsyncFd;

use super::{
    clock,
    datapath::{Datapath, DatapathError},
    watch::watch,
};
use crate::engine::{Direction, Input, Instant};

/// How many records are handed on before other work gets its turn.
const BATCH: usize = 256;

/// The ring buffer's reading end.
pub struct Capture {
    ring: AsyncFd<RingBuf<MapData>>,
}

/// Why capturing stopped or cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The map is missing.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The ring buffer cannot be waited for.
    #[error("the ring buffer of signalling copies: {0}")]
    Ring(#[from] io::Error),
}

impl Capture {
    /// Takes the ring buffer over.
    ///
    /// # Errors
    /// [`CaptureError`]. Must run inside a tokio runtime.
    pub fn new(datapath: &mut Datapath) -> Result<Self, CaptureError> {
        let ring: RingBuf<MapData> = datapath.take(map::SIGNALLING)?;
        Ok(Self { ring: watch(ring)? })
    }

    /// Waits for records and hands each to `handle`, a batch at a time. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// What the event queue says.
    pub async fn read(&mut self, mut handle: impl FnMut(Instant, Input<'_>)) -> io::Result<()> {
        let mut ready = self.ring.readable_mut().await?;
        let ring = ready.get_inner_mut();
        for _ in 0..BATCH {
            let Some(record) = ring.next() else {
                // The kernel signals anew when a record follows on an emptied ring.
                ready.clear_ready();
                break;
            };
            if let Some((time, input)) = read_record(&record) {
                handle(time, input);
            }
        }
        Ok(())
    }
}

/// One record as the engine's input; one that contradicts itself comes from another version and is left out.
fn read_record(record: &[u8]) -> Option<(Instant, Input<'_>)> {
    let (header, bytes) = RecordHeader::split(record)?;
    let direction = match header.direction {
        INGRESS => Direction::Ingress,
        EGRESS => Direction::Egress,
        _ => return None,
    };
    Some((
        clock::from_kernel(header.time),
        Input::Packet {
            direction,
            bytes,
            truncated: header.is_truncated(),
        },
    ))
}
