//! A byte stream of SIP messages, cut anywhere: the cuts change nothing, every step consumes something, and nothing waits for more
//! than the cap.

use sipfilter_daemon::engine::sip::{self, SipError, framing};

use crate::message::check;

/// The first byte says how the rest is cut; the rest is the stream.
pub fn run(bytes: &[u8]) {
    let Some((&seed, stream)) = bytes.split_first() else {
        return;
    };
    let (at_once, rest) = read(stream, stream.len().max(1));
    let (in_parts, rest_of_parts) = read(stream, usize::from(seed % 64) + 1);
    // A keep-alive may be told in pieces, and line ends that wait in front of a message may be told as one.
    let messages = |items: &[Item]| {
        items
            .iter()
            .filter(|item| **item != Item::KeepAlive)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(messages(&at_once), messages(&in_parts));
    let front = |rest: &[u8]| {
        rest.iter()
            .take_while(|byte| b"\r\n".contains(byte))
            .count()
    };
    assert_eq!(rest[front(&rest)..], rest_of_parts[front(&rest_of_parts)..]);
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    KeepAlive,
    Message(String),
    Refused(SipError),
    /// The framing is lost; nothing follows.
    Lost(SipError),
}

/// Feeds the stream in parts of this size, and tells what it held and what was left waiting.
fn read(stream: &[u8], part: usize) -> (Vec<Item>, Vec<u8>) {
    let mut items = Vec::new();
    let mut pending: Vec<u8> = Vec::new();
    for part in stream.chunks(part) {
        pending.extend_from_slice(part);
        loop {
            match sip::parse_stream(&pending) {
                Ok(None) => break,
                Ok(Some((message, consumed))) => {
                    assert!(0 < consumed && consumed <= pending.len());
                    items.push(match message {
                        Ok(message) => {
                            check(&message, &pending[..consumed]);
                            Item::Message(format!("{message:?}"))
                        }
                        Err(SipError::KeepAlive) => Item::KeepAlive,
                        Err(error) => Item::Refused(error),
                    });
                    pending.drain(..consumed);
                }
                Err(error) => {
                    items.push(Item::Lost(error));
                    return (items, Vec::new());
                }
            }
        }
        let line_ends = pending
            .iter()
            .take_while(|byte| b"\r\n".contains(byte))
            .count();
        assert!(pending.len() - line_ends <= framing::MAX_PENDING);
    }
    (items, pending)
}
