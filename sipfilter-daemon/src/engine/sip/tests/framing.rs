//! Where messages begin and end, in datagrams and in streams, and what is refused before anything is read.

use super::{
    super::{framing::*, *},
    INVITE, invite, message,
};

/// The body of a datagram, or why there is none.
fn check(bytes: impl AsRef<[u8]>, expect: Result<&[u8], SipError>) {
    let bytes = bytes.as_ref();
    let framed = match frame_datagram(bytes) {
        Ok(Framed::KeepAlive) => Err(SipError::KeepAlive),
        Ok(Framed::Message(frame)) => Ok(frame.body),
        Err(error) => Err(error),
    };
    assert_eq!(framed, expect, "{}", bytes.escape_ascii());
}

#[test]
fn keep_alives_are_neither_messages_nor_malformed() {
    let mut stun = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    stun.resize(20, 7);
    for bytes in [
        &b""[..],
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b"\0",
        b"\0\0\0\0",
        &stun,
    ] {
        check(bytes, Err(SipError::KeepAlive));
        assert_eq!(parse_datagram(bytes), Err(SipError::KeepAlive));
    }
}

#[test]
fn what_does_not_begin_like_sip_is_refused_by_its_first_line() {
    let junk: [&[u8]; 13] = [
        b"\0\0\0\0\0",
        &[0x80; 1400],
        b"GET / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SIP/2.0\r\n\r\n",
        b"SIP/3.0 200 OK\r\n\r\n",
        b"INVITE sip:b@192.0.2.2 SIP/7.0\r\n\r\n",
        b"INVITE sip:b@192.0.2.2 SIP/2.0 \r\n\r\n",
        b"INVITE sip:b@192.0.2.2 sip/2.0\r\n\r\n",
        b" SIP/2.0\r\n\r\n",
        b"jaK",
        b"x\nINVITE sip:b@192.0.2.2 SIP/2.0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ];
    for bytes in junk {
        check(bytes, Err(SipError::NotSip));
    }
}

#[test]
fn heads_are_read_with_any_line_end_and_never_past_their_caps() {
    check(invite(&[], ""), Ok(b""));
    check(format!("\r\n\n\r\n{}", invite(&[], "v=0")), Ok(b"v=0"));
    check(invite(&[], "a\r\nb").replace("\r\n", "\n"), Ok(b"a\nb"));
    check(invite(&[], "a").replace("\r\n", "\r\r\n"), Ok(b"a"));
    check(
        invite(&["Subject: a\rCall-ID: c2"], ""),
        Err(SipError::BareCr),
    );
    check(
        INVITE.replacen(' ', " \r", 1) + "\r\n\r\n",
        Err(SipError::BareCr),
    );
    check(
        message(INVITE, &[" folded: x"], ""),
        Err(SipError::FoldedStartLine),
    );

    let head = format!("{INVITE}\r\nCall-ID: c1\r\n");
    for end in 1..head.len() {
        let expect = match end {
            // "INVITE … SIP/2.0" without its line end is cut short; anything less could be any text.
            end if end < INVITE.len() => SipError::NotSip,
            _ => SipError::HeadUnterminated,
        };
        check(&head[..end], Err(expect));
    }

    let lines = |count| invite(&vec!["X: y"; count - super::DIALOG.len()], "");
    check(lines(MAX_HEADERS), Ok(b""));
    check(lines(MAX_HEADERS + 1), Err(SipError::TooManyHeaders));

    let sized = |size: usize| {
        let padding = size - invite(&["X: "], "").len();
        invite(&[&format!("X: {}", "y".repeat(padding))], "")
    };
    assert_eq!(sized(MAX_HEAD).len(), MAX_HEAD);
    check(sized(MAX_HEAD), Ok(b""));
    check(sized(MAX_HEAD + 1), Err(SipError::HeadTooLarge));
}

#[test]
fn content_length_cuts_a_datagram_and_never_stretches_it() {
    let truncated = |declared, held| Err(SipError::BodyTruncated { declared, held });
    let table: [(&[&str], &str, Result<&[u8], SipError>); 25] = [
        (&[], "to the end", Ok(b"to the end")),
        (&["Content-Length: 2"], "ab", Ok(b"ab")),
        (&["content-LENGTH:2"], "ab", Ok(b"ab")),
        (&["l: 2"], "ab", Ok(b"ab")),
        (&["L \t: 2 \t"], "ab", Ok(b"ab")),
        (&["Content-Length:\r\n 2"], "ab", Ok(b"ab")),
        (&["Content-Length: 0"], "ab", Ok(b"")),
        // A form feed is a part of the name, as receivers have it too.
        (&["\u{c}Content-Length: 0"], "ab", Ok(b"ab")),
        (&["Content-Length\u{c}: 0"], "ab", Ok(b"ab")),
        (&["Content-Length: 0002"], "abc", Ok(b"ab")),
        (&["Content-Length: 2", "l: 02"], "ab", Ok(b"ab")),
        (
            &["Content-Length: 2"],
            "abINVITE sip:x@192.0.2.3 SIP/2.0\r\n\r\n",
            Ok(b"ab"),
        ),
        (&["Content-Length: 3"], "ab", truncated(3, 2)),
        (&["Content-Length: 65536"], "ab", truncated(65536, 2)),
        (
            &["Content-Length: 65537"],
            "ab",
            Err(SipError::BodyTooLarge),
        ),
        // 2^32 + 2 and 2^64 + 2 must not come out as 2.
        (
            &["Content-Length: 4294967298"],
            "ab",
            Err(SipError::BodyTooLarge),
        ),
        (
            &["Content-Length: 18446744073709551618"],
            "ab",
            Err(SipError::BodyTooLarge),
        ),
        (
            &["Content-Length: 2", "X: y", "Content-Length: 1"],
            "ab",
            Err(SipError::ContentLengthConflict),
        ),
        (
            &["Content-Length: 2", "l: 1"],
            "ab",
            Err(SipError::ContentLengthConflict),
        ),
        (&["Content-Length: -1"], "ab", Err(SipError::ContentLength)),
        (&["Content-Length: +2"], "ab", Err(SipError::ContentLength)),
        (&["Content-Length: 0x2"], "ab", Err(SipError::ContentLength)),
        (
            &["Content-Length: 2, 2"],
            "ab",
            Err(SipError::ContentLength),
        ),
        (&["Content-Length:"], "ab", Err(SipError::ContentLength)),
        (
            &["Content-Length: 1\r\n 2"],
            "ab",
            Err(SipError::ContentLength),
        ),
    ];
    for (headers, body, expect) in table {
        check(invite(headers, body), expect);
    }
    check(invite(&[], &"x".repeat(MAX_BODY)), Ok(&[b'x'; MAX_BODY]));
    check(
        invite(&[], &"x".repeat(MAX_BODY + 1)),
        Err(SipError::BodyTooLarge),
    );
}

#[test]
fn nothing_behind_the_declared_body_is_read() {
    let first = invite(&["Content-Type: application/sdp", "l: 3"], "v=0");
    let both = first.clone() + &invite(&["X-Twilio-CallSid: CA1"], "");
    assert_eq!(
        parse_datagram(both.as_bytes()),
        parse_datagram(first.as_bytes())
    );
}

/// What a stream's bytes give: consumed length and body length, `None` for waiting; a keep-alive has no body.
fn check_stream(bytes: impl AsRef<[u8]>, expect: Result<Option<(usize, Option<usize>)>, SipError>) {
    let bytes = bytes.as_ref();
    let framed = frame_stream(bytes).map(|found| {
        found.map(|(framed, consumed)| match framed {
            Framed::KeepAlive => (consumed, None),
            Framed::Message(frame) => (consumed, Some(frame.body.len())),
        })
    });
    assert_eq!(framed, expect, "{}", bytes.escape_ascii());
}

#[test]
fn a_stream_gives_one_message_and_how_much_it_took() {
    let bare = invite(&[], "");
    let full = invite(&["l: 2"], "ab");
    check_stream("", Ok(None));
    check_stream("\r\n\r\n", Ok(Some((4, None))));
    check_stream(&bare, Ok(Some((bare.len(), Some(0)))));
    check_stream(
        bare.clone() + "SIP/2.0 200 OK",
        Ok(Some((bare.len(), Some(0)))),
    );
    check_stream(full.clone() + &bare, Ok(Some((full.len(), Some(2)))));
    check_stream(
        format!("\r\n\r\n{full}\r\n"),
        Ok(Some((full.len() + 4, Some(2)))),
    );
    for end in 1..full.len() {
        check_stream(&full[..end], Ok(None));
    }
}

#[test]
fn a_stream_that_lost_its_framing_is_an_error() {
    check_stream("\0\0\0\0", Err(SipError::NotSip));
    check_stream("GET / HTTP/1.1\r\n", Err(SipError::NotSip));
    check_stream(
        invite(&["l: 1", "l: 2"], "ab"),
        Err(SipError::ContentLengthConflict),
    );
    check_stream(invite(&["l: 65537"], ""), Err(SipError::BodyTooLarge));
    check_stream(vec![b'x'; MAX_HEAD - 1], Ok(None));
    check_stream(vec![b'x'; MAX_HEAD], Err(SipError::HeadTooLarge));
    let waiting = invite(&["l: 65536"], "");
    assert!(waiting.len() + MAX_BODY <= MAX_PENDING);
    check_stream(waiting, Ok(None));
}

#[test]
fn a_stream_reads_on_behind_a_message_that_is_refused() {
    let bytes = message(INVITE, &["Call-ID: c1", "l: 2"], "ab") + &invite(&[], "");
    let (refused, consumed) = parse_stream(bytes.as_bytes()).unwrap().unwrap();
    assert_eq!(refused, Err(SipError::Missing(HeaderName::CSeq)));
    let (read, rest) = parse_stream(&bytes.as_bytes()[consumed..])
        .unwrap()
        .unwrap();
    assert_eq!(read.unwrap().call_id, "c1");
    assert_eq!(consumed + rest, bytes.len());
    assert_eq!(
        parse_stream(b"\r\n"),
        Ok(Some((Err(SipError::KeepAlive), 2)))
    );
}
