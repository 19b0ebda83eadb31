//! One datagram as a SIP message: it is read or refused, and what was read lies inside the datagram and obeys the caps.

use sipfilter_daemon::engine::sip::{self, Message, framing};

/// Parses the bytes as a datagram, and as a stream that holds nothing else.
pub fn run(bytes: &[u8]) {
    let datagram = sip::parse_datagram(bytes);
    if let Ok(message) = &datagram {
        check(message, bytes);
    }
    let Ok(Some((Ok(streamed), consumed))) = sip::parse_stream(bytes) else {
        return;
    };
    check(&streamed, bytes);
    assert!(consumed <= bytes.len());
    // The same bytes alone in a datagram are the same message: nothing follows, so a missing Content-Length means no body either way.
    assert_eq!(
        sip::parse_datagram(&bytes[..consumed]).as_ref(),
        Ok(&streamed)
    );
}

pub(crate) fn check(message: &Message<'_>, bytes: &[u8]) {
    assert!(!message.call_id.is_empty());
    assert!(message.call_id.bytes().all(|byte| byte > b' '));
    for text in [&message.from_tag, &message.to_tag, &message.branch]
        .into_iter()
        .flatten()
    {
        assert!(text.len() <= 3 * framing::MAX_HEAD);
    }
    if let Some(sdp) = message.sdp {
        assert!(sdp.len() <= framing::MAX_BODY);
        let (outer, inner) = (bytes.as_ptr_range(), sdp.as_ptr_range());
        assert!(outer.start <= inner.start && inner.end <= outer.end);
    }
}
