//! Every kind of file and link layer, and files that are broken.

use pcap_file::{
    DataLink, Endianness, TsResolution,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};
use sipfilter_daemon::simulate::CaptureError;

use crate::film::{
    Film, Link, PARTIES, PBX, Parties, SIGNALLING, STRANGER, assert_whole_call, at, call, ethernet,
    ethertype, run, settings, whole_call,
};

fn vlan(packet: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &[0x81, 0, 0, 5], &ethertype(packet), packet].concat()
}

fn qinq(packet: &[u8]) -> Vec<u8> {
    [
        &[2; 12][..],
        &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 5],
        &ethertype(packet),
        packet,
    ]
    .concat()
}

fn cooked(packet: &[u8]) -> Vec<u8> {
    [
        &[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0][..],
        &ethertype(packet),
        packet,
    ]
    .concat()
}

fn cooked_vlan(packet: &[u8]) -> Vec<u8> {
    [&[0; 14][..], &[0x81, 0, 0, 5], &ethertype(packet), packet].concat()
}

fn cooked2(packet: &[u8]) -> Vec<u8> {
    [
        &ethertype(packet)[..],
        &[0, 0, 0, 0, 0, 2, 0, 1, 4, 6, 2, 2, 2, 2, 2, 2, 0, 0],
        packet,
    ]
    .concat()
}

fn raw(packet: &[u8]) -> Vec<u8> {
    packet.to_vec()
}

fn loopback(packet: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0][..], packet].concat()
}

const LINKS: [(DataLink, Link, &str); 10] = [
    (DataLink::ETHERNET, ethernet, "ethernet"),
    (DataLink::ETHERNET, vlan, "ethernet"),
    (DataLink::ETHERNET, qinq, "ethernet"),
    (DataLink::LINUX_SLL, cooked, "linux_cooked"),
    (DataLink::LINUX_SLL, cooked_vlan, "linux_cooked"),
    (DataLink::LINUX_SLL2, cooked2, "linux_cooked_v2"),
    (DataLink::RAW, raw, "raw_ip"),
    (DataLink::IPV4, raw, "ipv4"),
    (DataLink::NULL, loopback, "bsd_loopback"),
    // Raw IP as some systems number it.
    (DataLink::SLIP_BSDOS, raw, ""),
];

#[test]
fn every_link_type_gives_the_same_report() {
    let settings = settings(&[PBX], &[SIGNALLING]);
    for (datalink, link, name) in LINKS {
        for resolution in [TsResolution::MicroSecond, TsResolution::NanoSecond] {
            for endianness in [Endianness::Little, Endianness::Big] {
                let file = whole_call().pcap_of(datalink, resolution, endianness, link);
                let report = run(&file, &settings);
                if name.is_empty() {
                    assert!(matches!(report, Err(CaptureError::LinkType(102))));
                    continue;
                }
                let report = report.unwrap();
                assert_whole_call(&report);
                assert_eq!(report.capture.format, "pcap");
                assert_eq!(report.capture.link_types, [name]);
                assert!(
                    (2.0..10.0).contains(&report.capture.seconds),
                    "{} s",
                    report.capture.seconds
                );
                assert_eq!(report.capture.start, 1_763_700_000.0);
            }
        }
    }
}

#[test]
fn raw_ipv6_is_read() {
    let parties = Parties {
        provider: "2001:db8:51::10",
        provider_media: ("2001:db8:51::20", 40_000),
        pbx: "2001:db8:113::10",
        pbx_media: ("2001:db8:113::10", 10_000),
        ..PARTIES
    };
    let mut film = Film::default();
    parties.set_up(&mut film);
    film.talk(&parties.theirs(), &parties.ours(), 4);
    for (datalink, link) in [
        (DataLink::IPV6, raw as Link),
        (DataLink::RAW, raw),
        (DataLink::LINUX_SLL, cooked),
        (DataLink::LINUX_SLL2, cooked2),
        (DataLink::LOOP, loopback),
        (DataLink::ETHERNET, vlan),
    ] {
        let file = film.pcap_of(datalink, TsResolution::NanoSecond, Endianness::Little, link);
        let report = run(&file, &settings(&[parties.pbx], &[parties.provider])).unwrap();
        assert_eq!(
            call(&report, parties.call_id).media.passed,
            4,
            "{datalink:?}"
        );
    }
}

#[test]
fn pcapng_with_several_interfaces_and_any_unit_of_time() {
    let settings = settings(&[PBX], &[SIGNALLING]);
    for endianness in [Endianness::Little, Endianness::Big] {
        for resolution in [None, Some(3), Some(6), Some(9)] {
            let interfaces: [(DataLink, Link); 3] = [
                (DataLink::ETHERNET, ethernet),
                (DataLink::LINUX_SLL2, cooked2),
                (DataLink::RAW, raw),
            ];
            let file = whole_call().pcapng(&interfaces, resolution, endianness);
            let report = run(&file, &settings).unwrap();
            assert_whole_call(&report);
            assert_eq!(report.capture.format, "pcapng");
            assert_eq!(
                report.capture.link_types,
                ["ethernet", "linux_cooked_v2", "raw_ip"]
            );
            assert_eq!(report.capture.start, 1_763_700_000.0, "{resolution:?}");
            assert!(
                (2.0..10.0).contains(&report.capture.seconds),
                "{} s",
                report.capture.seconds
            );
        }
    }
}

#[test]
fn an_interface_that_cannot_be_read_hides_no_other() {
    let film = whole_call();
    let interfaces: [(DataLink, Link); 2] =
        [(DataLink::IEEE802_11, raw), (DataLink::ETHERNET, ethernet)];
    let file = film.pcapng(&interfaces, None, Endianness::Little);
    let report = run(&file, &settings(&[PBX], &[SIGNALLING])).unwrap();
    assert_eq!((report.packets, report.capture.unreadable), (106, 53));
    assert_eq!(report.unrelated, 53);
}

/// Packets cut by a short snapshot: media is judged by its headers, signalling cannot be read and is counted.
#[test]
fn a_short_snapshot_still_tells_media() {
    let film = whole_call();
    let write = |cut: &dyn Fn(usize) -> usize| {
        let header = PcapHeader {
            snaplen: 96,
            ..PcapHeader::default()
        };
        let mut file = Vec::new();
        header.write_to(&mut file).unwrap();
        for (time, packet) in &film.packets {
            let data = ethernet(packet);
            let captured = cut(data.len()).min(data.len());
            file.extend((time.as_secs() as u32).to_be_bytes());
            file.extend(time.subsec_micros().to_be_bytes());
            file.extend((captured as u32).to_be_bytes());
            file.extend((data.len() as u32).to_be_bytes());
            file.extend(&data[..captured]);
        }
        run(&file, &settings(&[PBX], &[SIGNALLING])).unwrap()
    };
    let report = write(&|length| {
        if length == 14 + 20 + 8 + 172 {
            96
        } else {
            length
        }
    });
    assert_eq!(report.capture.cut, 100);
    assert_eq!(call(&report, PARTIES.call_id).media.passed, 50);
    let report = write(&|_| 96);
    assert_eq!(report.capture.cut, 106);
    assert!(report.calls.is_empty());
    assert_eq!(report.reasons.get("malformed"), None);
    assert_eq!(report.engine["refusals.truncated"], 6);
}

#[test]
fn a_file_that_ends_early_is_told_as_far_as_it_goes() {
    let settings = settings(&[PBX], &[SIGNALLING]);
    let interfaces: [(DataLink, Link); 1] = [(DataLink::ETHERNET, ethernet)];
    let film = whole_call();
    for file in [
        film.pcap(),
        film.pcapng(&interfaces, None, Endianness::Little),
    ] {
        let whole = run(&file, &settings).unwrap().packets;
        let mut complete = 0;
        for length in (0..file.len()).step_by(61) {
            match run(&file[..length], &settings) {
                Ok(report) => {
                    assert!(report.packets < whole);
                    match &report.capture.incomplete {
                        Some(why) => assert!(
                            why.contains(&format!("after {} whole packets", report.packets)),
                            "{why}"
                        ),
                        None => complete += 1,
                    }
                }
                Err(error) => assert!(length < 28, "{length} bytes: {error}"),
            }
        }
        assert!(
            complete < 10,
            "a cut between two packets is no error, and rare"
        );
    }
}

#[test]
fn what_is_no_capture_is_named() {
    for (bytes, words) in [
        (&b""[..], "it is empty"),
        (b"\xa1\xb2", "it is empty"),
        (b"GET / HTTP/1.1", "begins with the bytes 47 45 54 20"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (
            b"\xa1\xb2\xc3\xd4\0\x02",
            "ends in the middle of a record, after 0",
        ),
        (
            b"\x0a\x0d\x0d\x0a\0\0",
            "ends in the middle of a record, after 0",
        ),
        (
            b"\x0a\x0d\x0d\x0a\0\0\0\x1c\x11\x22\x33\x44\0\0\0\0",
            "is damaged after 0 packets",
        ),
    ] {
        let error = run(bytes, &settings(&[PBX], &[])).unwrap_err().to_string();
        assert!(error.contains(words), "{words:?} in {error:?}");
    }
}

#[test]
fn a_length_that_no_packet_has_is_damage() {
    let mut writer = PcapWriter::with_header(
        Vec::new(),
        PcapHeader {
            snaplen: u32::MAX,
            ..PcapHeader::default()
        },
    )
    .unwrap();
    let data = vec![0; 300_000];
    writer
        .write_packet(&PcapPacket::new(std::time::Duration::ZERO, 300_000, &data))
        .unwrap();
    let report = run(&writer.into_writer(), &settings(&[PBX], &[])).unwrap();
    let why = report.capture.incomplete.unwrap();
    assert!(why.contains("300000 bytes"), "{why}");
}

/// A small generator, so that a failure can be repeated from its seed.
fn random(seed: &mut u64) -> usize {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize
}

#[test]
fn damage_anywhere_is_survived() {
    let settings = settings(&[PBX], &[]);
    let mut film = Film::default();
    PARTIES.set_up(&mut film);
    film.talk(&PARTIES.theirs(), &PARTIES.ours(), 3);
    PARTIES.hang_up(&mut film);
    let interfaces: [(DataLink, Link); 2] =
        [(DataLink::ETHERNET, qinq), (DataLink::LINUX_SLL, cooked)];
    let files = [
        film.pcap(),
        film.pcapng(&interfaces, Some(9), Endianness::Big),
    ];
    for seed in 0..300 {
        let mut state = seed;
        let mut file = files[random(&mut state) % 2].clone();
        for _ in 0..=random(&mut state) % 8 {
            let place = random(&mut state) % file.len();
            file[place] = random(&mut state) as u8;
        }
        if let Ok(report) = run(&file, &settings) {
            assert_eq!(
                report.packets,
                report.ingress + report.egress + report.unrelated,
                "seed {seed}"
            );
            assert_eq!(
                report.passed + report.dropped,
                report.ingress + report.egress,
                "seed {seed}"
            );
            let in_flows: u64 = report.flows.iter().map(|flow| flow.packets).sum();
            assert_eq!(in_flows, report.passed + report.dropped, "seed {seed}");
        }
    }
}

#[test]
fn flows_beyond_the_reports_room_are_counted_together() {
    let mut film = Film::default();
    for port in 1..=65_535 {
        film.udp(&at(STRANGER, port), &at(PBX, 15_000), &[0x80; 12]);
    }
    for port in 1..=100 {
        film.udp(&at(STRANGER, port), &at(PBX, 15_001), &[0x80; 12]);
    }
    let report = run(&film.pcap(), &settings(&[PBX], &[])).unwrap();
    assert_eq!(report.flows.len(), 65_536);
    assert_eq!(
        (report.flows_left_out.packets, report.flows_left_out.passed),
        (99, 0)
    );
    assert_eq!(report.reasons["no_pinhole"], 65_635);
}

#[test]
fn a_hosts_talk_with_itself_is_not_judged() {
    let mut film = whole_call();
    film.udp(&at(PBX, 40_000), &at(PBX, 5060), b"a health check");
    let report = run(&film.pcap(), &settings(&[PBX], &[])).unwrap();
    assert_eq!(
        (report.packets, report.unrelated, report.dropped),
        (107, 1, 0)
    );
}
