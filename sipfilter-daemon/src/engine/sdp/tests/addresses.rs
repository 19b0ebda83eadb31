//! Addresses: connection lines, RTCP attributes and candidates, right, odd and wrong.

use super::{super::*, address, audio, check, check_audio, ip, name};

#[test]
fn connection_lines_hold_an_address_or_a_name() {
    let table = [
        ("IN IP4 192.0.2.1", vec![address("192.0.2.1")]),
        ("in ip4\t192.0.2.1 ", vec![address("192.0.2.1")]),
        ("IN IP4 233.252.0.1/127", vec![address("233.252.0.1")]),
        ("IN IP4 233.252.0.1/127/3", vec![address("233.252.0.1")]),
        ("IN IP6 2001:DB8:0::1", vec![address("2001:db8::1")]),
        ("IN IP6 ff00::db8:0:101/3", vec![address("ff00::db8:0:101")]),
        ("IN IP6 ::ffff:192.0.2.1", vec![address("192.0.2.1")]),
        ("IN IP6 ::FFFF:c000:0201", vec![address("192.0.2.1")]),
        ("IN IP4 0.0.0.0", vec![address("0.0.0.0")]),
        ("IN IP6 ::", vec![address("::")]),
        ("IN IP4 2001:db8::1", vec![address("2001:db8::1")]),
        ("IN IP4 media.example.com", vec![name("media.example.com")]),
        (
            "IN IP4 media_1.example.com.",
            vec![name("media_1.example.com.")],
        ),
        ("ATM NSAP 47.0091", vec![]),
    ];
    for (line, connections) in table {
        let expect = MediaDescription {
            connections,
            ..audio()
        };
        check(
            &format!("c={line}|m=audio 5000 RTP/AVP 0"),
            Ok(vec![expect.clone()]),
        );
        check(
            &format!("c=IN IP4 192.0.2.200|m=audio 5000 RTP/AVP 0|c={line}"),
            Ok(vec![expect]),
        );
    }
    let bad = [
        "192.0.2",
        "192.0.2.256",
        "192.0.2.01",
        "1.2.3.4.5",
        "192.0.2.1/x",
        "192.0.2.1/",
        "192.0.2.1/1/2/3",
        "[2001:db8::1]",
        "2001:db8::1%eth0",
        "192.0.2.1:5000",
        "a..1",
        ".",
        "a@b",
        "\u{e9}.example.com",
    ];
    for text in bad {
        check(
            &format!("m=audio 5000 RTP/AVP 0|c=IN IP4 {text}"),
            Err(SdpError::Address),
        );
        check(
            &format!("c=IN IP4 {text}|m=audio 5000 RTP/AVP 0"),
            Err(SdpError::Address),
        );
        // Where the stream is off, or every section has its own, nothing is lost with it.
        let off = MediaDescription {
            port: 0,
            connections: vec![],
            ..audio()
        };
        check(
            &format!("c=IN IP4 {text}|m=audio 0 RTP/AVP 0"),
            Ok(vec![off]),
        );
        check(
            &format!("c=IN IP4 {text}|m=audio 5000 RTP/AVP 0|c=IN IP4 192.0.2.1"),
            Ok(vec![audio()]),
        );
    }
    for lines in [
        "c=IN IP4",
        "c=",
        "c=IN IP4 192.0.2.1 x",
        "c=IN IP4 192.0.2.1|c=IN IP4 192.0.2.2",
    ] {
        let body = format!("v=0\n{}\nm=audio 5000 RTP/AVP 0", lines.replace('|', "\n"));
        assert!(
            matches!(parse(body.as_bytes(), 4), Err(SdpError::Grammar(_))),
            "{lines}"
        );
    }
    check(
        "m=audio 5000 RTP/AVP 0",
        Ok(vec![MediaDescription {
            connections: vec![],
            ..audio()
        }]),
    );
}

#[test]
fn several_connection_lines_of_a_section_stay_a_list_up_to_a_cap() {
    let lines = |count: usize| {
        (0..count)
            .map(|n| format!("c=IN IP4 192.0.2.{n}|"))
            .collect::<String>()
    };
    let expect = MediaDescription {
        connections: (0..MAX_CONNECTIONS)
            .map(|n| address(&format!("192.0.2.{n}")))
            .collect(),
        ..audio()
    };
    check_audio(&lines(MAX_CONNECTIONS), expect);
    check_audio("c=IN IP4 192.0.2.1|c=IN IP6 ::ffff:192.0.2.1", audio());
    let body = format!("m=audio 5000 RTP/AVP 0|{}", lines(MAX_CONNECTIONS + 1));
    check(
        &body,
        Err(SdpError::TooManyAddresses {
            limit: MAX_CONNECTIONS,
        }),
    );
}

#[test]
fn rtcp_goes_where_its_attributes_say() {
    let table = [
        ("a=rtcp-mux", true, None),
        ("a=rtcp-mux-only", true, None),
        ("a=rtcp-muxed", false, None),
        ("a=rtcp:5005", false, Some((5005, None))),
        (
            "a=rtcp:5005 IN IP4 192.0.2.9",
            false,
            Some((5005, Some("192.0.2.9"))),
        ),
        (
            "a=rtcp: 5005  IN  IP6  2001:db8::9 ",
            false,
            Some((5005, Some("2001:db8::9"))),
        ),
        (
            "a=rtcp:5005 IN IP6 ::ffff:192.0.2.9",
            false,
            Some((5005, Some("192.0.2.9"))),
        ),
        (
            "a=rtcp:5005 IN IP4 media.example.com",
            false,
            Some((5005, None)),
        ),
        ("a=rtcp:9 IN IP4 0.0.0.0|a=rtcp-mux", true, Some((9, None))),
        ("a=rtcp:0", false, None),
        ("a=rtcp:+5005", false, None),
        ("a=rtcp:65536|a=rtcp:5007", false, Some((5007, None))),
        ("a=rtcp", false, None),
        ("a=rtcp-fb:* nack", false, None),
    ];
    for (lines, mux, explicit) in table {
        let explicit = explicit.map(|(port, address)| (port, address.map(ip)));
        let rtcp = Rtcp { mux, explicit };
        check_audio(lines, MediaDescription { rtcp, ..audio() });
    }
}

#[test]
fn candidates_are_the_udp_ones_with_a_literal_address() {
    let table = [
        (
            "1 1 UDP 2130706431 192.0.2.5 8998 typ host",
            Some((1, "192.0.2.5", 8998)),
        ),
        (
            "a/b+ 2 udp 1 2001:db8::5 9 typ srflx raddr 10.0.0.1 rport 8",
            Some((2, "2001:db8::5", 9)),
        ),
        (
            "1 256 udp 1 ::ffff:192.0.2.5 1 typ relay",
            Some((256, "192.0.2.5", 1)),
        ),
        ("1 1 TCP 1 192.0.2.5 9 typ host tcptype active", None),
        ("1 1 udp 1 4f9c.local 8998 typ host", None),
        ("1 1 udp 1 turn.example.com 8998 typ relay", None),
        ("1 0 udp 1 192.0.2.5 8998 typ host", None),
        ("1 257 udp 1 192.0.2.5 8998 typ host", None),
        ("1 1 udp 1 192.0.2.5 0 typ host", None),
        ("1 1 udp 1 192.0.2.5 +8998 typ host", None),
        ("1 1 udp 1 192.0.2.5 65536 typ host", None),
        ("1 1 udp 1 192.0.2.5", None),
        ("", None),
    ];
    for (value, expect) in table {
        let candidates = expect.map(|(component, address, port)| Candidate {
            component,
            address: ip(address),
            port,
        });
        let candidates = Vec::from_iter(candidates);
        check_audio(
            &format!("a=candidate:{value}"),
            MediaDescription {
                candidates,
                ..audio()
            },
        );
    }
    let line = "a=candidate:1 1 udp 1 192.0.2.5 8998 typ host|";
    let candidate = Candidate {
        component: 1,
        address: ip("192.0.2.5"),
        port: 8998,
    };
    let candidates = vec![candidate; MAX_CANDIDATES];
    check_audio(
        &line.repeat(MAX_CANDIDATES),
        MediaDescription {
            candidates,
            ..audio()
        },
    );
    let body = format!("m=audio 5000 RTP/AVP 0|{}", line.repeat(MAX_CANDIDATES + 1));
    check(
        &body,
        Err(SdpError::TooManyAddresses {
            limit: MAX_CANDIDATES,
        }),
    );
}
