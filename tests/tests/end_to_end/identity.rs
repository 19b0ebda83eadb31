//! It never rewrites a byte: frames before and after the filter are compared; and VLAN tags hide nothing from it and are not lost.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use sipfilter_tests::lab::{
    address::{Family, Place, SIP_PORT},
    call::Role,
    daemon::{Filter, Mode},
    sipp::{Answer, Cue, Progress},
    sniffer::Recorder,
    stage::Stage,
    topology::{Network, Topology},
};

use crate::Test;

const CALLS: u16 = 3;
const PACKETS: u32 = 10;

pub fn tests() -> Vec<Test> {
    let mut tests = vec![Test::new("a_changed_byte_would_be_noticed", a_changed_byte)];
    for (name, filter) in [
        ("native", Filter::Sipfilter(Mode::Native)),
        ("generic", Filter::Sipfilter(Mode::Generic)),
        // What the network itself changes must not be blamed on the filter.
        ("without_a_filter", Filter::None),
    ] {
        for (ip, family) in [("ipv4", Family::V4), ("ipv6", Family::V6)] {
            for topology in [Topology::Routed, Topology::OnHost] {
                tests.push(Test::new(
                    format!("no_byte_is_changed::{topology}::{ip}::{name}"),
                    move || no_byte_is_changed(topology, family, filter),
                ));
            }
        }
        for tags in [&[7][..], &[7, 9][..]] {
            tests.push(Test::new(
                format!(
                    "calls_keep_their_audio_under_vlan_tags::{}::{name}",
                    tags.len()
                ),
                move || vlan_tags(tags, filter),
            ));
        }
    }
    tests
}

fn no_byte_is_changed(topology: Topology, family: Family, filter: Filter) -> Result<()> {
    let network = Network::build(topology, family, &[])?;
    let mut stage = Stage::set(network, filter, CALLS, CALLS)?;
    let wire = Recorder::start(&stage.network.switch)?;
    let edge = Recorder::start(&stage.network.edge)?;
    let provider = Recorder::start(&stage.network.provider)?;
    let pbx = Recorder::start(stage.network.pbx())?;
    a_call_with_audio(&mut stage)?;
    let [wire, edge, provider, pbx] = [
        wire.finish()?,
        edge.finish()?,
        provider.finish()?,
        pbx.finish()?,
    ];

    // Whole frames, from the wire to what the kernel took over from the filter.
    let to_pbx = [Place::PbxCallee, Place::PbxCaller].map(|place| place.address(family));
    let entered: Vec<&[u8]> = voice(&wire, family)
        .filter(|frame| {
            to_pbx
                .iter()
                .any(|ip| destination(frame, family) == Some(octets(*ip)))
        })
        .collect();
    all_within(
        "entering the edge",
        &entered,
        &voice(&edge, family).collect(),
    )?;

    // End to end, where a router counts down the hops and puts its own Ethernet header in front.
    let sent: Vec<Vec<u8>> = voice(&provider, family)
        .map(|f| without_hops(f, family))
        .collect();
    let got: Vec<Vec<u8>> = voice(&pbx, family)
        .map(|f| without_hops(f, family))
        .collect();
    all_within(
        "provider to PBX and back",
        &sent,
        &got.iter().cloned().collect(),
    )?;
    all_within(
        "PBX to provider and back",
        &got,
        &sent.iter().cloned().collect(),
    )
}

fn vlan_tags(tags: &'static [u16], filter: Filter) -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, tags)?;
    let mut stage = Stage::set(network, filter, CALLS, CALLS)?;
    let wire = Recorder::start(&stage.network.switch)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let filtered = stage.daemon.is_some();
    ensure!(
        !filtered || stage.pinholes()? > 0,
        "the tags hid the calls from the filter: no pinhole is open"
    );
    stage.talk(|_| true, PACKETS)?;
    stage.cue(|_| true, Role::Caller, Cue::Proceed, Progress::Ended)?;
    let (sent, arrived) = stage.talk_after_the_end(|_| true)?;
    let expect = if filtered { 0 } else { sent };
    ensure!(
        sent > 0 && arrived == expect,
        "{arrived} of {sent} packets after BYE arrived under {} tags",
        tags.len()
    );
    let tagged = wire
        .finish()?
        .iter()
        .filter(|frame| is_tagged(frame, tags))
        .count();
    ensure!(
        tagged > usize::from(CALLS) * PACKETS as usize,
        "only {tagged} frames on the wire to the edge had {} tags",
        tags.len()
    );
    Ok(())
}

/// Whether these tags stand in the frame, the last of them in front of an IPv4 packet.
fn is_tagged(frame: &[u8], tags: &[u16]) -> bool {
    let end = 12 + 4 * tags.len();
    frame.get(end..end + 2) == Some(&[0x08, 0x00])
        && tags.iter().enumerate().all(|(depth, tag)| {
            let at = 14 + 4 * depth;
            frame.get(at..at + 2) == Some(&tag.to_be_bytes())
        })
}

fn a_changed_byte() -> Result<()> {
    let packets: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n, 1, 2, 3]).collect();
    all_within("unchanged", &packets, &packets.iter().cloned().collect())?;
    let mut changed = packets.clone();
    changed[50][3] = 4;
    ensure!(all_within("changed", &packets, &changed.into_iter().collect()).is_err());
    Ok(())
}

fn a_call_with_audio(stage: &mut Stage) -> Result<()> {
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    stage.talk(|_| true, PACKETS)?;
    stage.cue(|_| true, Role::Callee, Cue::Proceed, Progress::Ended)
}

fn all_within<T: AsRef<[u8]> + Eq + std::hash::Hash>(
    what: &str,
    before: &[T],
    after: &HashSet<T>,
) -> Result<()> {
    // Each call has seven SIP messages at least, and RTP both ways.
    let least = usize::from(CALLS) * 2 * (3 + PACKETS as usize);
    ensure!(
        before.len() >= least,
        "{what}: only {} packets were seen",
        before.len()
    );
    if let Some(changed) = before.iter().find(|packet| !after.contains(packet)) {
        anyhow::bail!(
            "{what}: this packet did not come out as it went in: {:02x?}",
            changed.as_ref()
        );
    }
    Ok(())
}

/// SIP and RTP frames between hosts. The lab's cues, on a loopback, carry no Ethernet addresses.
fn voice(frames: &[Vec<u8>], family: Family) -> impl Iterator<Item = &[u8]> {
    frames
        .iter()
        .map(Vec::as_slice)
        .filter(|frame| {
            frame
                .get(..12)
                .is_some_and(|addresses| addresses != [0; 12])
        })
        .filter(move |frame| match family {
            Family::V4 => frame.get(12..14) == Some(&[0x08, 0x00]) && frame.get(23) == Some(&17),
            Family::V6 => frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20) == Some(&17),
        })
        .filter(move |frame| {
            let transport = 14 + header(family);
            let port = |at: usize| {
                frame
                    .get(at..at + 2)
                    .map(|p| u16::from_be_bytes([p[0], p[1]]))
            };
            match (port(transport), port(transport + 2)) {
                (Some(from), Some(to)) => {
                    (from == SIP_PORT && to == SIP_PORT) || (from >= 10_000 && to >= 10_000)
                }
                _ => false,
            }
        })
}

fn header(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

fn destination(frame: &[u8], family: Family) -> Option<Vec<u8>> {
    match family {
        Family::V4 => frame.get(30..34),
        Family::V6 => frame.get(38..54),
    }
    .map(<[u8]>::to_vec)
}

fn octets(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The IP packet with what a router rewrites set to zero: TTL and header checksum (RFC 1812 §5.3.1), hop limit (RFC 8200 §3).
fn without_hops(frame: &[u8], family: Family) -> Vec<u8> {
    let mut packet = frame[14..].to_vec();
    match family {
        Family::V4 => {
            packet[8] = 0;
            packet[10..12].fill(0);
        }
        Family::V6 => packet[7] = 0,
    }
    packet
}
