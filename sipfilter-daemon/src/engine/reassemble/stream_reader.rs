//! From a stream's bytes in order to SIP messages (RFC 3261 §18.3), also after bytes are missing and from the middle on.
//!
//! It owns the bytes of the one message that is not complete yet, and the search for the next message once framing is lost. Where a
//! message ends is `sip::framing`'s matter. It never keeps more than [`MAX_PENDING`] bytes, and of bytes that belong to no message
//! never more than one unfinished line of [`MAX_START_LINE`].
//!
//! Framing is found again at a line that can only be a start line, or at the end of a line that can only hold one behind the last
//! words of a body (SDP without a final line end is common). Such a line may also stand in a body (`message/sipfrag`), so until a
//! message has been read well, a start line inside its head sends the search on to that line, and a message that lacks what every
//! message has is passed over, not consumed.

use memchr::{memchr, memmem, memrchr};

use super::{
    super::sip::{
        self, SipError,
        framing::{Framed, MAX_PENDING, frame_stream},
    },
    counts::{Count, Counts},
};

/// The longest start line at which framing is found again.
pub const MAX_START_LINE: usize = 8 * 1024;

/// Cuts one stream into messages.
#[derive(Debug)]
pub struct StreamReader {
    pending: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next byte begins a message, or a line end between messages.
    Framed,
    /// The next byte may be anywhere in a message, but can be taken for the beginning of a line.
    AtLine,
    /// The next byte is in the middle of a line.
    InLine,
    /// The next byte begins a start line; whether of a message is not sure.
    Doubtful,
}

impl StreamReader {
    /// A reader of a stream from its first byte on.
    pub fn from_start() -> Self {
        Self {
            pending: Vec::new(),
            state: State::Framed,
        }
    }

    /// A reader that must find the first message.
    pub fn from_middle() -> Self {
        Self {
            pending: Vec::new(),
            state: State::AtLine,
        }
    }

    /// What is kept, in bytes of memory.
    pub fn charge(&self) -> usize {
        self.pending.capacity()
    }

    /// Takes the next bytes and hands each complete message on. Keeps at most `room` bytes more than before; a message that would
    /// need more is given up.
    pub fn read(
        &mut self,
        mut bytes: &[u8],
        room: usize,
        counts: &mut Counts,
        deliver: &mut dyn FnMut(&[u8]),
    ) {
        let most = self.charge().saturating_add(room);
        if self.pending.is_empty() {
            let used = advance(&mut self.state, bytes, counts, deliver);
            bytes = bytes.get(used..).unwrap_or_default();
            if !bytes.is_empty() {
                self.keep(bytes, most, counts);
            }
            return;
        }
        while !bytes.is_empty() {
            let fits = MAX_PENDING.saturating_sub(self.pending.len());
            let (now, later) = bytes.split_at_checked(fits).unwrap_or((bytes, &[]));
            bytes = later;
            if !self.keep(now, most, counts) {
                continue;
            }
            let used = advance(&mut self.state, &self.pending, counts, deliver);
            self.pending.drain(..used);
            if self.pending.len() >= MAX_PENDING {
                // The caps of framing forbid this; losing the message is better than standing still.
                self.lose(counts);
            }
        }
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
    }

    /// Forgets the incomplete message: what follows does not continue it.
    pub fn lose(&mut self, counts: &mut Counts) {
        counts.add(Count::StreamBytesDiscarded, self.pending.len());
        if self.state == State::Framed {
            counts.one(Count::FramingLost);
        }
        *self = Self::from_middle();
    }

    fn keep(&mut self, bytes: &[u8], most: usize, counts: &mut Counts) -> bool {
        let needed = self.pending.len() + bytes.len();
        if needed > self.pending.capacity() {
            if needed > most {
                counts.one(Count::StreamShed);
                counts.add(Count::StreamBytesDiscarded, bytes.len());
                self.lose(counts);
                return false;
            }
            // Doubling keeps many small segments from being copied again and again.
            let wanted = (self.pending.capacity() * 2).min(MAX_PENDING).min(most);
            self.pending
                .reserve_exact(wanted.max(needed) - self.pending.len());
        }
        self.pending.extend_from_slice(bytes);
        true
    }
}

/// Reads as far as the bytes go; says how many are done with.
fn advance(
    state: &mut State,
    bytes: &[u8],
    counts: &mut Counts,
    deliver: &mut dyn FnMut(&[u8]),
) -> usize {
    let mut rest = bytes;
    loop {
        let step = match *state {
            State::Framed => frame(rest, counts, deliver),
            State::AtLine => search(rest, counts),
            State::InLine => leave_line(rest, counts),
            State::Doubtful => try_frame(rest, counts, deliver),
        };
        let Some((next, used)) = step else {
            return bytes.len() - rest.len();
        };
        *state = next;
        rest = rest.get(used..).unwrap_or_default();
    }
}

/// The next state and how many bytes lie behind it; `None` waits for more bytes.
type Step = Option<(State, usize)>;

fn frame(bytes: &[u8], counts: &mut Counts, deliver: &mut dyn FnMut(&[u8])) -> Step {
    match frame_stream(bytes) {
        Ok(Some((Framed::KeepAlive, used))) => {
            counts.one(Count::StreamKeepAlive);
            Some((State::Framed, used))
        }
        Ok(Some((Framed::Message(_), used))) => {
            counts.one(Count::StreamMessage);
            deliver(skip_line_ends(before(bytes, used)));
            Some((State::Framed, used))
        }
        // Line ends in front of a message are done with; they must not count towards its size.
        Ok(None) => match bytes.len() - skip_line_ends(bytes).len() {
            0 => None,
            skipped => Some((State::Framed, skipped)),
        },
        Err(_) => {
            counts.one(Count::FramingLost);
            let skipped = bytes.len() - skip_line_ends(bytes).len();
            Some((State::InLine, skipped))
        }
    }
}

fn leave_line(bytes: &[u8], counts: &mut Counts) -> Step {
    if bytes.is_empty() {
        return None;
    }
    let (next, used) = match memchr(b'\n', bytes) {
        Some(at) => (State::AtLine, at + 1),
        None => (State::InLine, bytes.len()),
    };
    counts.add(Count::StreamBytesDiscarded, used);
    Some((next, used))
}

fn search(bytes: &[u8], counts: &mut Counts) -> Step {
    match memchr(b'\n', bytes) {
        Some(end) => match find_start_line(before(bytes, end)) {
            Some(at) => {
                counts.add(Count::StreamBytesDiscarded, at);
                Some((State::Doubtful, at))
            }
            None => leave_line(bytes, counts),
        },
        None if bytes.len() > MAX_START_LINE => leave_line(bytes, counts),
        None => None,
    }
}

fn try_frame(bytes: &[u8], counts: &mut Counts, deliver: &mut dyn FnMut(&[u8])) -> Step {
    let framed = frame_stream(bytes);
    if let Ok(None | Some(_)) = framed
        && let Some(at) = start_line_in_head(bytes)
    {
        counts.add(Count::StreamBytesDiscarded, at);
        return Some((State::Doubtful, at));
    }
    match framed {
        Ok(None) => None,
        Ok(Some((Framed::Message(_), used))) if is_message(before(bytes, used)) => {
            counts.one(Count::FramingFound);
            counts.one(Count::StreamMessage);
            deliver(before(bytes, used));
            Some((State::Framed, used))
        }
        Ok(Some(_)) | Err(_) => leave_line(bytes, counts),
    }
}

/// Whether the head is one that a message has; what is wrong with the body is the engine's matter.
fn is_message(bytes: &[u8]) -> bool {
    matches!(
        sip::parse_datagram(bytes),
        Ok(_) | Err(SipError::Boundary | SipError::EncodedSdp)
    )
}

/// Where a second start line stands in the head that begins here.
fn start_line_in_head(bytes: &[u8]) -> Option<usize> {
    let mut at = memchr(b'\n', bytes)? + 1;
    loop {
        let rest = bytes.get(at..)?;
        let end = memchr(b'\n', rest)?;
        let line = before(rest, end);
        if matches!(line, [] | [b'\r']) {
            return None;
        }
        if let Some(start) = find_start_line(line) {
            return Some(at + start);
        }
        at += end + 1;
    }
}

/// Where in a line a start line begins that goes on to the line's end: at its beginning, or behind a body without a line end.
fn find_start_line(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if is_status_line(line) {
        return Some(0);
    }
    if let Some(at) = memmem::find(line, STATUS)
        && is_status_line(line.get(at..)?)
    {
        return Some(at);
    }
    let request = line.strip_suffix(REQUEST)?;
    let words = before(request, memrchr(b' ', request)?);
    // An unknown method that ends with a known one is a known one behind other text.
    let known = METHODS.iter().find(|method| words.ends_with(method));
    let at = known.map_or(0, |method| words.len() - method.len());
    is_request_line(line.get(at..)?).then_some(at)
}

/// What begins a status line (RFC 3261 §7.2).
const STATUS: &[u8] = b"SIP/2.0 ";
/// What ends a request line (§7.1).
const REQUEST: &[u8] = b" SIP/2.0";
/// The methods that are recognised behind other text; one that ends with another stands before it.
const METHODS: [&[u8]; 14] = [
    b"INVITE",
    b"PRACK",
    b"ACK",
    b"BYE",
    b"CANCEL",
    b"UPDATE",
    b"INFO",
    b"OPTIONS",
    b"REGISTER",
    b"SUBSCRIBE",
    b"NOTIFY",
    b"REFER",
    b"MESSAGE",
    b"PUBLISH",
];

fn is_status_line(line: &[u8]) -> bool {
    line.strip_prefix(STATUS).is_some_and(|status| {
        matches!(
            status,
            [b'1'..=b'6', b'0'..=b'9', b'0'..=b'9']
                | [b'1'..=b'6', b'0'..=b'9', b'0'..=b'9', b' ', ..]
        )
    })
}

/// Whether a line can only be a request line: no header has a token without a colon in front of a URI.
fn is_request_line(line: &[u8]) -> bool {
    let Some(request) = line.strip_suffix(REQUEST) else {
        return false;
    };
    let Some(space) = memchr(b' ', request) else {
        return false;
    };
    let (method, uri) = request.split_at(space);
    let uri = uri.get(1..).unwrap_or_default();
    !method.is_empty()
        && method.iter().all(|&byte| is_token(byte))
        && uri.contains(&b':')
        && !uri.contains(&b' ')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

fn before(bytes: &[u8], count: usize) -> &[u8] {
    bytes.get(..count).unwrap_or(bytes)
}

fn skip_line_ends(mut bytes: &[u8]) -> &[u8] {
    while let [b'\r' | b'\n', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}
