//! Sections and their lines: one entry per habit of real peers, per trap of `sdp-types`, and per way to be wrong.

use super::{super::*, address, audio, check, check_audio};

#[test]
fn a_whole_offer_gives_its_sections_in_order() {
    let body = "v=0\r\n\
        o=alice 2890844526 2890844526 IN IP4 host.example.com\r\n\
        s=-\r\n\
        i=any text\r\n\
        c=IN IP4 192.0.2.1\r\n\
        b=AS:64\r\n\
        t=0 0\r\n\
        a=tool:any\r\n\
        m=audio 49170 RTP/AVP 0 8 101\r\n\
        a=rtpmap:0 PCMU/8000\r\n\
        a=fmtp:101 0-16\r\n\
        a=ptime:20\r\n\
        m=video 51372 UDP/TLS/RTP/SAVPF 96\r\n\
        c=IN IP6 2001:db8::7\r\n\
        a=sendonly\r\n\
        a=rtcp-mux\r\n\
        a=fingerprint:sha-256 00:11\r\n\
        a=ice-ufrag:abcd\r\n\
        m=image 0 udptl t38\r\n\
        m=application 5002 UDP/DTLS/SCTP webrtc-datachannel\r\n";
    let audio = MediaDescription {
        port: 49170,
        payload_types: 1 | 1 << 8 | 1 << 101,
        packet_time: Some(20),
        ..audio()
    };
    let video = MediaDescription {
        kind: MediaKind::Video,
        port: 51372,
        connections: vec![address("2001:db8::7")],
        direction: MediaDirection::SendOnly,
        rtcp: Rtcp {
            mux: true,
            explicit: None,
        },
        ice: true,
        fingerprint: true,
        payload_types: 1 << 96,
        ..self::audio()
    };
    let image = MediaDescription {
        kind: MediaKind::Image,
        protocol: Protocol::Udptl,
        port: 0,
        payload_types: 0,
        ..self::audio()
    };
    let data = MediaDescription {
        kind: MediaKind::Other,
        protocol: Protocol::Other,
        port: 5002,
        payload_types: 0,
        ..self::audio()
    };
    let media = vec![audio, video, image, data];
    assert_eq!(parse(body.as_bytes(), 4), Ok(SessionDescription { media }));
    assert_eq!(
        parse(body.as_bytes(), 3),
        Err(SdpError::TooManyMedia { limit: 3 })
    );
    assert_eq!(
        parse(b"v=0\r\nc=IN IP4 192.0.2.1\r\n", 0),
        Ok(SessionDescription::default())
    );
}

#[test]
fn a_sections_bandwidth_is_in_bits_and_anything_odd_is_none() {
    #[track_caller]
    fn check(lines: &str, bandwidth: Option<u64>) {
        let expect = MediaDescription {
            bandwidth,
            ..audio()
        };
        check_audio(lines, expect);
    }
    check("b=AS:2000", Some(2_000_000));
    check("b=TIAS:1500000", Some(1_500_000));
    check("b=TIAS:1500000|b=AS:1600", Some(1_600_000));
    check("b=AS:64 ", Some(64_000));
    check("a=b:AS:64", None);
    check("b=AS:0", None);
    check("b=CT:64", None);
    check("b=RR:800", None);
    check("b=X-AS:64", None);
    check("b=AS:-5", None);
    check("b=AS:1.5", None);
    check("b=AS:64 kbit", None);
    check("b=AS", None);
    check("b=AS:18446744073709551615", Some(u64::MAX));
    check("b=AS:18446744073709551616", None);
}

#[test]
fn packet_times_are_whole_milliseconds_and_at_least_one() {
    #[track_caller]
    fn check(line: &str, packet_time: Option<u16>) {
        let expect = MediaDescription {
            packet_time,
            ..audio()
        };
        check_audio(line, expect);
    }
    check("a=ptime:20", Some(20));
    check("a=ptime: 30 ", Some(30));
    check("a=ptime:2.5", Some(2));
    check("a=ptime:0", Some(1));
    check("a=ptime:0.125", Some(1));
    check("a=ptime:-5", None);
    check("a=ptime:99999", None);
    check("a=ptime", None);
    check("a=ptime:x|a=ptime:10", Some(10));
}

#[test]
fn lines_that_do_not_move_media_never_refuse_the_body() {
    let junk: [&[u8]; 16] = [
        b"o=",
        b"o=a b c",
        b"s=",
        b"b=AS",
        b"b=AS:-1",
        b"t=",
        b"r=7d",
        b"z=1",
        b"junk",
        b"=",
        b"a",
        b"a=",
        b"M=audio 1 RTP/AVP 0",
        b"C=IN IP4 192.0.2.9",
        b"s=\xff\0 name",
        b"a=candidate:1 1 udp 1 \xff 1 typ host",
    ];
    for line in junk {
        let parts: [&[u8]; 7] = [
            b"v=0\r\n",
            line,
            b"\r\nc=IN IP4 192.0.2.1\r\n",
            line,
            b"\r\nm=audio 5000 RTP/AVP 0\r\n",
            line,
            b"\r\n",
        ];
        let expect = Ok(SessionDescription {
            media: vec![audio()],
        });
        assert_eq!(parse(&parts.concat(), 4), expect, "{}", line.escape_ascii());
    }
}

#[test]
fn a_body_is_one_description_of_version_0() {
    let m = "m=audio 5000 RTP/AVP 0";
    for body in [
        "",
        "x",
        "\r\n",
        "s=-\r\n",
        "v=1\r\n",
        "v=\r\n",
        "V=0\r\n",
        "v=0\r\nv=0\r\n",
        " v=0\r\n",
    ] {
        assert_eq!(
            parse(body.as_bytes(), 4),
            Err(SdpError::Version),
            "{body:?}"
        );
        assert_eq!(
            parse(format!("{m}\r\n{body}").as_bytes(), 4),
            Err(SdpError::Version)
        );
    }
    for body in ["v=0", "v=0 \r\n", "junk\r\nv=0\r\n"] {
        assert_eq!(
            parse(body.as_bytes(), 4),
            Ok(SessionDescription::default()),
            "{body:?}"
        );
    }
    let padding = |size: usize| format!("v=0\n{}", "x".repeat(size - 4));
    assert!(parse(padding(MAX_BODY).as_bytes(), 4).is_ok());
    let size = MAX_BODY + 1;
    assert_eq!(
        parse(padding(size).as_bytes(), 4),
        Err(SdpError::TooLarge { size })
    );
}

#[test]
fn a_cr_inside_a_line_never_makes_a_line_of_its_own() {
    let hidden =
        b"v=0\r\nc=IN IP4 192.0.2.1\r\ns=x\rm=video 1 RTP/AVP 0\r\nm=audio 5000 RTP/AVP 0\r\n";
    assert_eq!(
        parse(hidden, 4),
        Ok(SessionDescription {
            media: vec![audio()]
        })
    );
    let inside = b"v=0\r\nm=audio 5000 RTP/AVP 0\rc=IN IP4 192.0.2.1\r\n";
    assert!(matches!(parse(inside, 4), Err(SdpError::Grammar(_))));
}

#[test]
fn ports_are_plain_numbers_whose_count_fits() {
    let table = [
        ("m=audio 5000 RTP/AVP 0", Some((5000, 1))),
        ("m=audio 05000 RTP/AVP 0", Some((5000, 1))),
        ("m=audio  5000\tRTP/AVP  0 ", Some((5000, 1))),
        ("m=audio 5000/2 RTP/AVP 0", Some((5000, 2))),
        ("m=audio 65535 RTP/AVP 0", Some((65535, 1))),
        ("m=audio 65533/2 RTP/AVP 0", Some((65533, 2))),
        ("m=audio 0 RTP/AVP 0", Some((0, 1))),
        ("m=audio 0 RTP/AVP", Some((0, 1))),
        ("m=audio 65534/2 RTP/AVP 0", None),
        ("m=audio 5000/0 RTP/AVP 0", None),
        ("m=audio +5000 RTP/AVP 0", None),
        ("m=audio -5000 RTP/AVP 0", None),
        ("m=audio 5000/+2 RTP/AVP 0", None),
        ("m=audio 5000/ RTP/AVP 0", None),
        ("m=audio /2 RTP/AVP 0", None),
        ("m=audio $ RTP/AVP 0", None),
        ("m=audio", None),
        ("m=", None),
    ];
    for (line, expect) in table {
        let media = expect.map(|(port, port_count)| MediaDescription {
            port,
            port_count,
            payload_types: u128::from(line.contains(" 0") && !line.ends_with("AVP")),
            ..audio()
        });
        let expect = media
            .map(|media| vec![audio(), media])
            .ok_or(SdpError::Port { section: 1 });
        check(
            &format!("c=IN IP4 192.0.2.1|m=audio 5000 RTP/AVP 0|{line}"),
            expect,
        );
    }
    for line in [
        "m=audio 65536 RTP/AVP 0",
        "m=audio 4294972296 RTP/AVP 0",
        "m=audio 5000 RTP/AVP",
        "m=audio 5000",
    ] {
        let body = format!("v=0\r\n{line}\r\n");
        assert!(
            matches!(parse(body.as_bytes(), 4), Err(SdpError::Grammar(_))),
            "{line}"
        );
    }
}

#[test]
fn protocols_are_told_by_what_they_put_on_the_wire() {
    let table = [
        ("RTP/AVP", Protocol::Rtp),
        ("RTP/SAVP", Protocol::Rtp),
        ("rtp/avpf", Protocol::Rtp),
        ("RTP/SAVPF", Protocol::Rtp),
        ("UDP/TLS/RTP/SAVP", Protocol::Rtp),
        ("UDP/TLS/RTP/SAVPF", Protocol::Rtp),
        ("udptl", Protocol::Udptl),
        ("UDPTL", Protocol::Udptl),
        ("UDP/TLS/UDPTL", Protocol::Udptl),
        ("TCP/RTP/AVP", Protocol::Other),
        ("TCP/DTLS/RTP/SAVPF", Protocol::Other),
        ("TCP/MSRP", Protocol::Other),
        ("UDP/DTLS/SCTP", Protocol::Other),
        ("RTP", Protocol::Other),
        ("udp", Protocol::Other),
    ];
    for (text, protocol) in table {
        let expect = MediaDescription {
            protocol,
            payload_types: u128::from(protocol == Protocol::Rtp),
            ..audio()
        };
        check(
            &format!("c=IN IP4 192.0.2.1|m=audio 5000 {text} 0"),
            Ok(vec![expect]),
        );
    }
}

#[test]
fn payload_types_are_the_numbers_below_128() {
    let table = [
        ("0", 1),
        ("127 126", 3 << 126),
        ("128 0", 1),
        ("t38 0 +8 *", 1),
        ("65536 0", 1),
        ("8 8 8", 1 << 8),
        ("x", 0),
    ];
    for (formats, payload_types) in table {
        let expect = MediaDescription {
            payload_types,
            ..audio()
        };
        check(
            &format!("c=IN IP4 192.0.2.1|m=audio 5000 RTP/AVP {formats}"),
            Ok(vec![expect]),
        );
    }
}

#[test]
fn sections_take_from_the_session_what_they_do_not_say_themselves() {
    let session = "c=IN IP4 192.0.2.1|a=inactive|a=ice-ufrag:x|a=fingerprint:sha-1 00|a=rtcp-mux|a=rtcp:1|a=crypto:1 x inline:y";
    let inherits = MediaDescription {
        direction: MediaDirection::Inactive,
        ice: true,
        fingerprint: true,
        ..audio()
    };
    let own = MediaDescription {
        connections: vec![address("192.0.2.2")],
        direction: MediaDirection::RecvOnly,
        crypto: true,
        ..inherits.clone()
    };
    let section = "m=audio 5000 RTP/AVP 0";
    check(
        &format!(
            "{session}|{section}|{section}|c=IN IP4 192.0.2.2|a=recvonly|a=crypto:1 x inline:y|{section}"
        ),
        Ok(vec![inherits.clone(), own, inherits]),
    );
}

#[test]
fn directions_are_the_section_s_first() {
    let table = [
        ("", MediaDirection::SendRecv),
        ("a=sendrecv", MediaDirection::SendRecv),
        ("a=sendonly ", MediaDirection::SendOnly),
        ("a=recvonly", MediaDirection::RecvOnly),
        ("a=inactive|a=sendrecv", MediaDirection::Inactive),
        ("a=SENDONLY", MediaDirection::SendRecv),
        ("a=sendonlyx", MediaDirection::SendRecv),
    ];
    for (lines, direction) in table {
        check_audio(
            lines,
            MediaDescription {
                direction,
                ..audio()
            },
        );
    }
}
