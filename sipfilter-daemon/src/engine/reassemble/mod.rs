//! What SIP needs before it is whole: IP fragments put together, TCP streams put in order and cut into messages.
//!
//! [`Reassembler`] takes captured IP packets and hands on the bytes of whole messages with the [`Flow`] they were seen on: a UDP
//! datagram's payload, or one message of a TCP stream. It does not read SIP beyond a message's end, and it does not judge who may
//! speak (`run` does). Whole UDP datagrams, nearly all of the traffic, are handed on as they lie in the packet, without touching a
//! table.
//!
//! Its tables are ordered maps, so no peer can aim hash collisions at them and a run replays exactly. Every drop has a [`Count`].
//! Memory stays below [`Limits`] whatever arrives.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

mod connection;
pub mod counts;
pub mod ip_frag;
pub mod ledger;
mod stream_reader;
pub mod stream_table;
mod tcp_stream;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
};

use sipfilter_common::parse::{self, Malformed, Ports};

use super::{
    Direction, Flow, Instant,
    decode::{self, Content},
    settings::Transport,
};
use counts::{Count, Counts};
use ip_frag::{FragmentLimits, FragmentTable};
use ledger::Usage;
use stream_table::{StreamLimits, StreamTable};

/// Caps and patience of both tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Of IP fragments.
    pub fragments: FragmentLimits,
    /// Of TCP streams.
    pub streams: StreamLimits,
}

/// Bytes that should be one SIP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Where they were seen.
    pub flow: Flow,
    /// UDP or TCP.
    pub transport: Transport,
    /// The bytes. Those of a stream are one message exactly as it was framed.
    pub bytes: Cow<'a, [u8]>,
}

/// Puts packets together. Time is a parameter and must not run backwards.
///
/// After [`Self::handle_packet`] and [`Self::handle_timeout`], call [`Self::poll_delivery`] until it is empty.
#[derive(Debug)]
pub struct Reassembler {
    fragments: FragmentTable,
    streams: StreamTable,
    counts: Counts,
    messages: VecDeque<Delivery<'static>>,
}

impl Reassembler {
    /// A reassembler that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        Self {
            fragments: FragmentTable::new(limits.fragments),
            streams: StreamTable::new(limits.streams),
            counts: Counts::default(),
            messages: VecDeque::new(),
        }
    }

    /// Takes an IP packet from its IP header on. Returns the UDP payload that it holds or completes; messages of streams wait for
    /// [`Self::poll_delivery`]. TCP is followed only where `follows` says so.
    ///
    /// # Errors
    /// [`Malformed`] if a header is cut short or contradicts itself.
    pub fn handle_packet<'a>(
        &mut self,
        now: Instant,
        direction: Direction,
        bytes: &'a [u8],
        follows: &mut dyn FnMut(&Flow) -> bool,
    ) -> Result<Option<Delivery<'a>>, Malformed> {
        let taken = self.take_packet(now, direction, bytes, follows);
        if taken.is_err() {
            self.counts.one(Count::PacketMalformed);
        }
        taken
    }

    /// Carries out what is due by now. Messages that waited behind a hole come out of [`Self::poll_delivery`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.fragments.handle_timeout(now, &mut self.counts);
        let messages = &mut self.messages;
        self.streams
            .handle_timeout(now, &mut self.counts, &mut |flow, bytes| {
                messages.push_back(message(flow, bytes));
            });
    }

    /// The next message of a stream.
    pub fn poll_delivery(&mut self) -> Option<Delivery<'static>> {
        self.messages.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.fragments.poll_timeout(), self.streams.poll_timeout()) {
            (Some(fragments), Some(streams)) => Some(fragments.min(streams)),
            (fragments, streams) => fragments.or(streams),
        }
    }

    /// What was counted since the start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Datagrams that wait for fragments, and the bytes charged for them.
    pub fn fragment_usage(&self) -> Usage {
        self.fragments.usage()
    }

    /// Connections that are followed, and the bytes charged for them.
    pub fn stream_usage(&self) -> Usage {
        self.streams.usage()
    }

    fn take_packet<'a>(
        &mut self,
        now: Instant,
        direction: Direction,
        bytes: &'a [u8],
        follows: &mut dyn FnMut(&Flow) -> bool,
    ) -> Result<Option<Delivery<'a>>, Malformed> {
        let packet = decode::read_packet(bytes)?;
        let way = (direction, packet.source, packet.destination);
        match packet.content {
            Content::Whole { protocol, payload } => {
                let datagram = self.take_transport(now, way, protocol, payload, follows)?;
                Ok(datagram.map(|(flow, payload)| datagram_of(flow, Cow::Borrowed(payload))))
            }
            Content::Part(part) => {
                let Some(whole) = self.fragments.add(now, way, &part, &mut self.counts) else {
                    return Ok(None);
                };
                let datagram =
                    self.take_transport(now, way, whole.protocol, whole.payload(), follows)?;
                Ok(datagram.map(|(flow, payload)| datagram_of(flow, payload.to_vec().into())))
            }
        }
    }

    fn take_transport<'a>(
        &mut self,
        now: Instant,
        way: (Direction, IpAddr, IpAddr),
        protocol: u8,
        bytes: &'a [u8],
        follows: &mut dyn FnMut(&Flow) -> bool,
    ) -> Result<Option<(Flow, &'a [u8])>, Malformed> {
        match protocol {
            parse::UDP => {
                let (ports, payload) = decode::read_udp(bytes)?;
                Ok(Some((flow_of(way, ports), payload)))
            }
            parse::TCP => {
                let segment = decode::read_tcp(bytes)?;
                let flow = flow_of(way, segment.ports);
                let (messages, counts) = (&mut self.messages, &mut self.counts);
                if follows(&flow) {
                    self.streams.handle_segment(
                        now,
                        &flow,
                        &segment,
                        counts,
                        &mut |flow, bytes| messages.push_back(message(flow, bytes)),
                    );
                } else {
                    counts.one(Count::SegmentNotFollowed);
                }
                Ok(None)
            }
            _ => {
                self.counts.one(Count::PacketOther);
                Ok(None)
            }
        }
    }

    /// Compares every account and index with a recount.
    #[cfg(test)]
    fn check_invariants(&self) {
        self.fragments.check_invariants();
        self.streams.check_invariants();
    }
}

fn flow_of((direction, source, destination): (Direction, IpAddr, IpAddr), ports: Ports) -> Flow {
    Flow {
        direction,
        source: SocketAddr::new(source, ports.source),
        destination: SocketAddr::new(destination, ports.destination),
    }
}

fn datagram_of(flow: Flow, bytes: Cow<'_, [u8]>) -> Delivery<'_> {
    Delivery {
        flow,
        transport: Transport::Udp,
        bytes,
    }
}

fn message(flow: &Flow, bytes: &[u8]) -> Delivery<'static> {
    Delivery {
        flow: *flow,
        transport: Transport::Tcp,
        bytes: Cow::Owned(bytes.to_vec()),
    }
}
