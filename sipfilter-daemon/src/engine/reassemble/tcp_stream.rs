//! One direction of a TCP connection: segments in, bytes in order out (RFC 9293 §3.4, §3.10).
//!
//! It owns the order of bytes, and what came before its turn. It does not know where messages begin (`stream_reader` does), and it
//! decides nothing about time: its caller skips a hole when [`HalfStream::deadline`] passes. Positions count from the stream's start
//! in 64 bits, so sequence numbers that wrap are a matter of one function.
//!
//! The rules:
//! - The byte that came first stands. Later copies are compared while the first is still here; a difference is counted.
//! - A hole is filled by a retransmission, or skipped: [`GAP_LIMIT`] after it opened; as soon as more than [`MAX_HELD`] waits behind
//!   it; or [`ACK_GRACE`] after the receiver acknowledged what is missing. In the last case the bytes did arrive and only the copy
//!   was lost, so no retransmission will come.
//! - Only the host behind the filter is believed without proof when it acknowledges far ahead: a stranger can forge what comes in,
//!   not what goes out.
//!
//! Invariant: what is held lies ahead of the position, does not overlap, and is charged in full.

use std::{collections::BTreeMap, time::Duration};

use super::super::Instant;

/// How far ahead of its turn a segment may lie.
pub const WINDOW: u64 = 256 * 1024;
/// The most that may wait behind holes, in bytes and [`PIECE_CHARGE`]s.
pub const MAX_HELD: usize = 256 * 1024;
/// What one held piece is charged besides its bytes.
pub const PIECE_CHARGE: usize = 64;
/// How long a hole may stay open.
pub const GAP_LIMIT: Duration = Duration::from_secs(30);
/// How long a hole may stay open once the receiver has what is missing: copies from different processors may change places.
pub const ACK_GRACE: Duration = Duration::from_millis(250);

/// Where positions begin: far from zero, so that what lies before the start is no negative number.
const ORIGIN: u64 = 1 << 40;

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct HalfStream {
    cursor: Option<Cursor>,
    held: BTreeMap<u64, Box<[u8]>>,
    held_bytes: usize,
}

/// Where a stream that has started stands.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// The sequence number at [`ORIGIN`].
    initial: u32,
    /// The next byte to read.
    position: u64,
    /// Behind the last byte ever seen.
    highest: u64,
    /// What the receiver has, by its own word.
    acknowledged: u64,
    /// Behind the last byte of the stream, if its sender said FIN.
    end: Option<u64>,
    /// Since when the hole at the position has data behind it.
    gap_since: Option<Instant>,
    /// Since when the hole at the position is acknowledged.
    lost_since: Option<Instant>,
    /// Since when segments come from beyond the window only.
    stray_since: Option<Instant>,
}

/// What a segment is to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// Its bytes were read before.
    Old,
    /// It lies beyond the window.
    Beyond,
    /// It lies behind the stream's end.
    BehindEnd,
    /// It has bytes for the stream.
    Fresh {
        /// Bytes whose turn it is; they count as read now.
        ready: &'a [u8],
        /// Bytes to [`HalfStream::hold`], with their position.
        later: Option<(Position, &'a [u8])>,
    },
}

/// A place in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

/// Why bytes cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The stream holds [`MAX_HELD`] already: a hole must be skipped.
    StreamFull,
    /// All streams together hold too much.
    NoRoom,
}

/// What became of held bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Some of the bytes were there with other values.
    pub conflict: bool,
    /// Some of the bytes were not there yet.
    pub fresh: bool,
}

impl HalfStream {
    /// Starts, or starts again, at this sequence number.
    pub fn start(&mut self, sequence: u32) {
        *self = Self {
            cursor: Some(Cursor {
                initial: sequence,
                position: ORIGIN,
                highest: ORIGIN,
                acknowledged: ORIGIN,
                end: None,
                gap_since: None,
                lost_since: None,
                stray_since: None,
            }),
            ..Self::default()
        };
    }

    /// Whether the stream has a place to stand.
    pub fn is_started(&self) -> bool {
        self.cursor.is_some()
    }

    /// Whether the stream was started at this very sequence number.
    pub fn started_at(&self, sequence: u32) -> bool {
        self.cursor.is_some_and(|cursor| cursor.initial == sequence)
    }

    /// Whether this is the sequence number of the next byte.
    pub fn expects(&self, sequence: u32) -> bool {
        self.cursor
            .is_some_and(|cursor| cursor.place(sequence) == cursor.position)
    }

    /// Whether the number acknowledges something that was sent, or at least the start.
    pub fn has_sent(&self, acknowledgment: u32) -> bool {
        self.cursor.is_some_and(|cursor| {
            let place = cursor.place(acknowledgment);
            place <= cursor.highest && place + WINDOW >= cursor.highest
        })
    }

    /// Whether the receiver stands where this stream cannot be: it has not started, or is too far ahead of the receiver.
    pub fn is_elsewhere(&self, acknowledgment: u32) -> bool {
        self.cursor
            .is_none_or(|cursor| cursor.place(acknowledgment) + WINDOW < cursor.position)
    }

    /// Whether the receiver has bytes that were not read here.
    pub fn has_lost(&self) -> bool {
        self.cursor
            .is_some_and(|cursor| cursor.acknowledged > cursor.position)
    }

    /// The sequence number of a place.
    pub fn sequence(&self, Position(place): Position) -> u32 {
        self.cursor.map_or(0, |cursor| {
            cursor
                .initial
                .wrapping_add(place.wrapping_sub(ORIGIN) as u32)
        })
    }

    /// Whether the sender said FIN and everything before it was read or skipped.
    pub fn is_finished(&self) -> bool {
        self.cursor
            .is_some_and(|cursor| cursor.end.is_some_and(|end| cursor.position >= end))
    }

    /// What is held, with the charge for each piece.
    pub fn charge(&self) -> usize {
        self.held_bytes + self.held.len() * PIECE_CHARGE
    }

    /// Sorts a segment's bytes: read before, to be read now, to be held.
    pub fn accept<'a>(&mut self, sequence: u32, bytes: &'a [u8]) -> Arrival<'a> {
        let Some(cursor) = &mut self.cursor else {
            return Arrival::Beyond;
        };
        let mut at = cursor.place(sequence);
        let mut bytes = bytes;
        if at + length(bytes) <= cursor.position {
            return Arrival::Old;
        }
        if at < cursor.position {
            bytes = behind(bytes, cursor.position - at);
            at = cursor.position;
        }
        if let Some(end) = cursor.end {
            if at >= end {
                return Arrival::BehindEnd;
            }
            bytes = before(bytes, end - at);
        }
        if at + length(bytes) > cursor.position + WINDOW {
            return Arrival::Beyond;
        }
        cursor.highest = cursor.highest.max(at + length(bytes));
        let mut ready: &[u8] = &[];
        if at == cursor.position {
            ready = match self.held.first_key_value() {
                Some((&held, _)) => before(bytes, held.saturating_sub(at)),
                None => bytes,
            };
            at += length(ready);
            bytes = behind(bytes, length(ready));
            cursor.advance_to(at);
        }
        let later = (!bytes.is_empty()).then_some((Position(at), bytes));
        Arrival::Fresh { ready, later }
    }

    /// Keeps bytes until it is their turn. Bytes that are held already stay as they are.
    ///
    /// # Errors
    /// [`Refused`] if they would need more than `room`, or more than the stream may hold; then none is kept.
    pub fn hold(
        &mut self,
        Position(start): Position,
        bytes: &[u8],
        room: usize,
    ) -> Result<Held, Refused> {
        let end = start + length(bytes);
        let mut conflict = false;
        let mut missing = Vec::new();
        let mut at = start;
        let first = self
            .held
            .range(..=start)
            .next_back()
            .map_or(start, |(&held, _)| held);
        for (&held, data) in self.held.range(first..end) {
            let held_end = held + length(data);
            if held_end <= start {
                continue;
            }
            if at < held {
                missing.push((at, held));
            }
            let (from, to) = (held.max(start), held_end.min(end));
            conflict |= cut(bytes, start, from, to) != cut(data, held, from, to);
            at = held_end;
        }
        if at < end {
            missing.push((at, end));
        }
        let charge = missing
            .iter()
            .map(|(from, to)| (to - from) as usize + PIECE_CHARGE)
            .sum::<usize>();
        if self.charge() + charge > MAX_HELD {
            return Err(Refused::StreamFull);
        }
        if charge > room {
            return Err(Refused::NoRoom);
        }
        let fresh = !missing.is_empty();
        for (from, to) in missing {
            let piece = cut(bytes, start, from, to);
            self.held_bytes += piece.len();
            self.held.insert(from, piece.into());
        }
        Ok(Held { conflict, fresh })
    }

    /// Takes the next held piece whose turn it is.
    pub fn take_ready(&mut self) -> Option<Box<[u8]>> {
        let cursor = self.cursor.as_mut()?;
        let entry = self.held.first_entry()?;
        if *entry.key() != cursor.position {
            return None;
        }
        let piece = entry.remove();
        self.held_bytes -= piece.len();
        cursor.advance_to(cursor.position + length(&piece));
        Some(piece)
    }

    /// Gives up the hole at the position; whether there was one. What follows it begins anywhere in a message.
    pub fn skip_gap(&mut self) -> bool {
        let Some(cursor) = &mut self.cursor else {
            return false;
        };
        let lost = (cursor.acknowledged > cursor.position).then_some(cursor.acknowledged);
        let next = self.held.first_key_value().map(|(&held, _)| held);
        let target = match (lost, next) {
            (Some(lost), Some(next)) => lost.min(next),
            (Some(place), None) | (None, Some(place)) => place,
            (None, None) => return false,
        };
        if target == cursor.position {
            return false;
        }
        cursor.advance_to(target);
        true
    }

    /// Takes the receiver's word for what it has. A word that cannot be true is passed over unless it is `trusted`.
    pub fn acknowledge(&mut self, now: Instant, acknowledgment: u32, trusted: bool) {
        let Some(cursor) = &mut self.cursor else {
            return;
        };
        let place = cursor.place(acknowledgment);
        if place <= cursor.acknowledged || (!trusted && place > cursor.highest) {
            return;
        }
        // FIN takes one number, and no byte.
        let place = cursor.end.map_or(place, |end| place.min(end));
        cursor.acknowledged = place;
        if place > cursor.position && cursor.lost_since.is_none() {
            cursor.lost_since = Some(now);
        }
    }

    /// Notes that the sender's last byte stands before this sequence number.
    pub fn finish(&mut self, sequence: u32) {
        if let Some(cursor) = &mut self.cursor {
            let end = cursor.place(sequence);
            if cursor.end.is_none() && end >= cursor.highest && end <= cursor.position + WINDOW {
                cursor.end = Some(end);
            }
        }
    }

    /// Notes a segment from beyond the window; whether such have been all that came for [`GAP_LIMIT`].
    pub fn is_stranded(&mut self, now: Instant) -> bool {
        let Some(cursor) = &mut self.cursor else {
            return true;
        };
        let since = *cursor.stray_since.get_or_insert(now);
        now >= later_by(since, GAP_LIMIT)
    }

    /// Brings the hole's clock up to date after segments were taken.
    pub fn note_gap(&mut self, now: Instant) {
        let Some(cursor) = &mut self.cursor else {
            return;
        };
        if self.held.is_empty() {
            cursor.gap_since = None;
        } else {
            cursor.gap_since.get_or_insert(now);
        }
        if cursor.acknowledged > cursor.position {
            cursor.lost_since.get_or_insert(now);
        } else {
            cursor.lost_since = None;
        }
    }

    /// When the hole at the position is to be skipped, if there is one.
    pub fn deadline(&self) -> Option<Instant> {
        let cursor = self.cursor?;
        let open = cursor.gap_since.map(|since| later_by(since, GAP_LIMIT));
        let lost = cursor.lost_since.map(|since| later_by(since, ACK_GRACE));
        match (open, lost) {
            (Some(open), Some(lost)) => Some(open.min(lost)),
            (open, lost) => open.or(lost),
        }
    }

    /// Recounts what is held.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        let bytes: usize = self.held.values().map(|piece| piece.len()).sum();
        assert_eq!(bytes, self.held_bytes);
        assert!(self.charge() <= MAX_HELD);
        let mut at = self.cursor.map_or(0, |cursor| cursor.position);
        for (&held, piece) in &self.held {
            assert!(held >= at && !piece.is_empty(), "{held} {at}");
            at = held + length(piece);
        }
    }
}

impl Cursor {
    /// The position that a sequence number means: the one nearest to where the stream stands (RFC 9293 §3.4).
    fn place(&self, sequence: u32) -> u64 {
        let expected = self
            .initial
            .wrapping_add((self.position.wrapping_sub(ORIGIN)) as u32);
        let distance = sequence.wrapping_sub(expected).cast_signed();
        self.position.saturating_add_signed(i64::from(distance))
    }

    fn advance_to(&mut self, position: u64) {
        if position > self.position {
            self.position = position;
            self.highest = self.highest.max(position);
            self.gap_since = None;
            self.lost_since = None;
            self.stray_since = None;
        }
    }
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

fn later_by(since: Instant, duration: Duration) -> Instant {
    Instant(since.0.saturating_add(duration))
}

fn before(bytes: &[u8], count: u64) -> &[u8] {
    bytes.get(..count as usize).unwrap_or(bytes)
}

fn behind(bytes: &[u8], count: u64) -> &[u8] {
    bytes.get(count as usize..).unwrap_or_default()
}

/// The part of bytes that lie at `start` which stands from one position to another.
fn cut(bytes: &[u8], start: u64, from: u64, to: u64) -> &[u8] {
    let range = from.saturating_sub(start) as usize..to.saturating_sub(start) as usize;
    bytes.get(range).unwrap_or_default()
}
