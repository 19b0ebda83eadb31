//! The media ports that a text's `m=` lines name (RFC 8866 §5.14), found byte by byte: cheap enough for a kernel program, and bounded.
//!
//! It understands nothing else of SDP: neither whose address goes with a port, nor whether the text is SDP at all. What is found opens
//! nothing for longer than the daemon takes to read the same message properly.
//!
//! Invariant: a port is found only between the first and the second white space of a line that begins with `m=`.

/// The most ports that are found: those that come first.
pub const MAX_PORTS: usize = 4;

/// Bytes that are scanned at a time.
pub const BLOCK: usize = 64;
/// Blocks that are scanned of one message: its end, where SDP stands.
pub const MAX_BLOCKS: usize = 32;

/// Where in a line the scan is. Numbers, because it rests in kernel memory between two blocks.
mod phase {
    pub const LINE: u32 = 0;
    pub const LINE_START: u32 = 1;
    pub const KEY: u32 = 2;
    pub const EQUALS: u32 = 3;
    pub const MEDIA: u32 = 4;
    pub const PORT: u32 = 5;
}

/// A scan in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Scan {
    phase: u32,
    port: u32,
    /// 16 bits for each port, the last one found in the lowest.
    found: u64,
}

impl Scan {
    /// Goes over eight bytes, as they lie in memory.
    #[inline(always)]
    pub fn push_word(&mut self, word: u64) {
        // Most words of a message end no line and stand in none that matters.
        if self.phase == phase::LINE && !has_line_end(word) {
            return;
        }
        let mut rest = u64::from_le(word);
        for _ in 0..8 {
            self.push(rest as u8);
            rest >>= 8;
        }
    }

    /// Goes over one byte.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) {
        if byte == b'\n' {
            self.phase = phase::LINE_START;
            return;
        }
        self.phase = match (self.phase, byte) {
            (phase::LINE_START, b'm') => phase::KEY,
            (phase::KEY, b'=') => phase::EQUALS,
            // T.38 has nothing that it could be told by, and follows a call that has a pinhole.
            (phase::EQUALS, b'i' | b' ' | b'\t') => phase::LINE,
            (phase::EQUALS, _) => phase::MEDIA,
            (phase::MEDIA, b' ' | b'\t') => {
                self.port = 0;
                phase::PORT
            }
            (phase::MEDIA, _) => phase::MEDIA,
            (phase::PORT, b'0'..=b'9') if self.port <= 6_553 => {
                self.port = self.port * 10 + u32::from(byte - b'0');
                phase::PORT
            }
            // More than one space, before the first digit.
            (phase::PORT, b' ' | b'\t') if self.port == 0 => phase::PORT,
            (phase::PORT, b' ' | b'\t' | b'/') => {
                self.find();
                phase::LINE
            }
            _ => phase::LINE,
        };
    }

    #[inline(always)]
    fn find(&mut self) {
        let is_full = self.found >> 48 != 0;
        if self.port != 0 && self.port <= 0xffff && !is_full {
            self.found = self.found << 16 | u64::from(self.port);
        }
    }

    /// What was found; 0 fills unused places.
    #[inline(always)]
    pub const fn ports(&self) -> [u16; MAX_PORTS] {
        let found = self.found;
        [
            found as u16,
            (found >> 16) as u16,
            (found >> 32) as u16,
            (found >> 48) as u16,
        ]
    }
}

/// Whether one of the bytes is LF: the lowest that is zero after the exclusive or borrows into its own highest bit.
#[inline(always)]
const fn has_line_end(word: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    const LINE_ENDS: u64 = u64::from_ne_bytes([b'\n'; 8]);
    let differs = word ^ LINE_ENDS;
    differs.wrapping_sub(ONES) & !differs & HIGH != 0
}

const _: () = assert!(size_of::<Scan>() == 16);

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn scan(text: &[u8]) -> Vec<u16> {
        let mut scan = Scan::default();
        for byte in text {
            scan.push(*byte);
        }
        let ports = scan.ports().into_iter().rev();
        ports.filter(|port| *port != 0).collect()
    }

    #[test]
    fn ports_stand_in_media_lines_alone() {
        for (text, expect) in [
            (&b"v=0\r\nm=audio 49170 RTP/AVP 0\r\n"[..], &[49_170][..]),
            (b"v=0\nm=audio 49170/2 RTP/AVP 0\n", &[49_170]),
            (b"\nm=audio  49170 RTP/AVP 0\n", &[49_170]),
            (b"\nm=audio\t49170\tRTP/AVP 0\n", &[49_170]),
            (
                b"\nm=audio 1 a\nm=video 2 a\nm=audio 3 a\nm=x 4 a\nm=y 5 a\n",
                &[1, 2, 3, 4],
            ),
            (b"\nm=audio 0 RTP/AVP 0\nm=video 9 RTP/AVP 0\n", &[9]),
            (b"\nm=image 49170 udptl t38\n", &[]),
            (b"\nm=audio 65536 RTP/AVP 0\n", &[]),
            (b"\nm=audio 99999999 RTP/AVP 0\n", &[]),
            (b"\nm=audio +5000 RTP/AVP 0\n", &[]),
            (b"\nm=audio 50x0 RTP/AVP 0\n", &[]),
            (b"\nm=audio 5000", &[]),
            (b"\nm=audio 5000\n", &[]),
            (b"\nm= 5000 RTP/AVP 0\n", &[]),
            (b"\na=m=audio 5000 RTP/AVP 0\n", &[]),
            (b"\nM=audio 5000 RTP/AVP 0\n", &[]),
            (b"\nm =audio 5000 RTP/AVP 0\n", &[]),
            (b"m=audio 5000 RTP/AVP 0\n", &[]),
        ] {
            assert_eq!(scan(text), expect, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn words_are_their_bytes() {
        let text = b"v=0\r\nc=IN IP4 203.0.113.10\r\nm=audio 49170 RTP/AVP 0\r\na=x\r\nm=video 51372 RTP/AVP 31\r\na=yyyy\r\n\n\nm=a 7 ";
        for skipped in 0..16 {
            let text = &text[skipped..];
            let (mut bytes, mut words) = (Scan::default(), Scan::default());
            for word in text.chunks_exact(8) {
                words.push_word(u64::from_ne_bytes(word.try_into().expect("eight bytes")));
                word.iter().for_each(|byte| bytes.push(*byte));
                assert_eq!(words.ports(), bytes.ports());
            }
        }
    }

    #[test]
    fn a_line_end_is_seen_wherever_it_stands_in_a_word() {
        for place in 0..8 {
            for other in [0, b'\t', b'\n' + 1, 0x8a, 0xff] {
                let mut bytes = [other; 8];
                assert!(!has_line_end(u64::from_ne_bytes(bytes)));
                bytes[place] = b'\n';
                assert!(has_line_end(u64::from_ne_bytes(bytes)));
            }
        }
    }
}
