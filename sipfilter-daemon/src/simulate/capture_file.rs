//! Packets out of a pcap or pcapng file, in the file's order, each with its time and link type.
//!
//! The container is read by `pcap-file`. What that library takes too literally is read here from its raw records: packets longer than
//! the snapshot length (which is what a short snapshot means), and pcapng's time units. It looks into no packet.
//!
//! Invariant: memory does not grow with the file, but for one entry per interface of the current section, capped.

use std::{
    io::{self, Read},
    time::Duration,
};

use pcap_file::{
    Endianness, PcapError, TsResolution,
    pcap::PcapReader,
    pcapng::{
        PcapNgReader,
        blocks::{
            ENHANCED_PACKET_BLOCK, INTERFACE_DESCRIPTION_BLOCK, PACKET_BLOCK, SECTION_HEADER_BLOCK,
            SIMPLE_PACKET_BLOCK,
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};

use super::link::LinkType;

/// No capture tool writes longer packets (libpcap's own limit): a longer one is a damaged length.
const MAX_PACKET: usize = 262_144;
/// Interfaces of one pcapng section.
const MAX_INTERFACES: usize = 4_096;
/// The interface's time unit unless it says otherwise: microseconds.
const DEFAULT_RESOLUTION: u8 = 6;

/// Why a capture cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Nothing in it.
    #[error("it is empty; write a capture with `tcpdump -w FILE`")]
    Empty,
    /// Something else.
    #[error(
        "it is no pcap or pcapng capture (it begins with the bytes {0}); write one with `tcpdump -w FILE`"
    )]
    NotACapture(String),
    /// Packed.
    #[error("it is compressed with {0}; unpack it first")]
    Compressed(&'static str),
    /// A link layer that is not read here.
    #[error(
        "its link type {0} is not supported; Ethernet, Linux cooked (v1, v2), raw IP and BSD loopback are"
    )]
    LinkType(u32),
    /// The system's word.
    #[error("cannot read on after {packets} packets: {source}")]
    Io {
        /// Packets read before.
        packets: u64,
        /// The system's word.
        source: io::Error,
    },
    /// The end is missing.
    #[error("it ends in the middle of a record, after {packets} whole packets")]
    Truncated {
        /// Packets read before.
        packets: u64,
    },
    /// It contradicts itself.
    #[error("it is damaged after {packets} packets: {what}")]
    Damaged {
        /// Packets read before.
        packets: u64,
        /// What is wrong.
        what: String,
    },
}

/// What is known of one packet besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// When it was captured, since 1970.
    pub time: Duration,
    /// What its bytes begin with; the number of a link type that is not read here.
    pub link: Result<LinkType, u32>,
    /// Bytes that it had on the wire; fewer may be in the file.
    pub original: usize,
}

/// An open capture.
pub struct Capture<R: Read> {
    source: Source<Sniffed<R>>,
    packets: u64,
}

type Sniffed<R> = io::Chain<io::Cursor<[u8; 4]>, R>;

enum Source<R: Read> {
    Pcap {
        reader: PcapReader<R>,
        link: LinkType,
        /// Nanoseconds in the fraction's unit.
        unit: u64,
    },
    PcapNg {
        reader: PcapNgReader<R>,
        interfaces: Vec<Interface>,
        last: Duration,
    },
}

impl<R: Read> Capture<R> {
    /// Reads the beginning of a file.
    ///
    /// # Errors
    /// [`CaptureError`] if it is no capture that can be read.
    pub fn open(mut file: R) -> Result<Self, CaptureError> {
        let magic = read_magic(&mut file)?;
        let file = io::Cursor::new(magic).chain(file);
        let source = match magic {
            [0x0a, 0x0d, 0x0d, 0x0a] => Source::PcapNg {
                reader: PcapNgReader::new(file).map_err(|error| translate(error, 0))?,
                interfaces: Vec::new(),
                last: Duration::ZERO,
            },
            [0xa1, 0xb2, 0xc3, 0xd4]
            | [0xd4, 0xc3, 0xb2, 0xa1]
            | [0xa1, 0xb2, 0x3c, 0x4d]
            | [0x4d, 0x3c, 0xb2, 0xa1] => {
                let reader = PcapReader::new(file).map_err(|error| translate(error, 0))?;
                let header = reader.header();
                let number = link_number(header.datalink.into());
                Source::Pcap {
                    link: LinkType::from_number(number).ok_or(CaptureError::LinkType(number))?,
                    unit: match header.ts_resolution {
                        TsResolution::MicroSecond => 1_000,
                        TsResolution::NanoSecond => 1,
                    },
                    reader,
                }
            }
            [0x1f, 0x8b, ..] => return Err(CaptureError::Compressed("gzip")),
            [0x28, 0xb5, 0x2f, 0xfd] => return Err(CaptureError::Compressed("zstd")),
            [0xfd, b'7', b'z', b'X'] => return Err(CaptureError::Compressed("xz")),
            [b'B', b'Z', b'h', _] => return Err(CaptureError::Compressed("bzip2")),
            [a, b, c, d] => {
                return Err(CaptureError::NotACapture(format!(
                    "{a:02x} {b:02x} {c:02x} {d:02x}"
                )));
            }
        };
        Ok(Self { source, packets: 0 })
    }

    /// `pcap` or `pcapng`.
    pub fn format(&self) -> &'static str {
        match self.source {
            Source::Pcap { .. } => "pcap",
            Source::PcapNg { .. } => "pcapng",
        }
    }

    /// The next packet, its bytes in `data`; `None` at the end of the file.
    ///
    /// # Errors
    /// [`CaptureError`]; there is nothing to be read after one.
    pub fn next_packet(&mut self, data: &mut Vec<u8>) -> Result<Option<Header>, CaptureError> {
        data.clear();
        let header = match &mut self.source {
            Source::Pcap { reader, link, unit } => next_of_pcap(reader, *link, *unit, data)
                .map_err(|error| error.after(self.packets))?,
            Source::PcapNg {
                reader,
                interfaces,
                last,
            } => loop {
                let next = next_of_pcapng(reader, interfaces, *last, data)
                    .map_err(|error| error.after(self.packets))?;
                match next {
                    Block::End => break None,
                    Block::Other => {}
                    Block::Packet(header) => {
                        *last = header.time;
                        break Some(header);
                    }
                }
            },
        };
        self.packets += u64::from(header.is_some());
        Ok(header)
    }
}

/// What is wrong with a record, before it is known which one it is.
enum RecordError {
    Library(PcapError),
    Damaged(String),
}

impl RecordError {
    fn after(self, packets: u64) -> CaptureError {
        match self {
            Self::Library(error) => translate(error, packets),
            Self::Damaged(what) => CaptureError::Damaged { packets, what },
        }
    }
}

fn translate(error: PcapError, packets: u64) -> CaptureError {
    match error {
        PcapError::IncompleteBuffer => CaptureError::Truncated { packets },
        PcapError::IoError(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            CaptureError::Truncated { packets }
        }
        PcapError::IoError(source) => CaptureError::Io { packets, source },
        other => CaptureError::Damaged {
            packets,
            what: other.to_string(),
        },
    }
}

fn read_magic(file: &mut impl Read) -> Result<[u8; 4], CaptureError> {
    let mut magic = [0; 4];
    match file.read_exact(&mut magic) {
        Ok(()) => Ok(magic),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(CaptureError::Empty),
        Err(source) => Err(CaptureError::Io { packets: 0, source }),
    }
}

/// The upper half of the field tells of frame check sequences.
const fn link_number(field: u32) -> u32 {
    field & 0xffff
}

fn checked_length(length: usize) -> Result<usize, RecordError> {
    if length > MAX_PACKET {
        return Err(RecordError::Damaged(format!(
            "the next packet claims {length} bytes, and no packet is longer than {MAX_PACKET}"
        )));
    }
    Ok(length)
}

fn next_of_pcap<R: Read>(
    reader: &mut PcapReader<R>,
    link: LinkType,
    unit: u64,
    data: &mut Vec<u8>,
) -> Result<Option<Header>, RecordError> {
    // The library's cooked packets refuse whatever is longer than the snapshot length.
    let Some(packet) = reader.next_raw_packet() else {
        return Ok(None);
    };
    let packet = packet.map_err(RecordError::Library)?;
    checked_length(packet.data.len())?;
    data.extend_from_slice(&packet.data);
    let seconds = Duration::from_secs(u64::from(packet.ts_sec));
    Ok(Some(Header {
        time: seconds + Duration::from_nanos(u64::from(packet.ts_frac) * unit),
        link: Ok(link),
        original: packet.orig_len as usize,
    }))
}

/// One interface of a pcapng section.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link: Result<LinkType, u32>,
    snapshot: u32,
    resolution: u8,
    /// Seconds to add to every time.
    offset: i64,
}

impl Interface {
    fn new(block: &InterfaceDescriptionBlock<'_>) -> Self {
        let number = link_number(block.linktype.into());
        let mut interface = Self {
            link: LinkType::from_number(number).ok_or(number),
            snapshot: block.snaplen,
            resolution: DEFAULT_RESOLUTION,
            offset: 0,
        };
        for option in &block.options {
            match option {
                InterfaceDescriptionOption::IfTsResol(resolution) => {
                    interface.resolution = *resolution;
                }
                InterfaceDescriptionOption::IfTsOffset(seconds) => {
                    interface.offset = seconds.cast_signed();
                }
                _ => {}
            }
        }
        interface
    }

    /// Ticks of the interface's unit as time: a power of ten, or of two where the highest bit is set (pcapng, `if_tsresol`).
    fn time(&self, ticks: u64) -> Duration {
        let scaled = u128::from(ticks) * 1_000_000_000;
        let exponent = u32::from(self.resolution & 0x7f);
        let nanoseconds = if self.resolution & 0x80 == 0 {
            10_u128
                .checked_pow(exponent)
                .map_or(0, |units| scaled / units)
        } else {
            scaled >> exponent
        };
        let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let offset = Duration::from_secs(self.offset.unsigned_abs());
        if self.offset < 0 {
            time.saturating_sub(offset)
        } else {
            time.saturating_add(offset)
        }
    }
}

enum Block {
    Packet(Header),
    Other,
    End,
}

fn next_of_pcapng<R: Read>(
    reader: &mut PcapNgReader<R>,
    interfaces: &mut Vec<Interface>,
    last: Duration,
    data: &mut Vec<u8>,
) -> Result<Block, RecordError> {
    let fields = Fields(reader.section().endianness);
    let Some(block) = reader.next_raw_block() else {
        return Ok(Block::End);
    };
    let block = block.map_err(RecordError::Library)?;
    let header = match block.type_ {
        SECTION_HEADER_BLOCK => {
            interfaces.clear();
            return Ok(Block::Other);
        }
        INTERFACE_DESCRIPTION_BLOCK => {
            if interfaces.len() >= MAX_INTERFACES {
                return Err(RecordError::Damaged(format!(
                    "it describes more than {MAX_INTERFACES} interfaces"
                )));
            }
            interfaces.extend(reader.interfaces().last().map(Interface::new));
            return Ok(Block::Other);
        }
        ENHANCED_PACKET_BLOCK | PACKET_BLOCK => {
            fields.packet(&block.body, block.type_, interfaces, data)
        }
        SIMPLE_PACKET_BLOCK => fields.simple_packet(&block.body, interfaces, last, data),
        _ => return Ok(Block::Other),
    };
    let header = header
        .ok_or_else(|| RecordError::Damaged("a packet block contradicts itself".to_owned()))?;
    checked_length(data.len())?;
    Ok(Block::Packet(header))
}

/// Reads a packet block's fixed fields. Its options are left alone: nothing here needs them, and tools differ in how they end them.
struct Fields(Endianness);

impl Fields {
    fn number(&self, body: &[u8], offset: usize) -> Option<u32> {
        let bytes = *body.get(offset..)?.first_chunk()?;
        Some(match self.0 {
            Endianness::Big => u32::from_be_bytes(bytes),
            Endianness::Little => u32::from_le_bytes(bytes),
        })
    }

    fn packet(
        &self,
        body: &[u8],
        kind: u32,
        interfaces: &[Interface],
        data: &mut Vec<u8>,
    ) -> Option<Header> {
        let id = self.number(body, 0)?;
        let id = match (kind, self.0) {
            (ENHANCED_PACKET_BLOCK, _) => id,
            // The obsolete block has 16 bits of interface and 16 of a drop count.
            (_, Endianness::Big) => id >> 16,
            (_, Endianness::Little) => id & 0xffff,
        };
        let interface = interfaces.get(usize::try_from(id).ok()?)?;
        let ticks = u64::from(self.number(body, 4)?) << 32 | u64::from(self.number(body, 8)?);
        let captured = usize::try_from(self.number(body, 12)?).ok()?;
        data.extend_from_slice(body.get(20..)?.get(..captured)?);
        Some(Header {
            time: interface.time(ticks),
            link: interface.link,
            original: usize::try_from(self.number(body, 16)?).ok()?,
        })
    }

    /// A packet of the first interface, without a time of its own.
    fn simple_packet(
        &self,
        body: &[u8],
        interfaces: &[Interface],
        last: Duration,
        data: &mut Vec<u8>,
    ) -> Option<Header> {
        let interface = interfaces.first()?;
        let original = self.number(body, 0)?;
        let captured = match interface.snapshot {
            0 => original,
            snapshot => original.min(snapshot),
        };
        data.extend_from_slice(body.get(4..)?.get(..usize::try_from(captured).ok()?)?);
        Some(Header {
            time: last,
            link: interface.link,
            original: usize::try_from(original).ok()?,
        })
    }
}
