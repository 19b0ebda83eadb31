//! The two kinds of packet as the policy's byte readers, and as sources for copies.

use core::{cell::Cell, ffi::c_void, ptr};

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, xdp_md},
    helpers::generated::{bpf_loop, bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};
use sipfilter_common::{
    reader::Reader,
    sdp_scan::{BLOCK, Scan},
};

use super::{
    maps::{SCANNED, Scanned, scan_place},
    sample::copy_sample,
};

/// A packet whose bytes a helper can copy anywhere.
pub trait CopySource {
    /// The program's context, for diagnostics.
    fn context(&self) -> &impl EbpfContext;

    /// The packet's length, over all its buffers.
    fn whole_length(&self) -> u32;

    /// The interface that it came in on, or that it is about to leave by.
    fn interface(&self) -> u32;

    /// Puts a sample into the ring buffer, out of line.
    fn sample(&self, facts: u32);

    /// Copies `length` bytes from `offset` on to `destination`.
    ///
    /// # Safety
    /// `destination` must have room for `length` bytes, and the verifier must be able to see it.
    unsafe fn copy_to(&self, offset: u32, destination: *mut u8, length: u32) -> Result<(), ()>;
}

/// An XDP frame, read through checked pointers. The headers of a frame that lies in several buffers are in the first one: drivers
/// put at least a cache line or two there. Where they are not, the packet counts as cut short.
pub struct XdpPacket<'a> {
    context: &'a XdpContext,
    /// Of the first buffer, until something asks for more.
    length: Cell<usize>,
}

/// A socket buffer, whose bytes may lie in pieces: read through a helper.
pub struct SkbPacket<'a> {
    context: &'a TcContext,
}

impl<'a> XdpPacket<'a> {
    #[inline(always)]
    pub fn new(context: &'a XdpContext) -> Self {
        // The compiler must not learn that a length compared with this one implies a pointer before data_end: it would leave out
        // checks that the verifier, which draws no such conclusion, insists on.
        // So it is read once more, which costs less than `black_box`.
        // SAFETY: the context is the program's own.
        let (data, data_end) = unsafe {
            (
                (&raw const (*context.ctx).data).read_volatile(),
                (&raw const (*context.ctx).data_end).read_volatile(),
            )
        };
        let length = data_end as usize - data as usize;
        Self {
            context,
            length: Cell::new(length),
        }
    }
}

impl<'a> SkbPacket<'a> {
    #[inline(always)]
    pub fn new(context: &'a TcContext) -> Self {
        Self { context }
    }
}

impl Reader for XdpPacket<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.context.data() + offset;
        let mut end = start + N;
        if N == 1 {
            // For one byte the compiler would turn `start + 1 > data_end` into `start >= data_end`, of which the verifier learns nothing.
            end = core::hint::black_box(end);
        }
        if end > self.context.data_end() {
            return None;
        }
        // SAFETY: the bytes lie before data_end, as just checked; an array of bytes needs no alignment.
        Some(unsafe { *(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let start = self.context.data() + offset;
        if start + 4 * N > self.context.data_end() {
            return None;
        }
        // SAFETY: the words lie before data_end, as just checked.
        Some(unsafe { (start as *const [u32; N]).read_unaligned() })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.length.get()
    }

    #[inline(always)]
    fn holds(&self, bytes: usize) -> bool {
        if bytes <= self.length.get() {
            return true;
        }
        // A frame in several buffers, or one that is cut short. Asking the kernel costs a call, which other packets need not pay.
        // SAFETY: the context is the program's own.
        let whole = unsafe { bpf_xdp_get_buff_len(self.context.as_ptr().cast()) } as usize;
        self.length.set(whole);
        bytes <= whole
    }
}

impl Reader for SkbPacket<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: the array has room for N bytes.
        unsafe { self.copy_to(offset as u32, bytes.as_mut_ptr(), N as u32) }.ok()?;
        Some(bytes)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = [0_u32; N];
        // SAFETY: the array has room for N words.
        unsafe { self.copy_to(offset as u32, words.as_mut_ptr().cast(), 4 * N as u32) }.ok()?;
        Some(words)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.context.len() as usize
    }

    #[inline(always)]
    fn scan(&self, offset: usize, blocks: usize, scan: &mut Scan) {
        let Some(place) = scan_place() else { return };
        // The verifier wants to see both bounds of the length, as in `copy`.
        let last = core::hint::black_box((blocks * BLOCK).wrapping_sub(1)) & (SCANNED - 1);
        // SAFETY: the place is this CPU's own and has room for what is scanned at most. The callback has the type that the helper calls,
        // and takes no context.
        unsafe {
            let text = (&raw mut (*place).text).cast();
            if self.copy_to(offset as u32, text, last as u32 + 1).is_err() {
                return;
            }
            (*place).scan = *scan;
            bpf_loop(
                (blocks * BLOCK / 8) as u32,
                scan_word as *mut c_void,
                ptr::null_mut(),
                0,
            );
            *scan = (*place).scan;
        }
    }

    #[inline(always)]
    fn arrived_on(&self) -> u32 {
        // SAFETY: the kernel hands a valid context to the program; the verifier turns this read into its own.
        unsafe { (*self.context.skb.skb).ingress_ifindex }
    }
}

/// Scans one word; 1 ends the loop. The kernel calls it: a loop in the program itself would have to be verified word by word.
unsafe extern "C" fn scan_word(number: u64, _: *mut c_void) -> i64 {
    let Some(place) = scan_place() else { return 1 };
    // SAFETY: the place is this CPU's own.
    let Scanned { scan, text, .. } = unsafe { &mut *place };
    let Some(word) = text.get(number as usize % (SCANNED / 8)) else {
        return 1;
    };
    scan.push_word(*word);
    0
}

impl CopySource for XdpPacket<'_> {
    #[inline(always)]
    fn context(&self) -> &impl EbpfContext {
        self.context
    }

    #[inline(always)]
    fn whole_length(&self) -> u32 {
        // SAFETY: the context is the program's own.
        unsafe { bpf_xdp_get_buff_len(self.context.as_ptr().cast()) as u32 }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.context.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn sample(&self, facts: u32) {
        sample_xdp(self.context.ctx, facts);
    }

    #[inline(always)]
    unsafe fn copy_to(&self, offset: u32, destination: *mut u8, length: u32) -> Result<(), ()> {
        // SAFETY: the caller vouches for the destination, the helper checks the packet's bounds.
        let result = unsafe {
            bpf_xdp_load_bytes(
                self.context.as_ptr().cast(),
                offset,
                destination.cast::<c_void>(),
                length,
            )
        };
        if result == 0 { Ok(()) } else { Err(()) }
    }
}

impl CopySource for SkbPacket<'_> {
    #[inline(always)]
    fn context(&self) -> &impl EbpfContext {
        self.context
    }

    #[inline(always)]
    fn whole_length(&self) -> u32 {
        self.context.len()
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: as in `arrived_on`.
        unsafe { (*self.context.skb.skb).ifindex }
    }

    #[inline(always)]
    fn sample(&self, facts: u32) {
        sample_skb(self.context.skb.skb, facts);
    }

    #[inline(always)]
    unsafe fn copy_to(&self, offset: u32, destination: *mut u8, length: u32) -> Result<(), ()> {
        // SAFETY: the caller vouches for the destination, the helper checks the packet's bounds.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.context.as_ptr().cast(),
                offset,
                destination.cast::<c_void>(),
                length,
            )
        };
        if result == 0 { Ok(()) } else { Err(()) }
    }
}

// The context is handed over as it is: a packet's place on the stack would cost those that are not sampled. They are not `#[cold]`: the
// compiler would put them into a section of their own, where the loader does not find them.

#[inline(never)]
fn sample_xdp(context: *mut xdp_md, facts: u32) {
    let context = XdpContext::new(context);
    copy_sample(&XdpPacket::new(&context), facts);
}

#[inline(never)]
fn sample_skb(context: *mut __sk_buff, facts: u32) {
    let context = TcContext::new(context);
    copy_sample(&SkbPacket::new(&context), facts);
}
