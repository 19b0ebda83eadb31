//! Bytes of one packet, wherever they lie: a slice on the host, checked pointers or helper calls in the kernel.

/// Read access to one packet from its link-layer header on.
pub trait Reader {
    /// `N` bytes at `offset`, or `None` if the packet ends before.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The packet's length in bytes.
    fn length(&self) -> usize;

    /// The byte at `offset`.
    #[inline(always)]
    fn byte(&self, offset: usize) -> Option<u8> {
        let [byte] = self.bytes::<1>(offset)?;
        Some(byte)
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
