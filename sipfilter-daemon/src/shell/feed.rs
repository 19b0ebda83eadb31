//! What happens now, for whoever follows it: drops, calls, pinholes, losses, and the packets themselves.
//!
//! It keeps nothing. Invariant: nobody who happens is ever held up by somebody who watches: each reader has [`BACKLOG`] places, a reader
//! that is slower loses the oldest and is told how many, and where nobody watches, nothing is even put together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::broadcast;

use super::sample::Sample;
use crate::{
    engine::{CallNumber, Direction},
    view,
};

/// Events that wait for a slow reader.
pub const BACKLOG: usize = 4_096;
/// Packets that do.
pub const PACKET_BACKLOG: usize = 1_024;
/// Readers at once, of events and of packets each: whoever may follow events keeps nobody from a capture.
pub const MAX_READERS: usize = 16;

/// The sending end; its copies all feed the same readers.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Channels>);

#[derive(Debug)]
struct Channels {
    events: broadcast::Sender<Arc<view::Event>>,
    packets: broadcast::Sender<Arc<Packet>>,
    events_readers: AtomicUsize,
    packets_readers: AtomicUsize,
}

/// A packet that somebody may want to have in a file.
#[derive(Debug, Clone)]
pub enum Packet {
    /// One that the rules call to drop.
    Dropped {
        /// When.
        at: SystemTime,
        /// The sample.
        sample: Box<Sample>,
        /// The call that it nearly belonged to.
        near: Option<view::Near>,
    },
    /// A copy of signalling, from its IP header on.
    Signalling {
        /// When.
        at: SystemTime,
        /// Which way it went.
        direction: Direction,
        /// The IP packet.
        bytes: Vec<u8>,
        /// The kernel could copy only the beginning.
        truncated: bool,
        /// The calls that it moved.
        calls: Vec<CallNumber>,
    },
}

/// A reader's place.
#[derive(Debug)]
pub struct Reader<T> {
    channel: broadcast::Receiver<Arc<T>>,
    // Last, so that the place is free only once the channel is.
    _place: Place,
}

#[derive(Debug)]
struct Place {
    channels: Arc<Channels>,
    among: fn(&Channels) -> &AtomicUsize,
}

/// What a reader gets.
#[derive(Debug)]
pub enum Next<T> {
    /// The next one.
    One(Arc<T>),
    /// So many were lost, because the reader was too slow.
    Missed(u64),
}

impl Default for Feed {
    fn default() -> Self {
        Self(Arc::new(Channels {
            events: broadcast::Sender::new(BACKLOG),
            packets: broadcast::Sender::new(PACKET_BACKLOG),
            events_readers: AtomicUsize::new(0),
            packets_readers: AtomicUsize::new(0),
        }))
    }
}

impl Feed {
    /// Tells what happened, if anybody watches; `event` is only put together then.
    pub fn publish(&self, at: SystemTime, event: impl FnOnce() -> view::Occurrence) {
        if self.0.events.receiver_count() > 0 {
            // Whoever has just gone misses nothing.
            let _ = self.0.events.send(Arc::new(view::Event {
                at: view::time(at),
                what: event(),
            }));
        }
    }

    /// Whether anybody wants packets.
    pub fn wants_packets(&self) -> bool {
        self.0.packets.receiver_count() > 0
    }

    /// Hands a packet on, if anybody wants it.
    pub fn publish_packet(&self, packet: impl FnOnce() -> Packet) {
        if self.wants_packets() {
            let _ = self.0.packets.send(Arc::new(packet()));
        }
    }

    /// Follows what happens; `None` where there are [`MAX_READERS`] already.
    pub fn events(&self) -> Option<Reader<view::Event>> {
        Some(Reader {
            _place: Place::take(&self.0, |channels| &channels.events_readers)?,
            channel: self.0.events.subscribe(),
        })
    }

    /// Follows packets; `None` where there are [`MAX_READERS`] already.
    pub fn packets(&self) -> Option<Reader<Packet>> {
        Some(Reader {
            _place: Place::take(&self.0, |channels| &channels.packets_readers)?,
            channel: self.0.packets.subscribe(),
        })
    }
}

impl Place {
    fn take(channels: &Arc<Channels>, among: fn(&Channels) -> &AtomicUsize) -> Option<Self> {
        among(channels)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |readers| {
                (readers < MAX_READERS).then_some(readers + 1)
            })
            .ok()?;
        Some(Self {
            channels: Arc::clone(channels),
            among,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.among)(&self.channels).fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T> Reader<T> {
    /// Waits for the next one; `None` if there will be none. Cancelling the wait loses nothing.
    pub async fn next(&mut self) -> Option<Next<T>> {
        match self.channel.recv().await {
            Ok(one) => Some(Next::One(one)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Next::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(packets: u64) -> view::Occurrence {
        view::Occurrence::Lost { packets }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
        let feed = Feed::default();
        let mut slow = feed.events().expect("a place");
        for number in 0..BACKLOG as u64 + 10 {
            feed.publish(SystemTime::UNIX_EPOCH, || loss(number));
        }
        let missed = slow.next().await;
        assert!(matches!(missed, Some(Next::Missed(10))), "{missed:?}");
        let Some(Next::One(event)) = slow.next().await else {
            panic!("the rest is there");
        };
        assert_eq!(event.what, loss(10));
    }

    #[test]
    fn without_a_reader_nothing_is_put_together() {
        let feed = Feed::default();
        feed.publish(SystemTime::UNIX_EPOCH, || panic!("nobody watches"));
        feed.publish_packet(|| panic!("nobody watches"));
        let reader = feed.events();
        feed.publish_packet(|| panic!("nobody wants packets"));
        drop(reader);
        feed.publish(SystemTime::UNIX_EPOCH, || panic!("nobody watches any more"));
    }

    #[test]
    fn there_are_only_so_many_readers_and_each_leaves_its_place_to_the_next() {
        let feed = Feed::default();
        let mut readers: Vec<_> = (0..MAX_READERS).filter_map(|_| feed.events()).collect();
        assert!(readers.len() == MAX_READERS && feed.events().is_none());
        // They are in nobody's way who wants packets.
        let captures: Vec<_> = (0..MAX_READERS).filter_map(|_| feed.packets()).collect();
        assert!(captures.len() == MAX_READERS && feed.packets().is_none());
        readers.pop();
        assert!(feed.events().is_some() && feed.packets().is_none());
    }
}
