//! One TCP connection: its two streams, their readers, and what handshake, acknowledgments and resets mean for them.
//!
//! It does not know its addresses, its table or its caps: it is told how much memory it may take. Its invariant: whenever bytes are
//! missing from a stream, the stream's reader is told before it reads on.

use super::{
    super::{Direction, Instant, decode::Segment},
    counts::{Count, Counts},
    stream_reader::StreamReader,
    stream_table::StreamLimits,
    tcp_stream::{Arrival, HalfStream, Position, Refused},
};

/// One connection.
#[derive(Debug)]
pub struct Connection {
    last: Instant,
    progress: Progress,
    proof: Proof,
    ingress: Half,
    egress: Half,
}

/// How far the connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nobody has sent data.
    Bare,
    /// Somebody has.
    Used,
    /// Both ends said FIN.
    Closed,
}

/// Whether the far end is really there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// It may be forged.
    Missing,
    /// It acknowledged what the PBX sent.
    Acknowledged,
}

/// Whether the connection is still to be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is.
    Lives,
    /// It was reset.
    Over,
}

/// One direction.
#[derive(Debug)]
struct Half {
    stream: HalfStream,
    reader: StreamReader,
}

impl Connection {
    /// A connection of which nothing is known.
    pub fn new(now: Instant) -> Self {
        Self {
            last: now,
            progress: Progress::Bare,
            proof: Proof::Missing,
            ingress: Half::unknown(),
            egress: Half::unknown(),
        }
    }

    /// Whether the far end acknowledged what the PBX sent, which nobody can forge who does not see it.
    pub fn is_proven(&self) -> bool {
        self.proof == Proof::Acknowledged
    }

    /// What both directions hold.
    pub fn charge(&self) -> usize {
        self.ingress.charge() + self.egress.charge()
    }

    /// When the connection is forgotten if no packet comes.
    pub fn idle_deadline(&self, limits: &StreamLimits) -> Instant {
        let patience = match self.progress {
            Progress::Used => limits.idle,
            Progress::Bare | Progress::Closed => limits.bare,
        };
        Instant(self.last.0.saturating_add(patience))
    }

    /// When the next thing is due.
    pub fn deadline(&self, limits: &StreamLimits) -> Instant {
        [
            self.ingress.stream.deadline(),
            self.egress.stream.deadline(),
        ]
        .into_iter()
        .flatten()
        .fold(self.idle_deadline(limits), Instant::min)
    }

    /// Takes a segment. Keeps at most `room` bytes more than before.
    pub fn handle_segment(
        &mut self,
        now: Instant,
        direction: Direction,
        segment: &Segment<'_>,
        room: usize,
        counts: &mut Counts,
        deliver: &mut dyn FnMut(&[u8]),
    ) -> Fate {
        self.last = now;
        let trusted = direction == Direction::Egress;
        if segment.rst {
            let stream = &self.half(direction).0.stream;
            if trusted || !stream.is_started() || stream.expects(segment.sequence) {
                counts.one(Count::Reset);
                return Fate::Over;
            }
            counts.one(Count::ResetIgnored);
            return Fate::Lives;
        }
        let mut sequence = segment.sequence;
        if segment.syn {
            sequence = sequence.wrapping_add(1);
            self.handle_syn(direction, sequence, segment.acknowledgment);
        }
        if let Some(acknowledgment) = segment.acknowledgment {
            self.handle_acknowledgment(now, direction, acknowledgment, counts);
        }
        let most = self.charge().saturating_add(room);
        let (half, reverse) = self.half(direction);
        if !segment.data.is_empty() {
            let word = match direction {
                Direction::Egress => Word::Own,
                Direction::Ingress if reverse.stream.is_started() => Word::Checked,
                Direction::Ingress => Word::Unchecked,
            };
            let most = most.saturating_sub(reverse.charge());
            let mut sink = Sink {
                most,
                counts,
                deliver,
            };
            half.take(now, sequence, segment.data, word, &mut sink);
            half.stream.note_gap(now);
        }
        if segment.fin {
            let end = sequence.wrapping_add(segment.data.len() as u32);
            half.stream.finish(end);
        }
        let closed = half.stream.is_finished() && reverse.stream.is_finished();
        if closed && self.progress != Progress::Closed {
            counts.one(Count::ConnectionClosed);
            self.progress = Progress::Closed;
        } else if !segment.data.is_empty() && self.progress == Progress::Bare {
            self.progress = Progress::Used;
        }
        Fate::Lives
    }

    /// Skips the holes that stayed open too long.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        room: usize,
        counts: &mut Counts,
        deliver: &mut dyn FnMut(Direction, &[u8]),
    ) {
        let most = self.charge().saturating_add(room);
        for direction in [Direction::Ingress, Direction::Egress] {
            let (half, reverse) = self.half(direction);
            if half.stream.deadline().is_some_and(|due| due <= now) {
                let mut sink = Sink {
                    most: most.saturating_sub(reverse.charge()),
                    counts,
                    deliver: &mut |bytes| deliver(direction, bytes),
                };
                half.skip_gap(&mut sink);
                half.drain(&mut sink);
                half.stream.note_gap(now);
            }
        }
    }

    /// Recounts what the streams hold.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        self.ingress.stream.check_invariants();
        self.egress.stream.check_invariants();
    }

    /// A SYN whose stream begins at `first`.
    fn handle_syn(&mut self, direction: Direction, first: u32, acknowledgment: Option<u32>) {
        match (direction, acknowledgment) {
            (Direction::Egress, None) => {
                if !self.egress.stream.started_at(first) {
                    self.renew();
                    self.egress.start(first);
                }
            }
            (Direction::Egress, Some(acknowledged)) => {
                if !self.egress.stream.started_at(first)
                    || !self.ingress.stream.started_at(acknowledged)
                {
                    self.renew();
                    self.egress.start(first);
                    self.ingress.start(acknowledged);
                }
            }
            (Direction::Ingress, None) => {
                if self.progress == Progress::Closed {
                    self.renew();
                }
                if !self.ingress.stream.is_started() {
                    self.ingress.start(first);
                }
            }
            (Direction::Ingress, Some(acknowledged)) => {
                let answers =
                    !self.egress.stream.is_started() || self.egress.stream.started_at(acknowledged);
                if answers && !self.ingress.stream.is_started() {
                    self.ingress.start(first);
                }
            }
        }
    }

    /// What the sender of `direction` says to have received from the other side.
    fn handle_acknowledgment(
        &mut self,
        now: Instant,
        direction: Direction,
        acknowledgment: u32,
        counts: &mut Counts,
    ) {
        let trusted = direction == Direction::Egress;
        let (_, reverse) = self.half(direction);
        let proves = !trusted && reverse.stream.has_sent(acknowledgment);
        if trusted && reverse.stream.is_elsewhere(acknowledgment) {
            // Either the stream's beginning was not seen, or a forged segment led it astray.
            reverse.reader.lose(counts);
            reverse.stream.start(acknowledgment);
        }
        reverse.stream.acknowledge(now, acknowledgment, trusted);
        if proves {
            self.proof = Proof::Acknowledged;
        }
    }

    /// Forgets everything of the old connection on these addresses and ports.
    fn renew(&mut self) {
        self.progress = Progress::Bare;
        self.ingress = Half::unknown();
        self.egress = Half::unknown();
    }

    /// The direction's own half, and the other one.
    fn half(&mut self, direction: Direction) -> (&mut Half, &mut Half) {
        match direction {
            Direction::Ingress => (&mut self.ingress, &mut self.egress),
            Direction::Egress => (&mut self.egress, &mut self.ingress),
        }
    }
}

impl Half {
    fn unknown() -> Self {
        Self {
            stream: HalfStream::default(),
            reader: StreamReader::from_middle(),
        }
    }

    fn start(&mut self, sequence: u32) {
        self.stream.start(sequence);
        self.reader = StreamReader::from_start();
    }

    fn charge(&self) -> usize {
        self.stream.charge() + self.reader.charge()
    }

    /// Takes a segment's bytes.
    fn take(
        &mut self,
        now: Instant,
        mut sequence: u32,
        mut bytes: &[u8],
        word: Word,
        sink: &mut Sink<'_>,
    ) {
        if !self.stream.is_started() {
            self.stream.start(sequence);
        }
        loop {
            match self.stream.accept(sequence, bytes) {
                Arrival::Old => sink.counts.one(Count::SegmentDuplicate),
                Arrival::BehindEnd => sink.counts.one(Count::SegmentBehindEnd),
                Arrival::Beyond if self.stream.has_lost() => {
                    self.skip_gap(sink);
                    self.drain(sink);
                    continue;
                }
                Arrival::Beyond if self.may_jump(now, word) => {
                    self.jump(sequence, sink);
                    continue;
                }
                Arrival::Beyond => sink.counts.one(Count::SegmentBeyondWindow),
                Arrival::Fresh { ready, later } => {
                    self.read(ready, sink);
                    if let Some((position, later)) = later
                        && self.hold(position, later, sink) == Err(Refused::StreamFull)
                    {
                        sink.counts.one(Count::StreamGapFull);
                        if !self.drain(sink) {
                            self.skip_gap(sink);
                            self.drain(sink);
                        }
                        sequence = self.stream.sequence(position);
                        bytes = later;
                        continue;
                    }
                }
            }
            break;
        }
        self.drain(sink);
    }

    fn read(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        if !bytes.is_empty() {
            let room = sink.most.saturating_sub(self.charge());
            self.reader.read(bytes, room, sink.counts, sink.deliver);
        }
    }

    fn hold(
        &mut self,
        position: Position,
        bytes: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<(), Refused> {
        let room = sink.most.saturating_sub(self.charge());
        let held = self
            .stream
            .hold(position, bytes, room)
            .inspect_err(|refused| {
                if *refused == Refused::NoRoom {
                    sink.counts.one(Count::StreamShed);
                }
            })?;
        if held.conflict {
            sink.counts.one(Count::SegmentConflict);
        }
        sink.counts.one(if held.fresh {
            Count::SegmentOutOfOrder
        } else {
            Count::SegmentDuplicate
        });
        Ok(())
    }

    /// Reads what was held and is in turn now; whether there was any.
    fn drain(&mut self, sink: &mut Sink<'_>) -> bool {
        let mut any = false;
        while let Some(piece) = self.stream.take_ready() {
            any = true;
            self.read(&piece, sink);
        }
        any
    }

    fn skip_gap(&mut self, sink: &mut Sink<'_>) -> bool {
        let skipped = self.stream.skip_gap();
        if skipped {
            sink.counts.one(Count::StreamGap);
            self.reader.lose(sink.counts);
        }
        skipped
    }

    /// Whether a segment from beyond the window may move the stream there.
    fn may_jump(&mut self, now: Instant, word: Word) -> bool {
        match word {
            Word::Own => true,
            Word::Checked => false,
            Word::Unchecked => self.stream.is_stranded(now),
        }
    }

    /// Reads what is left here, and goes on at a place far ahead.
    fn jump(&mut self, sequence: u32, sink: &mut Sink<'_>) {
        while self.skip_gap(sink) {
            self.drain(sink);
        }
        sink.counts.one(Count::StreamGap);
        self.reader.lose(sink.counts);
        self.stream.start(sequence);
    }
}

/// What a segment from far ahead of its stream is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// The PBX's own: nobody forges it, so copies in between were lost.
    Own,
    /// From outside, and the PBX's acknowledgments are seen: they decide.
    Checked,
    /// From outside, and the PBX is not heard: true if nothing else comes for long.
    Unchecked,
}

/// Where messages go, what is counted, and how much memory the half may hold in the end.
struct Sink<'a> {
    most: usize,
    counts: &'a mut Counts,
    deliver: &'a mut dyn FnMut(&[u8]),
}
