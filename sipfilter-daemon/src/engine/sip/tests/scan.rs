//! What is read from a head and a body: odd text that receivers understand, and text on which they would disagree.

use std::borrow::Cow;

use super::{super::*, DIALOG, INVITE, invite, message};

fn known(method: Method) -> MethodName<'static> {
    MethodName::Known(method)
}

#[test]
fn an_invite_gives_its_dialog_and_its_sdp_without_copies() {
    let text = message(
        "INVITE sip:bob@192.0.2.1 SIP/2.0",
        &[
            "Via: SIP/2.0/UDP 198.51.100.10:5060;branch=z9hG4bK1;rport",
            "Via: SIP/2.0/UDP 198.51.100.11;branch=z9hG4bK0",
            "Max-Forwards: 70",
            "From: \"Alice\" <sip:alice@example.com>;tag=a1",
            "To: <sip:bob@example.com>",
            "Call-ID: c1@198.51.100.10",
            "CSeq: 4711 INVITE",
            "X-Twilio-CallSid: CA0123456789abcdef0123456789abcdef",
            "Content-Type: application/sdp",
            "Content-Length: 5",
        ],
        "v=0\r\n",
    );
    let read = parse_datagram(text.as_bytes()).unwrap();
    assert!(
        matches!(read.call_id, Cow::Borrowed(_)) && matches!(read.from_tag, Some(Cow::Borrowed(_)))
    );
    assert_eq!(
        read,
        Message {
            start: Start::Request(known(Method::Invite)),
            call_id: "c1@198.51.100.10".into(),
            cseq: CSeq {
                number: 4711,
                method: known(Method::Invite),
            },
            from_tag: Some("a1".into()),
            to_tag: None,
            branch: Some("z9hG4bK1".into()),
            sdp: Some(b"v=0\r\n"),
            session_expires: None,
            provider_call_id: Some((
                "X-Twilio-CallSid".into(),
                "CA0123456789abcdef0123456789abcdef".into()
            )),
            related: Related::default(),
        }
    );
}

/// Folded lines, compact names, names in any case, white space wherever the grammar allows it, LF ends, lines without a colon,
/// bytes that are no UTF-8, an unknown method in a request (RFC 4475 §3.1.1 collects the like).
#[test]
fn a_torture_message_gives_the_same_fields_as_a_plain_one() {
    let text = b"NewMethod.! sips:[2001:db8::9]:5061;transport=foo;lr SIP/2.0\n\
        v:  SIP  / 2.0  / TCP     host.example   ;\n\
        \x20 branch  =   z9hG4bKfold  ,\n\
        \x20SIP  /    2.0   / UDP  192.0.2.5   ; branch= z9hG4bKsecond\n\
        TO :\n\
        \x20sip:b@example.com ;   tag    = t-1\n\
        f: \"A \\\\\\\"  \xff;tag=x\"       <sip:a@example.com;tag=uri>\r\n\
        \x20 ;\n\
        \t  tag = f_1\n\
        a line without a colon\n\
        \x20and its continuation: x\n\
        i  :  c.1%Z-!*_+`'@word~)(><:/[?}{  \n\
        cseq: 0009\n\
        \x20 NewMethod.!\n\
        NewFangledHeader:   new\n\
        \x20continued\n\
        s: \n\
        C: application / SDP ; charset=utf-8\n\
        l: 4\n\
        \n\
        v=0\nignored";
    let read = parse_datagram(text).unwrap();
    let method = MethodName::Other("NewMethod.!".into());
    assert_eq!(
        read,
        Message {
            start: Start::Request(method.clone()),
            call_id: "c.1%Z-!*_+`'@word~)(><:/[?}{".into(),
            cseq: CSeq { number: 9, method },
            from_tag: Some("f_1".into()),
            to_tag: Some("t-1".into()),
            branch: Some("z9hG4bKfold".into()),
            sdp: Some(b"v=0\n"),
            session_expires: None,
            provider_call_id: None,
            related: Related::default(),
        }
    );
}

#[test]
fn start_lines_follow_the_grammar() {
    let bad = Err(SipError::StartLine);
    let table = [
        ("SIP/2.0 200 OK", Ok(Start::Response(200))),
        ("SIP/2.0 100 ", Ok(Start::Response(100))),
        ("SIP/2.0 699", Ok(Start::Response(699))),
        (
            "SIP/2.0 180 \u{43d}\u{435}\u{442} SIP/2.0",
            Ok(Start::Response(180)),
        ),
        ("SIP/2.0 099 x", bad.clone()),
        ("SIP/2.0 700 x", bad.clone()),
        ("SIP/2.0 20 x", bad.clone()),
        ("SIP/2.0 2000 x", bad.clone()),
        ("SIP/2.0 4294967301 x", bad.clone()),
        ("SIP/2.0  200 OK", bad.clone()),
        (
            "INVITE sip:b@[2001:db8::1]:5060;lr SIP/2.0",
            Ok(Start::Request(known(Method::Invite))),
        ),
        (
            "INVITE tel:+15550100 SIP/2.0",
            Ok(Start::Request(known(Method::Invite))),
        ),
        ("INVITE SIP/2.0", bad.clone()),
        ("INVITE  SIP/2.0", bad.clone()),
        ("INV\"TE sip:b@192.0.2.2 SIP/2.0", bad),
    ];
    for (start, expect) in table {
        let text = message(start, &DIALOG, "");
        let read = parse_datagram(text.as_bytes()).map(|message| message.start);
        assert_eq!(read, expect, "{start}");
    }
}

#[test]
fn methods_are_told_apart_by_case() {
    for method in Method::all() {
        let name = method.to_string();
        let text = message(
            &format!("{name} sip:b@192.0.2.2 SIP/2.0"),
            &[DIALOG[0], DIALOG[2], DIALOG[3], &format!("CSeq: 1 {name}")],
            "",
        );
        let read = parse_datagram(text.as_bytes()).unwrap();
        assert_eq!(read.start, Start::Request(known(method)));
        assert_eq!(read.cseq.method, known(method));

        let lower = text.replace(&name, &name.to_lowercase());
        let read = parse_datagram(lower.as_bytes()).unwrap();
        assert_eq!(
            read.start,
            Start::Request(MethodName::Other(name.to_lowercase().into()))
        );
    }
}

#[test]
fn every_dialog_header_stands_exactly_once() {
    let names = [
        HeaderName::CallId,
        HeaderName::CSeq,
        HeaderName::From,
        HeaderName::To,
    ];
    for (index, name) in names.into_iter().enumerate() {
        let mut without = DIALOG.to_vec();
        let line = without.remove(index);
        let check = |headers: &[&str], expect| {
            let text = message(INVITE, headers, "");
            assert_eq!(parse_datagram(text.as_bytes()), Err(expect), "{text}");
        };
        check(&without, SipError::Missing(name));
        // Even the same value twice, and even where one of the names is short.
        check(&[&DIALOG[..], &[line]].concat(), SipError::Repeated(name));
        let compact = line
            .replace("Call-ID", "i")
            .replace("From", "f")
            .replace("To", "t");
        check(
            &[&DIALOG[..], &[&compact]].concat(),
            SipError::Repeated(name),
        );
    }
    let text = invite(&["c: application/sdp", "Content-Type: text/plain"], "v=0");
    assert_eq!(
        parse_datagram(text.as_bytes()),
        Err(SipError::Repeated(HeaderName::ContentType))
    );
}

#[test]
fn call_ids_are_one_word() {
    let table = [
        ("Call-ID: a@b ", Ok("a@b")),
        ("call-id:\r\n a@b", Ok("a@b")),
        ("Call-ID: ", Err(SipError::CallId)),
        ("Call-ID: a b", Err(SipError::CallId)),
        ("Call-ID: a\r\n b", Err(SipError::CallId)),
        ("Call-ID: a\0b", Err(SipError::CallId)),
    ];
    for (line, expect) in table {
        let text = message(INVITE, &[line, DIALOG[1], DIALOG[2], DIALOG[3]], "");
        let read = parse_datagram(text.as_bytes()).map(|message| message.call_id);
        assert_eq!(read, expect.map(Cow::Borrowed), "{line}");
    }
}

/// Old gear writes Latin-1.
#[test]
fn bytes_that_are_no_utf_8_are_replaced_where_they_stand_and_cost_nothing_else() {
    let headers = [
        "Call-ID: caf\u{e9}@x",
        DIALOG[1],
        "From: \"Andr\u{e9}\" <sip:a@x>;tag=r\u{e9}",
        "To: Ren\u{e9} <sip:b@x>;tag=t",
        "X-Twilio-CallSid: \u{e9}1",
    ];
    let text = message(INVITE, &headers, "");
    let latin: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap()).collect();
    let read = parse_datagram(&latin).unwrap();
    assert_eq!(read.call_id, "caf\u{fffd}@x");
    assert_eq!(read.from_tag.as_deref(), Some("r\u{fffd}"));
    assert_eq!(read.to_tag.as_deref(), Some("t"));
    let (_, id) = read.provider_call_id.unwrap();
    assert_eq!(id, "\u{fffd}1");
}

#[test]
fn cseqs_are_a_number_and_the_request_s_method() {
    let table = [
        ("CSeq: 1 INVITE", Ok(1)),
        ("cseq:\t4294967295\tINVITE ", Ok(u32::MAX)),
        ("CSeq: 007\r\n  INVITE", Ok(7)),
        ("CSeq: 4294967296 INVITE", Err(SipError::CSeq)),
        ("CSeq: 36893488147419103232 INVITE", Err(SipError::CSeq)),
        ("CSeq: +1 INVITE", Err(SipError::CSeq)),
        ("CSeq: -1 INVITE", Err(SipError::CSeq)),
        ("CSeq: 1", Err(SipError::CSeq)),
        ("CSeq: INVITE", Err(SipError::CSeq)),
        ("CSeq: 1INVITE", Err(SipError::CSeq)),
        ("CSeq: 1 INVITE INVITE", Err(SipError::CSeq)),
        ("CSeq:", Err(SipError::CSeq)),
        ("CSeq: 1 BYE", Err(SipError::CSeqMethod)),
        ("CSeq: 1 invite", Err(SipError::CSeqMethod)),
    ];
    for (line, expect) in table {
        let text = message(INVITE, &[line, DIALOG[0], DIALOG[2], DIALOG[3]], "");
        let read = parse_datagram(text.as_bytes()).map(|message| message.cseq.number);
        assert_eq!(read, expect, "{line}");
    }
}

#[test]
fn tags_are_found_outside_quotes_and_brackets() {
    let table = [
        ("<sip:a@x>;tag=1", Some("1")),
        ("<sip:a@x> ; TAG = 1 ;x=y", Some("1")),
        ("sip:a@x;tag=1", Some("1")),
        ("sip:a@x;user=phone;tag=1", Some("1")),
        ("<sip:a@[2001:db8::1]:5060>;tag=1", Some("1")),
        ("<tel:+15550100;phone-context=x>;tag=1", Some("1")),
        ("A B <sip:a@x>;tag=1", Some("1")),
        (
            "\"A;tag=q\" <sip:a;tag=u@x;tag=p?h=;tag=h>;tag=1",
            Some("1"),
        ),
        ("\"<sip:q@x>;tag=q\" <sip:a@x>;tag=1", Some("1")),
        ("\"A \\\";tag=q\" <sip:a@x>;tag=1", Some("1")),
        ("\"A \\\\\" <sip:a@x>;tag=1", Some("1")),
        ("\u{c4} <sip:a@x>;x=\"\u{c4};tag=q\";tag=1", Some("1")),
        ("<sip:a@x>;tag=a/b=;y", Some("a/b=")),
        ("<sip:a@x>;mytag=0;tag=1;tag=2", Some("1")),
        ("<sip:a@x>;tag=1, <sip:b@x>;tag=2", Some("1")),
        ("<sip:a@x>", None),
        ("<sip:a@x;tag=u>", None),
        ("<sip:a@x>;tag", None),
        ("<sip:a@x>;tag=", None),
        ("<sip:a@x>;tag=;tag=1", Some("1")),
        ("", None),
        // Unbalanced quotes: what stands behind the last bracket counts.
        ("\"A <sip:a@x;tag=u>;tag=1", Some("1")),
        ("A\" <sip:a@x>;tag=1", Some("1")),
        ("\"A\"B\" <sip:a@x>;x=y;tag=1", Some("1")),
        ("\"A <sip:a@x>", None),
        ("\"A sip:a@x;tag=1", Some("1")),
        ("<sip:a@x;tag=1", Some("1")),
    ];
    for (value, expect) in table {
        let from = format!("From: {value}");
        let to = format!("To: {value}");
        let text = message(INVITE, &[DIALOG[0], DIALOG[1], &from, &to], "");
        let read = parse_datagram(text.as_bytes()).unwrap();
        assert_eq!(read.from_tag.as_deref(), expect, "{value}");
        assert_eq!(read.to_tag.as_deref(), expect, "{value}");
    }
}

#[test]
fn the_branch_is_the_topmost_via_s() {
    let table: [(&[&str], Option<&str>); 12] = [
        (&["Via: SIP/2.0/UDP h;branch=z1"], Some("z1")),
        (&["v: SIP/2.0/UDP h ; Branch = z1 "], Some("z1")),
        (
            &["Via: SIP/2.0/UDP [2001:db8::1]:5060;received=2001:db8::2;branch=z1"],
            Some("z1"),
        ),
        (
            &[
                "Via: SIP/2.0/UDP h;branch=z1",
                "Via: SIP/2.0/UDP i;branch=z2",
            ],
            Some("z1"),
        ),
        (
            &["VIA: SIP/2.0/UDP h;branch=z1, SIP/2.0/UDP i;branch=z2"],
            Some("z1"),
        ),
        (
            &["Via: SIP/2.0/UDP h;x=\",;branch=q\";branch=z1,SIP/2.0/UDP i"],
            Some("z1"),
        ),
        (
            &["Via: SIP/2.0/UDP h;\r\n branch=z1,\r\n SIP/2.0/UDP i;branch=z2"],
            Some("z1"),
        ),
        (&["Via: SIP/2.0/UDP h;x=\"open;branch=z1"], Some("z1")),
        (&["Via: SIP/2.0/UDP h, SIP/2.0/UDP i;branch=z2"], None),
        (
            &["Via: SIP/2.0/UDP h", "Via: SIP/2.0/UDP i;branch=z2"],
            None,
        ),
        (&["Via: SIP/2.0/UDP h;branch="], None),
        (&[], None),
    ];
    for (lines, expect) in table {
        let text = invite(lines, "");
        let read = parse_datagram(text.as_bytes()).unwrap();
        assert_eq!(read.branch.as_deref(), expect, "{lines:?}");
    }
}

/// The SDP among the given content headers and body; `|` stands for a line end.
fn check_sdp(headers: &[&str], body: &str, expect: Result<Option<&str>, SipError>) {
    for end in ["\r\n", "\n"] {
        let text = invite(headers, &body.replace('|', end));
        let expect = expect.map(|sdp| sdp.map(|sdp| sdp.replace('|', end)));
        let read = parse_datagram(text.as_bytes()).map(|message| message.sdp.map(<[u8]>::to_vec));
        assert_eq!(
            read,
            expect.map(|sdp| sdp.map(String::into_bytes)),
            "{headers:?} {body}"
        );
    }
}

#[test]
fn the_body_is_sdp_where_its_type_says_so() {
    let table: [(&[&str], &str, Result<Option<&str>, SipError>); 12] = [
        (&["Content-Type: application/sdp"], "v=0|", Ok(Some("v=0|"))),
        (
            &["c:Application/SDP;charset=\"utf-8\""],
            "v=0|",
            Ok(Some("v=0|")),
        ),
        (
            &["Content-Type:\r\n application/sdp"],
            "v=0|",
            Ok(Some("v=0|")),
        ),
        (
            &[
                "Content-Type: application/sdp",
                "Content-Encoding: identity",
            ],
            "v=0|",
            Ok(Some("v=0|")),
        ),
        (
            &["Content-Type: application/sdp", "Content-Encoding:"],
            "v=0|",
            Ok(Some("v=0|")),
        ),
        (
            &["Content-Type: application/sdp", "e: gzip"],
            "v=0|",
            Err(SipError::EncodedSdp),
        ),
        (
            &["Content-Encoding: identity, deflate", "c: application/sdp"],
            "v=0|",
            Err(SipError::EncodedSdp),
        ),
        (&["Content-Type: text/plain", "e: gzip"], "v=0|", Ok(None)),
        (&["Content-Type: application/sdpx"], "v=0|", Ok(None)),
        (&["Content-Type: sdp"], "v=0|", Ok(None)),
        (&["Content-Type: application/sdp"], "", Ok(None)),
        (&[], "v=0|", Ok(None)),
    ];
    for (headers, body, expect) in table {
        check_sdp(headers, body, expect);
    }
}

#[test]
fn the_sdp_part_of_a_multipart_body_is_found() {
    let isup = "--b|Content-Type: application/isup|Content-Transfer-Encoding: base64||AAAA|";
    let sdp = "--b|Content-Type: application/sdp||v=0|s=-|";
    let gzip = sdp.replace("||", "|Content-Encoding: gzip||");
    let base64 = sdp.replace("||", "|content-transfer-encoding: BASE64||");
    let eight_bit = sdp.replace("||", "|Content-Transfer-Encoding: 8bit||");
    let early = sdp.replace(
        "||",
        "|Content-Disposition: early-session; handling=required||",
    );
    let nested = |levels: usize| {
        let mut body = sdp.to_owned() + "--b--|";
        for level in 0..levels {
            let inner = if level == 0 {
                "b".to_owned()
            } else {
                format!("n{}", level - 1)
            };
            body = format!(
                "--n{level}|Content-Type: multipart/alternative; boundary={inner}||{body}|--n{level}--|"
            );
        }
        body
    };
    let found = Ok(Some("v=0|s=-"));
    let plain = "multipart/mixed;boundary=b";
    let table = [
        (plain, format!("{isup}{sdp}--b--|"), found),
        (plain, format!("{sdp}{isup}--b--|"), found),
        (plain, format!("preamble|{isup}{sdp}--b--|epilogue"), found),
        (plain, format!("{eight_bit}--b--"), found),
        (
            "Multipart/Mixed; charset=x; BOUNDARY = \"b\" ; y=z",
            format!("{isup}{sdp}--b--|"),
            found,
        ),
        (
            "multipart/mixed; a=\"x;boundary=q\"; boundary=b",
            format!("{sdp}--b--|"),
            found,
        ),
        (
            "multipart/mixed; boundary=\"b c:d\"",
            sdp.replace("--b", "--b c:d") + "--b c:d--",
            found,
        ),
        (
            plain,
            format!("{}--b--|", sdp.replace("--b", "--b \t")),
            found,
        ),
        // Only whole delimiters at the beginning of a line count.
        (
            plain,
            format!("{isup}--bb|Content-Type: application/sdp||v=1|--b--|"),
            Ok(None),
        ),
        (plain, format!("{isup}--b--|{sdp}"), Ok(None)),
        (plain, sdp.to_owned(), Ok(Some("v=0|s=-|"))),
        (plain, format!("{isup}--b--|"), Ok(None)),
        (plain, "--b||v=0|--b--|".to_owned(), Ok(None)),
        (
            plain,
            "--b|Content-Type: application/sdp".to_owned(),
            Ok(None),
        ),
        (plain, String::from("no delimiter"), Ok(None)),
        // The session's SDP, not the early session's.
        (
            plain,
            format!("{}{sdp}--b--|", early.replace("v=0", "v=9")),
            found,
        ),
        (plain, format!("{gzip}--b--|"), Err(SipError::EncodedSdp)),
        (plain, format!("{base64}--b--|"), Err(SipError::EncodedSdp)),
        ("multipart/mixed;boundary=n0", nested(1), found),
        ("multipart/mixed;boundary=n1", nested(2), Ok(None)),
        ("multipart/mixed", sdp.to_owned(), Err(SipError::Boundary)),
        (
            "multipart/mixed;boundary=",
            sdp.to_owned(),
            Err(SipError::Boundary),
        ),
        (
            "multipart/mixed;boundary=\"b",
            sdp.to_owned(),
            Err(SipError::Boundary),
        ),
    ];
    for (content_type, body, expect) in table {
        check_sdp(&[&format!("Content-Type: {content_type}")], &body, expect);
    }
}

#[test]
fn provider_call_ids_keep_their_header_s_name() {
    let table: [(&[&str], Option<(&str, &str)>); 4] = [
        (
            &["x-twilio-callsid: CA1 "],
            Some(("x-twilio-callsid", "CA1")),
        ),
        (
            &["X-Twilio-CallSid: CA1", "X-Twilio-CallSid: CA2"],
            Some(("X-Twilio-CallSid", "CA1")),
        ),
        (&["X-Twilio-AccountSid: AC1"], None),
        (&[], None),
    ];
    for (lines, expect) in table {
        let text = invite(lines, "");
        let read = parse_datagram(text.as_bytes()).unwrap().provider_call_id;
        let read = read
            .as_ref()
            .map(|(name, value)| (name.as_ref(), value.as_ref()));
        assert_eq!(read, expect, "{lines:?}");
    }
}

#[test]
fn session_expires_is_a_number_of_seconds_or_nothing() {
    for (line, expect) in [
        ("Session-Expires: 1800", Some(1800)),
        ("session-expires : 90 ;refresher=uac", Some(90)),
        ("x: 3600;refresher=uas", Some(3600)),
        ("X-Other: 3600", None),
        ("x: 4294967296", None),
        ("x: -1", None),
        ("x: +60", None),
        ("x:", None),
    ] {
        let text = format!(
            "SIP/2.0 200 OK\r\nCall-ID: a\r\nCSeq: 1 INVITE\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>;tag=2\r\n{line}\r\n\r\n"
        );
        let found = parse_datagram(text.as_bytes()).map(|message| message.session_expires);
        assert_eq!(found, Ok(expect), "{line}");
    }
}
