//! The header in front of each copied packet in the ring buffer.

/// The most bytes of a packet that one record carries: a whole IP packet.
pub const MAX_COPY: usize = 65_536;

/// Which way the packet went: [`RecordHeader::direction`].
pub const INGRESS: u8 = 0;
/// See [`INGRESS`].
pub const EGRESS: u8 = 1;

/// What precedes the packet's bytes, which begin with its IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RecordHeader {
    /// When the kernel saw it, in nanoseconds of the monotonic clock.
    pub time: u64,
    /// Bytes of the packet that follow.
    pub captured: u32,
    /// Bytes that the packet had, from its IP header on.
    pub original: u32,
    /// [`INGRESS`] or [`EGRESS`].
    pub direction: u8,
    /// Always zero.
    pub zero: [u8; 7],
}

/// The header's length; packet bytes follow at once.
pub const HEADER: usize = size_of::<RecordHeader>();

impl RecordHeader {
    /// Splits one record into its header and the packet, or `None` if the record is shorter than it says.
    pub fn split(record: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = record.split_first_chunk::<HEADER>()?;
        let (time, head) = head.split_first_chunk()?;
        let (captured, head) = head.split_first_chunk()?;
        let (original, head) = head.split_first_chunk()?;
        let header = Self {
            time: u64::from_ne_bytes(*time),
            captured: u32::from_ne_bytes(*captured),
            original: u32::from_ne_bytes(*original),
            direction: *head.first()?,
            zero: [0; 7],
        };
        Some((header, rest.get(..header.captured as usize)?))
    }

    /// Whether the end of the packet is missing.
    pub const fn is_truncated(&self) -> bool {
        self.captured < self.original
    }
}

const _: () = assert!(HEADER == 24);
