//! Packets of the feed as blocks of a pcapng file, each with the verdict and its reason in its comment.
//!
//! It makes bytes and writes them nowhere. Invariants: what it gives is whole blocks, so that a file that ends behind any of them is
//! valid; no block holds credentials. Times are in nanoseconds since 1970.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use pcap_file::{
    DataLink, PcapError,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};
use sipfilter_common::record::MAX_COPY;

use super::{credentials, feed::Packet, interface, ledger::verdict_name, privacy::Redactor};
use crate::{
    engine::{CallNumber, Direction},
    view,
};

/// Nanoseconds: ten to the minus this.
const NANOSECONDS: u8 = 9;
/// The longest packet: a copy of signalling behind an Ethernet header.
const SNAPLEN: u32 = MAX_COPY as u32 + 14;
/// `epb_flags`: which way the packet went.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A file in the making.
pub struct Pcapng {
    writer: PcapNgWriter<Vec<u8>>,
    redactor: Redactor,
}

/// What a capture is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// What is dropped, as far as it is sampled.
    Drops,
    /// What the daemon gets to read.
    Signalling,
    /// One call's signalling, and drops that nearly belonged to it.
    Call(CallNumber),
}

impl Subject {
    /// Whether a packet belongs to it.
    pub fn takes(self, packet: &Packet) -> bool {
        match (self, packet) {
            (Self::Drops, Packet::Dropped { .. })
            | (Self::Signalling, Packet::Signalling { .. }) => true,
            (Self::Call(call), Packet::Signalling { calls, .. }) => calls.contains(&call),
            (Self::Call(call), Packet::Dropped { near, .. }) => {
                near.as_ref().is_some_and(|near| near.call == call.0)
            }
            _ => false,
        }
    }
}

impl Pcapng {
    /// The beginning of a file: the section, and an "interface" for each kind of packet.
    ///
    /// # Errors
    /// None, as long as memory can be written to.
    pub fn new(redactor: Redactor) -> Result<Self, PcapError> {
        let application = concat!("sipfilter ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: pcap_file::Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(
                application,
            ))],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(Vec::new(), section)?;
        for (name, description) in [
            ("drops", "samples of dropped packets"),
            (
                "signalling",
                "copies of signalling; their Ethernet headers are made up",
            ),
        ] {
            writer.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: SNAPLEN,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                    InterfaceDescriptionOption::IfDescription(Cow::Borrowed(description)),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ],
            })?;
        }
        Ok(Self { writer, redactor })
    }

    /// Adds a packet. `missed` were lost before it, because the reader was too slow.
    ///
    /// # Errors
    /// None, as long as memory can be written to.
    pub fn add(&mut self, packet: &Packet, missed: u64) -> Result<(), PcapError> {
        let (interface_id, at, direction, original_len, mut data) = match packet {
            Packet::Dropped { at, sample, .. } => {
                let data = sample.bytes.clone();
                (0, *at, sample.direction, sample.original, data)
            }
            Packet::Signalling {
                at,
                direction,
                bytes,
                truncated,
                ..
            } => {
                let data = framed(bytes);
                // One that was cut was longer; by how much, is not told here.
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let length = length.saturating_add(u32::from(*truncated));
                (1, *at, *direction, length, data)
            }
        };
        let flags = match direction {
            Direction::Ingress => INBOUND,
            Direction::Egress => OUTBOUND,
        };
        let mut comment = comment(packet);
        match credentials::blank(&mut data) {
            0 => {}
            blanked => comment.push_str(&format!("; {blanked} bytes of credentials blanked")),
        }
        self.redactor.packet(&mut data);
        let comment = self.redactor.text(&comment).into_owned();
        let mut options = vec![
            EnhancedPacketOption::Comment(Cow::Owned(comment)),
            EnhancedPacketOption::Flags(flags),
        ];
        if missed > 0 {
            options.push(EnhancedPacketOption::DropCount(missed));
        }
        self.writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id,
            timestamp: since_1970(at),
            original_len,
            data: Cow::Owned(data),
            options,
        })?;
        Ok(())
    }

    /// The blocks since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }
}

/// A copy of signalling begins with its IP header. tcpdump reads no file with more than one link type, so it gets an Ethernet header,
/// without addresses.
fn framed(packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = match packet.first().map(|byte| byte >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [0x08, 0x00],
    };
    [&[0; 12], ethertype.as_slice(), packet].concat()
}

fn since_1970(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// The verdict, why, and what else is known.
fn comment(packet: &Packet) -> String {
    match packet {
        Packet::Dropped { sample, near, .. } => {
            let interface = interface::name(sample.interface);
            let way = match sample.direction {
                Direction::Ingress => "in by",
                Direction::Egress => "out by",
            };
            let mut text = format!(
                "{}: {}, {way} {}",
                verdict_name(sample.dropped),
                sample.reason.name(),
                interface.unwrap_or_else(|| sample.interface.0.to_string()),
            );
            if let Some(view::Near { call, pinhole, how }) = near {
                text.push_str(&format!(", near call {call}: {how} {pinhole}"));
            }
            text
        }
        Packet::Signalling {
            direction, calls, ..
        } => {
            let reason = match direction {
                Direction::Ingress => "signalling",
                Direction::Egress => "egress_signalling",
            };
            let mut calls = calls.clone();
            calls.dedup();
            let calls: Vec<String> = calls.iter().map(|call| call.0.to_string()).collect();
            match calls.as_slice() {
                [] => format!("pass: {reason}"),
                [call] => format!("pass: {reason}, call {call}"),
                several => format!("pass: {reason}, calls {}", several.join(" ")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use pcap_file::pcapng::{Block, PcapNgReader};
    use sipfilter_common::{reason::Reason, record::MAX_SAMPLE};

    use super::*;
    use crate::config::Redact;
    use crate::shell::sample::{Sample, tests::record};

    fn dropped() -> Packet {
        let ends = ("192.0.2.66:4000", "203.0.113.10:10001");
        let record = record(Reason::NoPinhole, ends, &[0x80; 1_400], MAX_SAMPLE);
        let mut sample = Sample::read(&record).expect("a sample");
        // No interface has this number.
        sample.interface = interface::Index(i32::MAX.unsigned_abs());
        Packet::Dropped {
            at: SystemTime::UNIX_EPOCH + Duration::from_nanos(1_800_000_000_123_456_789),
            sample: Box::new(sample),
            near: Some(view::Near {
                call: 2,
                pinhole: "203.0.113.10:10000".parse().expect("a place"),
                how: "next_port".to_owned(),
            }),
        }
    }

    fn signalling(calls: &[u64]) -> Packet {
        Packet::Signalling {
            at: SystemTime::UNIX_EPOCH,
            direction: Direction::Egress,
            bytes: b"E\0\0\x15 o\0\0\nAuthorization:secret".to_vec(),
            truncated: false,
            calls: calls.iter().copied().map(CallNumber).collect(),
        }
    }

    #[test]
    fn what_is_written_can_be_read_with_verdict_and_reason() {
        let mut file = Pcapng::new(Redactor::new([1, 2], Redact::None)).expect("memory");
        let mut bytes = file.take();
        for (packet, missed) in [(dropped(), 0), (signalling(&[7, 7]), 3)] {
            file.add(&packet, missed).expect("memory");
            bytes.extend(file.take());
        }
        let mut reader = PcapNgReader::new(Cursor::new(bytes)).expect("a section");
        let mut found = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.expect("a block") {
                found.push(packet.into_owned());
            }
        }
        let [drop, message] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(drop.timestamp.as_nanos(), 1_800_000_000_123_456_789);
        assert_eq!((drop.interface_id, drop.original_len), (0, 1_442));
        assert_eq!(drop.data.len(), MAX_SAMPLE);
        let comment =
            "drop: no_pinhole, in by 2147483647, near call 2: next_port 203.0.113.10:10000";
        assert_eq!(
            drop.options,
            [
                EnhancedPacketOption::Comment(comment.into()),
                EnhancedPacketOption::Flags(INBOUND)
            ]
        );
        assert_eq!(
            &message.data[12..],
            b"\x08\0E\0\0\x15 o\0\0\nAuthorization:XXXXXX"
        );
        assert_eq!(
            message.options,
            [
                EnhancedPacketOption::Comment(
                    "pass: egress_signalling, call 7; 6 bytes of credentials blanked".into()
                ),
                EnhancedPacketOption::Flags(OUTBOUND),
                EnhancedPacketOption::DropCount(3)
            ]
        );
    }

    #[test]
    fn a_subject_takes_what_belongs_to_it() {
        let call = |number| Subject::Call(CallNumber(number));
        for (subject, packet, expect) in [
            (Subject::Drops, dropped(), true),
            (Subject::Drops, signalling(&[]), false),
            (Subject::Signalling, dropped(), false),
            (Subject::Signalling, signalling(&[]), true),
            (call(2), dropped(), true),
            (call(3), dropped(), false),
            (call(3), signalling(&[2, 3]), true),
            (call(1), signalling(&[2, 3]), false),
        ] {
            assert_eq!(subject.takes(&packet), expect, "{subject:?} {packet:?}");
        }
    }
}
