//! Baselines (`pass`, `drop`, `leave`), and packets that differ each time (`vary`, `generate`).
//!
//! `vary` and `generate` rewrite addresses and ports from one pseudo-random sequence. They write whole words, as the filters read
//! them: a narrow write in front of a wide read would stall the processor and be taken for the filter's time.

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, map, xdp},
    maps::{Array, DevMap, ProgramArray},
    programs::{TcContext, XdpContext},
};

/// How packets differ; `tests/src/bench/programs.rs` has the same layout.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Plan {
    /// The sequence's state; not zero.
    state: u32,
    /// 4 or 6.
    family: u32,
    /// Destination addresses minus one; a power of two minus one. They differ in the last bits.
    address_mask: u32,
    /// How many destination ports.
    ports: u32,
    /// The first of them.
    first_port: u32,
    /// Source addresses minus one; a power of two minus one.
    source_mask: u32,
    /// Where every other packet goes instead, on average; 0 for nowhere.
    other_port: u32,
}

#[map]
static PLAN: Array<Plan> = Array::with_max_entries(1, 0);

/// Where `generate` sends packets. A number of an interface instead would be looked up for each of them.
#[map]
static OUTLET: DevMap = DevMap::with_max_entries(1, 0);

#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[map]
static NEXT_FRAGS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Ethernet's header.
const ETHERNET: usize = 14;

/// Passes everything.
#[xdp]
pub fn pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Drops everything.
#[xdp]
pub fn drop(_context: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Lets everything leave.
#[classifier]
pub fn leave(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Gives the packet the next addresses and ports, and goes on with the program in `NEXT`.
#[xdp]
pub fn vary(context: XdpContext) -> u32 {
    let _ = rewrite(&context);
    // SAFETY: no value with a destructor is alive.
    unsafe { NEXT.tail_call(&context, 0) };
    xdp_action::XDP_ABORTED
}

/// The same for programs that take frames in pieces: the kernel lets both kinds call only their own.
#[xdp(frags)]
pub fn vary_frags(context: XdpContext) -> u32 {
    let _ = rewrite(&context);
    // SAFETY: as above.
    unsafe { NEXT_FRAGS.tail_call(&context, 0) };
    xdp_action::XDP_ABORTED
}

/// Gives the packet the next addresses and ports and sends it.
#[xdp]
pub fn generate(context: XdpContext) -> u32 {
    if rewrite(&context)
        .and_then(|()| checksum(&context))
        .is_none()
    {
        return xdp_action::XDP_ABORTED;
    }
    OUTLET
        .redirect(0, xdp_action::XDP_ABORTED.into())
        .unwrap_or(xdp_action::XDP_ABORTED)
}

/// Makes the checksum of an IPv4 header without options right (RFC 1071): a host's stack drops others before any firewall sees them. The sum
/// is the same in whichever order of bytes it is made (§2 B), so in the machine's.
#[inline(always)]
fn checksum(context: &XdpContext) -> Option<()> {
    const WITHOUT_CHECKSUM: u32 = 0xffff_0000_u32.to_be();
    let header = words::<ETHERNET, 5>(context)?;
    // SAFETY: five words lie in the packet, as just checked, and the checksum is the second half of the third.
    unsafe {
        let [first, second, third, source, destination] =
            header.cast::<[u32; 5]>().read_unaligned();
        let mut sum = u64::from(first)
            + u64::from(second)
            + u64::from(third & WITHOUT_CHECKSUM)
            + u64::from(source)
            + u64::from(destination);
        sum = (sum >> 32) + (sum & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        header.cast::<u16>().add(5).write_unaligned(!(sum as u16));
    }
    Some(())
}

#[inline(always)]
fn rewrite(context: &XdpContext) -> Option<()> {
    let plan = PLAN.get_ptr_mut(0)?;
    // SAFETY: only one program runs at a time with this plan, on one processor.
    let plan = unsafe { &mut *plan };
    let random = next(plan.state);
    plan.state = random;
    // A share of all ports as large as the number's of all numbers: a division would take the sender longer.
    let mut port =
        (plan.first_port + ((u64::from(random) * u64::from(plan.ports)) >> 32) as u32) as u16;
    if plan.other_port != 0 && random & 4 != 0 {
        port = plan.other_port as u16;
    }
    // The next number's bits, so that addresses and ports do not depend on each other.
    let other = next(random ^ 0x9e37_79b9);
    let (destination_bits, source_bits) =
        (other & plan.address_mask, (other >> 8) & plan.source_mask);
    // The last words of both addresses, and that of the ports.
    let (source, destination, ports) = if plan.family == 4 {
        let from = words::<{ ETHERNET + 12 }, 3>(context)?;
        // SAFETY: these words lie in the packet, as just checked.
        unsafe { (from, from.add(1), from.add(2)) }
    } else {
        let from = words::<{ ETHERNET + 20 }, 6>(context)?;
        // SAFETY: as above.
        unsafe { (from, from.add(4), from.add(5)) }
    };
    // SAFETY: as above; the kernel's machine reads and writes words at any address.
    unsafe {
        low_bits(source, plan.source_mask, source_bits);
        low_bits(destination, plan.address_mask, destination_bits);
        // With a mask that it knows, the compiler would write two bytes only.
        low_bits(ports, core::hint::black_box(0xffff), u32::from(port));
    }
    Some(())
}

/// Marsaglia's xorshift.
#[inline(always)]
fn next(mut state: u32) -> u32 {
    state ^= state << 13;
    state ^= state >> 17;
    state ^ (state << 5)
}

/// Replaces the masked bits of a word of the packet.
///
/// # Safety
/// It must lie in the packet, as the verifier must be able to see.
#[inline(always)]
unsafe fn low_bits(word: *mut u32, mask: u32, bits: u32) {
    // SAFETY: the caller vouches for the word.
    unsafe {
        let host = u32::from_be(word.read_unaligned());
        word.write_unaligned(((host & !mask) | bits).to_be());
    }
}

/// Words of the packet from `OFFSET` on, if that many are there.
#[inline(always)]
fn words<const OFFSET: usize, const N: usize>(context: &XdpContext) -> Option<*mut u32> {
    let start = context.data() + OFFSET;
    (start + 4 * N <= context.data_end()).then_some(start as *mut u32)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics; the verifier refuses an object in which that is possible.
    loop {}
}

/// The kernel lends its GPL-only helpers to programs with this licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
