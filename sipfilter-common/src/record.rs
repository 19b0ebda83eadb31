//! The headers in front of each copied packet in the ring buffers: of signalling, and of samples of what is dropped.

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

/// The most bytes of a packet that one sample carries: enough for the head of a SIP message.
pub const MAX_SAMPLE: usize = 1_024;

/// What precedes a sample's bytes, which begin with the packet's link-layer header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SampleHeader {
    /// When the kernel judged it, in nanoseconds of the monotonic clock.
    pub time: u64,
    /// Bytes of the packet that follow.
    pub captured: u32,
    /// Bytes that the packet had, from its link-layer header on.
    pub original: u32,
    /// The interface: where it came in, or would have left.
    pub interface: u32,
    /// Why: the number of a [`crate::reason::Reason`].
    pub reason: u16,
    /// 1 if it was dropped, 0 if it passed because nothing is enforced.
    pub dropped: u8,
    /// [`INGRESS`] or [`EGRESS`].
    pub direction: u8,
}

/// The length of a sample's header; packet bytes follow at once.
pub const SAMPLE_HEADER: usize = size_of::<SampleHeader>();

impl SampleHeader {
    /// Splits one record into its header and the packet, or `None` if the record is shorter than it says.
    pub fn split(record: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = record.split_first_chunk::<SAMPLE_HEADER>()?;
        let (time, head) = head.split_first_chunk()?;
        let (captured, head) = head.split_first_chunk()?;
        let (original, head) = head.split_first_chunk()?;
        let (interface, head) = head.split_first_chunk()?;
        let (reason, head) = head.split_first_chunk()?;
        let header = Self {
            time: u64::from_ne_bytes(*time),
            captured: u32::from_ne_bytes(*captured),
            original: u32::from_ne_bytes(*original),
            interface: u32::from_ne_bytes(*interface),
            reason: u16::from_ne_bytes(*reason),
            dropped: *head.first()?,
            direction: *head.get(1)?,
        };
        Some((header, rest.get(..header.captured as usize)?))
    }
}

const _: () = assert!(HEADER == 24 && SAMPLE_HEADER == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_split_where_its_header_says_and_no_record_is_read_past_its_end() {
        let mut record = [0_u8; SAMPLE_HEADER + 8];
        record[0] = 7;
        record[8] = 3;
        record[12] = 99;
        record[16] = 2;
        record[20] = 8;
        record[22] = 1;
        record[23] = EGRESS;
        record[SAMPLE_HEADER..].copy_from_slice(b"abcdefgh");
        let (header, bytes) = SampleHeader::split(&record).expect("whole");
        let expect = SampleHeader {
            time: 7,
            captured: 3,
            original: 99,
            interface: 2,
            reason: 8,
            dropped: 1,
            direction: EGRESS,
        };
        assert_eq!((header, bytes), (expect, &b"abc"[..]));
        for end in 0..SAMPLE_HEADER + 3 {
            assert_eq!(SampleHeader::split(&record[..end]), None, "{end}");
        }
    }
}
