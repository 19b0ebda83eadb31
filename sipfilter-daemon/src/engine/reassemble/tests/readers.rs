//! Where framing is lost and found.

use super::{
    super::{counts::*, stream_reader::StreamReader},
    *,
};

/// What a reader makes of pieces.
fn read(mut reader: StreamReader, pieces: &[&[u8]]) -> (Vec<String>, Counts) {
    let mut counts = Counts::default();
    let mut messages = Vec::new();
    for piece in pieces {
        reader.read(piece, usize::MAX, &mut counts, &mut |bytes| {
            messages.push(String::from_utf8_lossy(bytes).into_owned());
        });
    }
    (messages, counts)
}

#[track_caller]
fn check(text: &str, expect: &[&str]) {
    let halves = text.as_bytes().split_at(text.len() / 2);
    let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
    for pieces in [&[text.as_bytes()][..], &[halves.0, halves.1], &bytes] {
        assert_eq!(read(StreamReader::from_start(), pieces).0, expect);
    }
}

#[test]
fn framing_is_found_again_behind_what_is_no_sip() {
    let (one, two) = (sip("one", "x"), sip("two", ""));
    for junk in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "junk\r\n",
        "\0\x01\x02binary\nmore\r\n",
        "\r\njunk\n\n\n",
        "INVITE sip:x SIP/2.0\r\nContent-Length: -1\r\n\r\n",
        "INVITE sip:x SIP/2.0\r\nContent-Length: 18446744073709551620\r\n\r\n",
        "INVITE sip:x SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\n",
        "INVITE sip:x SIP/2.0\r\n folded: start\r\n\r\n",
    ] {
        check(&format!("{one}{junk}{two}"), &[&one, &two]);
    }
}

#[test]
fn framing_is_found_in_the_middle_at_a_start_line_only() {
    let (one, two) = (sip("one", &"line\r\n".repeat(20)), sip("two", ""));
    let text = format!("{one}{two}");
    for start in 1..one.len() {
        let (messages, counts) = read(StreamReader::from_middle(), &[&text.as_bytes()[start..]]);
        assert_eq!(messages, [two.as_str()], "from byte {start}");
        assert_eq!(
            counts.of(Count::StreamBytesDiscarded) as usize,
            one.len() - start
        );
    }
    let (messages, _) = read(StreamReader::from_middle(), &[text.as_bytes()]);
    assert_eq!(messages, [one.as_str(), two.as_str()]);
    for junk in [
        "X-Header: mentions SIP/2.0\r\n",
        "sip:no SIP/2.0\r\n",
        "two words sip:no SIP/2.0\r\n",
        "NO colon SIP/2.0\r\n",
        "SIP/2.0 20 No\r\n",
        "SIP/2.0 2000 No\r\n",
        "SIP/2.0 700 No\r\n",
    ] {
        let text = format!("{junk}{two}");
        let (messages, _) = read(StreamReader::from_middle(), &[text.as_bytes()]);
        assert_eq!(messages, [two.as_str()], "{junk}");
    }
}

#[test]
fn a_start_line_in_a_body_is_not_taken_for_a_message() {
    let after = sip("after", "");
    // RFC 3515 §2.4.5: what NOTIFY tells about a transfer.
    for fragment in [
        "SIP/2.0 200 OK\r\n",
        "SIP/2.0 200 OK\r\n\r\n",
        "SIP/2.0 200 OK\r\nContent-Length: 70000\r\n\r\n",
        "SIP/2.0 100\r\nTo: <sip:x>\r\n\r\n",
        "SIP/2.0 200 OK",
    ] {
        let notify = sip("notify", &format!("a line\r\n{fragment}"));
        let cut = notify.find("a line").unwrap();
        let text = format!("{notify}{after}");
        if fragment.ends_with('\n') {
            let (messages, _) = read(StreamReader::from_middle(), &[&text.as_bytes()[cut..]]);
            assert_eq!(messages, [after.as_str()], "{fragment:?}");
        }
        check(&text, &[&notify, &after]);
    }
}

#[test]
fn a_message_behind_a_body_without_a_line_end_is_found() {
    let info = sip("next", "");
    let response = info.replace("INFO sip:b@203.0.113.10 SIP/2.0", "SIP/2.0 200 OK");
    let prack = info.replace("INFO", "PRACK");
    let other = info.replace("INFO", "NEWS");
    for (message, is_found) in [
        (info, true),
        (response, true),
        (prack, true),
        (other, false),
    ] {
        for body in [
            "a=sendrecv",
            "SIP/2.0 200 OK\r\na=x",
            "SIP/2.0 200 OK\r\na: ",
        ] {
            let text = format!("{body}{message}");
            let (messages, _) = read(StreamReader::from_middle(), &[text.as_bytes()]);
            let expect = if is_found {
                std::slice::from_ref(&message)
            } else {
                &[]
            };
            // A method that nobody knows cannot be told from the word it is glued to.
            if is_found || !body.contains('\n') {
                assert_eq!(messages, expect, "{text}");
            }
        }
    }
}

#[test]
fn a_response_is_found_as_well() {
    let response = sip("r", "").replace("INFO sip:b@203.0.113.10 SIP/2.0", "SIP/2.0 180 Ringing");
    let (messages, _) = read(
        StreamReader::from_middle(),
        &[b"tail\r\n", response.as_bytes()],
    );
    assert_eq!(messages, [response.as_str()]);
    let bare = response.replace(" Ringing", "");
    let (messages, _) = read(StreamReader::from_middle(), &[b"tail\r\n", bare.as_bytes()]);
    assert_eq!(messages, [bare.as_str()]);
}

#[test]
fn no_reader_keeps_more_than_one_message() {
    use super::super::super::sip::framing::MAX_PENDING;
    let endless_line = vec![b'x'; 1_000];
    let endless_head = b"X: y\r\n".repeat(10);
    let body = format!(
        "{}{}",
        sip("b", "").replace("Length: 0", "Length: 65536"),
        "x"
    );
    for (begin, piece) in [
        ("", &endless_line),
        ("INVITE sip:b SIP/2.0\r\n", &endless_line),
        ("INVITE sip:b SIP/2.0\r\n", &endless_head),
        (body.as_str(), &endless_line),
    ] {
        for mut reader in [StreamReader::from_start(), StreamReader::from_middle()] {
            let mut counts = Counts::default();
            let mut most = 0;
            reader.read(begin.as_bytes(), usize::MAX, &mut counts, &mut |_| {});
            for _ in 0..200_000 / piece.len() {
                reader.read(piece, usize::MAX, &mut counts, &mut |_| {});
                most = most.max(reader.charge());
            }
            assert!(most <= MAX_PENDING, "{most}");
        }
    }
}

#[test]
fn a_reader_without_room_gives_the_message_up_and_goes_on() {
    let (one, two) = (sip("one", &"x".repeat(3_000)), sip("two", ""));
    let mut reader = StreamReader::from_start();
    let mut counts = Counts::default();
    let mut messages = Vec::new();
    for piece in one.as_bytes().chunks(500).chain([two.as_bytes()]) {
        let room = 1_200_usize.saturating_sub(reader.charge());
        reader.read(piece, room, &mut counts, &mut |bytes| {
            messages.push(String::from_utf8_lossy(bytes).into_owned());
        });
        assert!(reader.charge() <= 1_200);
    }
    assert_eq!(messages, [two]);
    assert!(counts.of(Count::StreamShed) > 0);
}
