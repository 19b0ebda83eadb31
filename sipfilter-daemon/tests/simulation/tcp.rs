//! SIP over TCP: connections that either side dialled, whose segments the network loses, repeats and reorders like any packet.
//!
//! A sender cuts its stream anywhere, so that messages share segments and segments end inside of messages, and cuts it anew when it
//! repeats. It knows no congestion control and never closes. What has crossed the edge without a hole is what the filter must know of.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use sipfilter_daemon::engine::Direction;

use crate::{
    call::Msg,
    frames::{TcpHeader, tcp},
    places::{pbx, signalling},
    wire::Side,
    world::{Event, Kind, Packet, World},
};

/// The first time that a sender waits for an acknowledgment, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(400);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkId(usize);

pub enum TcpTimer {
    /// What was written is sent, with whatever has come since.
    Flush(LinkId, Side),
    /// What nobody has acknowledged is sent again.
    Repeat(LinkId, Side, Duration),
    /// The dialler knocks until the other side opens.
    Dial(LinkId, Duration),
}

/// One segment on its way.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    link: LinkId,
    from: Side,
    syn: bool,
    start: usize,
    end: usize,
    acknowledged: Option<usize>,
}

/// A connection.
#[derive(Debug)]
pub struct Link {
    provider: usize,
    v6: bool,
    /// By [`Side`].
    ends: [SocketAddr; 2],
    dialler: Side,
    /// By whose bytes they are.
    streams: [Stream; 2],
    /// Both sides know that it stands.
    is_open: bool,
}

/// One direction.
#[derive(Debug, Default)]
struct Stream {
    initial: u32,
    written: Vec<u8>,
    /// Where each message ends that has not crossed the edge yet.
    crossing: VecDeque<(usize, Msg)>,
    /// The same of those that have not arrived.
    arriving: VecDeque<(usize, Msg)>,
    sent: usize,
    acknowledged: usize,
    is_waiting: bool,
    is_repeating: bool,
    crossed: Coverage,
    arrived: Coverage,
    /// The filter has not followed since here: copies were lost, or it restarted.
    is_missed: bool,
}

/// Which bytes of a stream somebody has.
#[derive(Debug, Default)]
struct Coverage {
    /// All before this.
    whole: usize,
    /// And these.
    pieces: BTreeMap<usize, usize>,
}

impl Coverage {
    fn add(&mut self, start: usize, end: usize) {
        let known = self.pieces.entry(start).or_default();
        *known = end.max(*known);
        while let Some((&start, &end)) = self.pieces.first_key_value() {
            if start > self.whole {
                break;
            }
            self.whole = self.whole.max(end);
            self.pieces.pop_first();
        }
    }
}

impl Link {
    fn stream(&mut self, side: Side) -> &mut Stream {
        &mut self.streams[side as usize]
    }

    /// Where the filter has to be told that nothing can be expected of it: the connection's numbers, for an attacker who can only guess.
    pub fn somewhere_else(&self, from: Side) -> (SocketAddr, SocketAddr, u32) {
        let stream = &self.streams[from as usize];
        let sequence = stream.initial.wrapping_add(stream.sent as u32);
        let ends = (self.ends[from as usize], self.ends[from.other() as usize]);
        (ends.0, ends.1, sequence.wrapping_add(1 << 30))
    }
}

impl World {
    /// The connection for a call's SIP: one that is there, or a new one.
    pub fn choose_link(&mut self, provider: usize, v6: bool) -> LinkId {
        let known: Vec<usize> = (0..self.links.len())
            .filter(|index| (self.links[*index].provider, self.links[*index].v6) == (provider, v6))
            .collect();
        if !known.is_empty() && self.random.percent(60) {
            return LinkId(*self.random.pick(&known));
        }
        let id = LinkId(self.links.len());
        let dialler = *self.random.pick(&[Side::Provider, Side::Pbx]);
        let mut ends = [signalling(provider, v6), pbx(v6)];
        ends[dialler as usize].set_port(40_000 + self.links.len() as u16);
        let mut streams = [Stream::default(), Stream::default()];
        for stream in &mut streams {
            // Near the end of the numbers, so that some wrap.
            stream.initial = 0_u32.wrapping_sub(self.random.between(1, 20_000) as u32);
        }
        self.links.push(Link {
            provider,
            v6,
            ends,
            dialler,
            streams,
            is_open: false,
        });
        self.dial(id, FIRST_WAIT);
        id
    }

    /// Whether the filter can know of everything that this connection will bring.
    pub fn is_followed(&self, LinkId(link): LinkId) -> bool {
        self.links[link]
            .streams
            .iter()
            .all(|stream| !stream.is_missed)
    }

    /// The filter begins anew: it is at a stream's place again once no byte from before is missing.
    pub fn miss_links(&mut self) {
        for stream in self.links.iter_mut().flat_map(|link| &mut link.streams) {
            stream.is_missed = true;
        }
    }

    pub fn write(&mut self, id: LinkId, from: Side, text: &[u8], msg: Msg) {
        let stream = self.links[id.0].stream(from);
        stream.written.extend_from_slice(text);
        let end = stream.written.len();
        stream.crossing.push_back((end, msg.clone()));
        stream.arriving.push_back((end, msg));
        self.flush_soon(id, from);
    }

    fn flush_soon(&mut self, id: LinkId, from: Side) {
        let link = &mut self.links[id.0];
        if link.is_open && !std::mem::replace(&mut link.stream(from).is_waiting, true) {
            let delay = Duration::from_millis(self.random.between(0, 20));
            let timer = TcpTimer::Flush(id, from);
            self.after(delay, Event::Timer(crate::agents::Timer::Tcp(timer)));
        }
    }

    pub fn handle_tcp_timer(&mut self, timer: TcpTimer) {
        match timer {
            TcpTimer::Dial(id, wait) => self.dial(id, wait),
            TcpTimer::Flush(id, from) => {
                let stream = self.links[id.0].stream(from);
                stream.is_waiting = false;
                let start = std::mem::replace(&mut stream.sent, stream.written.len());
                let end = stream.sent;
                let is_first = !std::mem::replace(&mut stream.is_repeating, true);
                self.send_range(id, from, start, end);
                if is_first {
                    self.repeat_later(id, from, FIRST_WAIT);
                }
            }
            TcpTimer::Repeat(id, from, wait) => {
                let stream = self.links[id.0].stream(from);
                let (start, end) = (stream.acknowledged, stream.sent);
                if start == end {
                    stream.is_repeating = false;
                    return;
                }
                self.send_range(id, from, start, end);
                self.repeat_later(id, from, (wait * 3 / 2).min(LONGEST_WAIT));
            }
        }
    }

    fn repeat_later(&mut self, id: LinkId, from: Side, wait: Duration) {
        let timer = TcpTimer::Repeat(id, from, wait);
        self.after(wait, Event::Timer(crate::agents::Timer::Tcp(timer)));
    }

    /// In pieces of any size, up to what segmentation offload makes of them.
    fn send_range(&mut self, id: LinkId, from: Side, mut start: usize, end: usize) {
        while start < end {
            let most = *self.random.pick(&[60, 700, 1_400, 1_400, 8_000]);
            let next = (start + self.random.between(1, most) as usize).min(end);
            self.send_segment(id, from, false, start, next);
            start = next;
        }
    }

    fn dial(&mut self, id: LinkId, wait: Duration) {
        let link = &self.links[id.0];
        if link.is_open {
            return;
        }
        let dialler = link.dialler;
        self.send_segment(id, dialler, true, 0, 0);
        let timer = TcpTimer::Dial(id, (wait * 2).min(LONGEST_WAIT));
        self.after(wait, Event::Timer(crate::agents::Timer::Tcp(timer)));
    }

    fn acknowledge_segment(&mut self, id: LinkId, from: Side) {
        let place = self.links[id.0].streams[from as usize].sent;
        self.send_segment(id, from, false, place, place);
    }

    fn send_segment(&mut self, id: LinkId, from: Side, syn: bool, start: usize, end: usize) {
        let link = &self.links[id.0];
        let stream = &link.streams[from as usize];
        let reverse = &link.streams[from.other() as usize];
        let first = stream.initial.wrapping_add(1);
        let segment = Segment {
            link: id,
            from,
            syn,
            start,
            end,
            acknowledged: (!syn || from != link.dialler).then_some(reverse.arrived.whole),
        };
        let header = TcpHeader {
            sequence: if syn {
                stream.initial
            } else {
                first.wrapping_add(start as u32)
            },
            acknowledgment: segment
                .acknowledged
                .map(|place| reverse.initial.wrapping_add(1 + place as u32)),
            syn,
            rst: false,
        };
        let (source, destination) = (link.ends[from as usize], link.ends[from.other() as usize]);
        let frame = tcp(source, destination, header, &stream.written[start..end]);
        self.send_frame(Packet {
            direction: match from {
                Side::Provider => Direction::Ingress,
                Side::Pbx => Direction::Egress,
            },
            frame,
            kind: Kind::Segment(segment),
        });
    }

    /// A segment is seen at the edge: the messages that the filter can read now.
    pub fn cross_segment(&mut self, segment: Segment, copied: bool) -> Vec<Msg> {
        let stream = self.links[segment.link.0].stream(segment.from);
        let was_whole = stream.crossed.whole;
        let is_in_order = segment.start <= was_whole && stream.crossed.pieces.is_empty();
        stream.crossed.add(segment.start, segment.end);
        if segment.start < segment.end {
            stream.is_missed = !copied || stream.is_missed && !is_in_order;
        }
        let whole = stream.crossed.whole;
        let mut complete = Vec::new();
        while let Some((_, msg)) = stream.crossing.pop_front_if(|(end, _)| *end <= whole) {
            complete.push(msg);
        }
        complete
    }

    /// Everybody whose SIP this connection carries.
    pub fn taint(&mut self, link: LinkId) {
        for call in &mut self.calls {
            call.tainted |= call.link == Some(link);
        }
    }

    pub fn arrive(&mut self, segment: Segment) {
        let Segment { link: id, from, .. } = segment;
        let link = &mut self.links[id.0];
        if segment.syn {
            if from == link.dialler && link.stream(from).arrived.whole > 0 {
                // A late copy: the other side has long had the answer (RFC 9293 §3.10.7.4).
                self.acknowledge_segment(id, from.other());
            } else if from == link.dialler {
                self.send_segment(id, from.other(), true, 0, 0);
            } else {
                let is_news = !std::mem::replace(&mut link.is_open, true);
                self.acknowledge_segment(id, from.other());
                if is_news {
                    self.flush_soon(id, Side::Provider);
                    self.flush_soon(id, Side::Pbx);
                }
            }
            return;
        }
        if let Some(place) = segment.acknowledged {
            let reverse = link.stream(from.other());
            reverse.acknowledged = reverse.acknowledged.max(place);
        }
        if segment.start == segment.end {
            return;
        }
        let stream = link.stream(from);
        stream.arrived.add(segment.start, segment.end);
        let whole = stream.arrived.whole;
        let mut complete = Vec::new();
        while let Some((_, msg)) = stream.arriving.pop_front_if(|(end, _)| *end <= whole) {
            complete.push(msg);
        }
        self.acknowledge_segment(id, from.other());
        for msg in complete {
            self.receive(msg);
        }
    }
}

impl Segment {
    pub fn link(&self) -> LinkId {
        self.link
    }
}
