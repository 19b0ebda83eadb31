//! Bytes of one packet, wherever they lie: a slice on the host, checked pointers or helper calls in the kernel.

use crate::sdp_scan::{BLOCK, Scan};

/// Read access to one packet from its link-layer header on.
pub trait Reader {
    /// `N` bytes at `offset`, or `None` if the packet ends before.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// `N` 32-bit words at `offset`, as they lie in the packet. Headers are read so where it matters: bytes picked one by one out of an
    /// array are loaded one by one in the kernel.
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = u32::from_ne_bytes(self.bytes(offset + 4 * index)?);
        }
        Some(words)
    }

    /// The packet's length in bytes.
    fn length(&self) -> usize;

    /// Whether the packet has this many bytes.
    #[inline(always)]
    fn holds(&self, bytes: usize) -> bool {
        bytes <= self.length()
    }

    /// The index of the interface on which a packet that leaves came in; 0 if it was made here, or if that is not known.
    #[inline(always)]
    fn arrived_on(&self) -> u32 {
        0
    }

    /// The byte at `offset`.
    #[inline(always)]
    fn byte(&self, offset: usize) -> Option<u8> {
        let [byte] = self.bytes::<1>(offset)?;
        Some(byte)
    }

    /// Goes over `blocks` whole blocks from `offset` on in search of media ports.
    #[inline(always)]
    fn scan(&self, offset: usize, blocks: usize, scan: &mut Scan) {
        for at in (offset..offset + blocks * BLOCK).step_by(8) {
            if let Some(bytes) = self.bytes(at) {
                scan.push_word(u64::from_ne_bytes(bytes));
            }
        }
    }

    /// The 16-bit number at `offset`, sent in network byte order.
    #[inline(always)]
    fn be16(&self, offset: usize) -> Option<u16> {
        self.bytes::<2>(offset).map(u16::from_be_bytes)
    }
}

impl Reader for &[u8] {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn length(&self) -> usize {
        self.len()
    }
}
