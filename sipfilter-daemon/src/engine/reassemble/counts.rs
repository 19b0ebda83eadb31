//! What reassembly counts, under names that never change.
//!
//! Everything that is dropped, refused or given up has a counter here; nothing is dropped silently. It counts and judges nothing.

macro_rules! counts {
    ($($(#[$doc:meta])* $variant:ident, $name:literal;)*) => {
        /// One counter of the reassembler.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Count {
            $($(#[$doc])* $variant,)*
        }

        impl Count {
            /// Every counter, in the order of its declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// A stable name: a metric's label, and what a report prints.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        const COUNTERS: usize = Count::ALL.len();
    };
}

counts! {
    /// Packets whose IP, UDP or TCP header is cut short or contradicts itself.
    PacketMalformed, "packet_malformed";
    /// Packets that are neither UDP nor TCP.
    PacketOther, "packet_other";

    /// Fragments seen.
    Fragment, "fragment";
    /// Datagrams put together again.
    DatagramReassembled, "datagram_reassembled";
    /// Fragments that were there already, byte for byte.
    FragmentDuplicate, "fragment_duplicate";
    /// Fragments that are empty, not the last and no multiple of eight bytes long, or that reach beyond 65,535 bytes.
    FragmentMalformed, "fragment_malformed";
    /// Fragments of a datagram that had been dropped for another fragment.
    FragmentOfDropped, "fragment_of_dropped";
    /// Datagrams dropped because fragments overlap.
    DatagramOverlap, "datagram_overlap";
    /// Datagrams dropped because a fragment is too small.
    DatagramTiny, "datagram_tiny";
    /// Datagrams dropped because fragments disagree on where the datagram ends.
    DatagramEndConflict, "datagram_end_conflict";
    /// Datagrams dropped because they come in too many fragments.
    DatagramTooManyFragments, "datagram_too_many_fragments";
    /// Datagrams given up because fragments were still missing when their time was over.
    DatagramTimeout, "datagram_timeout";
    /// Datagrams given up for a newer one: too many of one source.
    DatagramShedSourceCount, "datagram_shed_source_count";
    /// Datagrams given up for a newer one: too many bytes of one source.
    DatagramShedSourceBytes, "datagram_shed_source_bytes";
    /// Datagrams given up for a newer one: too many in total.
    DatagramShedTotalCount, "datagram_shed_total_count";
    /// Datagrams given up for a newer one: too many bytes in total.
    DatagramShedTotalBytes, "datagram_shed_total_bytes";

    /// TCP segments seen.
    Segment, "segment";
    /// Segments of connections that are not followed: TLS, or no provider's.
    SegmentNotFollowed, "segment_not_followed";
    /// Segments all of whose bytes were there already.
    SegmentDuplicate, "segment_duplicate";
    /// Segments that came before an earlier one.
    SegmentOutOfOrder, "segment_out_of_order";
    /// Segments that say other bytes than an earlier one did; the earlier one stands.
    SegmentConflict, "segment_conflict";
    /// Segments dropped because they lie too far ahead of what was read.
    SegmentBeyondWindow, "segment_beyond_window";
    /// Segments dropped because they lie behind the end of the stream.
    SegmentBehindEnd, "segment_behind_end";
    /// RST segments with another sequence number than the next one (RFC 5961 §3.2).
    ResetIgnored, "reset_ignored";
    /// Connections ended by RST.
    Reset, "reset";
    /// Connections followed from their handshake.
    ConnectionOpened, "connection_opened";
    /// Connections followed from their middle.
    ConnectionMidStream, "connection_mid_stream";
    /// Connections whose both ends said FIN.
    ConnectionClosed, "connection_closed";
    /// Connections no longer followed because nothing came.
    ConnectionIdle, "connection_idle";
    /// Connections that nobody answered, given up for a newer one.
    ConnectionEvicted, "connection_evicted";
    /// New connections not followed: too many of one peer.
    ConnectionShedSource, "connection_shed_source";
    /// New connections not followed: too many in total.
    ConnectionShedTotal, "connection_shed_total";
    /// Holes in a stream that were skipped.
    StreamGap, "stream_gap";
    /// Holes skipped early because too much data waited behind them.
    StreamGapFull, "stream_gap_full";
    /// Times that bytes were not kept because one peer's or all streams hold too much.
    StreamShed, "stream_shed";
    /// Times that framing was lost to bytes that are no SIP.
    FramingLost, "framing_lost";
    /// Times that framing was found again.
    FramingFound, "framing_found";
    /// Bytes of streams that belonged to no message.
    StreamBytesDiscarded, "stream_bytes_discarded";
    /// Messages cut out of streams.
    StreamMessage, "stream_message";
    /// Keep-alives on streams.
    StreamKeepAlive, "stream_keep_alive";
}

/// The counters' readings since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([u64; COUNTERS]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; COUNTERS])
    }
}

impl Counts {
    /// One counter's reading.
    pub fn of(&self, count: Count) -> u64 {
        self.0.get(count as usize).copied().unwrap_or(0)
    }

    /// Every counter with its reading, those at zero included, always in the same order.
    pub fn readings(&self) -> impl Iterator<Item = (Count, u64)> {
        Count::ALL.iter().map(|&count| (count, self.of(count)))
    }

    pub(super) fn one(&mut self, count: Count) {
        self.add(count, 1);
    }

    pub(super) fn add(&mut self, count: Count, number: usize) {
        if let Some(reading) = self.0.get_mut(count as usize) {
            *reading = reading.saturating_add(number as u64);
        }
    }
}
