//! Messages that are odd but right, wrong, or no messages at all.
//!
//! `framing` holds tables about where a message ends, `scan` about what is read from it, `property` what holds for every input.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![expect(
    clippy::type_complexity,
    reason = "tables say what their columns are by standing next to it"
)]

mod framing;
mod property;
mod scan;

/// A message with the given lines between the start line and the empty line, and a body.
fn message(start: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("{start}\r\n");
    for header in headers {
        text += header;
        text += "\r\n";
    }
    text + "\r\n" + body
}

/// The lines that every message must have.
const DIALOG: [&str; 4] = [
    "Call-ID: c1",
    "CSeq: 1 INVITE",
    "From: <sip:a@192.0.2.1>;tag=a",
    "To: <sip:b@192.0.2.2>",
];
const INVITE: &str = "INVITE sip:b@192.0.2.2 SIP/2.0";

/// An INVITE with more header lines than it needs, and a body.
fn invite(more: &[&str], body: &str) -> String {
    message(INVITE, &[&DIALOG, more].concat(), body)
}
