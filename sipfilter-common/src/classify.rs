//! The packet policy. One reading of a packet against one set of tables gives one [`Verdict`].
//!
//! The rules stand in the order in which they are tried. Nothing here counts verdicts or copies packets: the shell around it does,
//! from what the verdict says. What it does touch, through [`Tables`], is the state that the policy itself rests on: a pinhole's slot
//! and the memory of first fragments.

use crate::{
    addr::{Address, Ipv4, Ipv6},
    key::{FragmentKey, PinholeKey},
    parse::{Fragment, Ip, Malformed, Network, TCP, UDP, parse_ethernet, parse_ipv4, parse_ipv6},
    reader::Reader,
    reason::{Action, Reason},
    settings::{Protects, Settings, Transport},
    value::{Pinhole, ProviderRule, Shapes, Slot},
};

/// The tables of one address family.
pub trait FamilyTables<A> {
    /// The pinhole on a local address and port.
    fn pinhole(&self, key: &PinholeKey<A>) -> Option<&Pinhole<A>>;

    /// The rule of the longest signalling prefix that holds the address.
    fn provider(&self, address: A) -> Option<&ProviderRule>;
}

/// Everything that the policy looks up.
pub trait Tables: FamilyTables<Ipv4> + FamilyTables<Ipv6> {
    /// The load-time constants.
    fn settings(&self) -> &Settings;

    /// Nanoseconds of the monotonic clock; a few milliseconds of imprecision do no harm.
    fn now(&self) -> u64;

    /// A pinhole's slot.
    fn slot(&self, index: u32) -> Option<&Slot>;

    /// Remembers what became of a datagram's first fragment.
    fn remember_fragment(&self, key: &FragmentKey, fate: FragmentFate);

    /// What became of the first fragment, if it was seen.
    fn recall_fragment(&self, key: &FragmentKey) -> Option<FragmentFate>;
}

/// What later fragments inherit from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum FragmentFate {
    /// Drop them.
    Drop = 0,
    /// Pass them.
    Pass = 1,
    /// Pass them and copy them to the daemon.
    PassAndCopy = 2,
}

impl FragmentFate {
    /// From its number in the map; an unknown number is no fate at all.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Drop),
            1 => Some(Self::Pass),
            2 => Some(Self::PassAndCopy),
            _ => None,
        }
    }
}

/// What to do with a packet, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The rule that decided.
    pub reason: Reason,
    /// The offset of the IP header, if the packet is to be copied to the daemon.
    pub copy_from: Option<usize>,
}

impl Verdict {
    #[inline(always)]
    const fn plain(reason: Reason) -> Self {
        Self {
            reason,
            copy_from: None,
        }
    }

    #[inline(always)]
    const fn copied(reason: Reason, start: usize) -> Self {
        Self {
            reason,
            copy_from: Some(start),
        }
    }

    /// Pass or drop.
    #[inline(always)]
    pub const fn action(&self) -> Action {
        self.reason.action()
    }
}

/// Judges a packet from outside.
#[inline(always)]
pub fn classify_ingress<R: Reader, T: Tables>(reader: &R, tables: &T) -> Verdict {
    let judged = match parse_ethernet(reader) {
        // A frame too short for an Ethernet header is no IP packet; drivers do not deliver such.
        Err(Malformed) | Ok(Network::Other) => return Verdict::plain(Reason::NotIp),
        Ok(Network::Ipv4(start)) => {
            parse_ipv4(reader, start).map(|ip| judge_ingress(reader, tables, &ip))
        }
        Ok(Network::Ipv6(start)) => {
            parse_ipv6(reader, start).map(|ip| judge_ingress(reader, tables, &ip))
        }
    };
    judged.unwrap_or(Verdict::plain(Reason::Malformed))
}

/// Reads a packet that leaves: what to copy, and whose media it is. Nothing is dropped on the way out.
#[inline(always)]
pub fn classify_egress<R: Reader, T: Tables>(reader: &R, tables: &T) -> Verdict {
    let judged = match parse_ethernet(reader) {
        Err(Malformed) | Ok(Network::Other) => return Verdict::plain(Reason::EgressOther),
        Ok(Network::Ipv4(start)) => {
            parse_ipv4(reader, start).map(|ip| judge_egress(reader, tables, &ip))
        }
        Ok(Network::Ipv6(start)) => {
            parse_ipv6(reader, start).map(|ip| judge_egress(reader, tables, &ip))
        }
    };
    judged.unwrap_or(Verdict::plain(Reason::EgressOther))
}

#[inline(always)]
fn judge_ingress<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Verdict
where
    Settings: Protects<A>,
{
    if !tables.settings().is_protected(ip.destination) {
        return Verdict::plain(Reason::NotProtected);
    }
    match ip.fragment {
        Fragment::Whole => judge_transport(reader, tables, ip),
        Fragment::First { id } => {
            let verdict = judge_transport(reader, tables, ip);
            let fate = match (verdict.action(), verdict.copy_from) {
                (Action::Drop, _) => FragmentFate::Drop,
                (Action::Pass, None) => FragmentFate::Pass,
                (Action::Pass, Some(_)) => FragmentFate::PassAndCopy,
            };
            tables.remember_fragment(&fragment_key(ip, id), fate);
            verdict
        }
        Fragment::Later { id } => match tables.recall_fragment(&fragment_key(ip, id)) {
            Some(FragmentFate::Drop) => Verdict::plain(Reason::StrayFragment),
            Some(FragmentFate::Pass) => Verdict::plain(Reason::Fragment),
            Some(FragmentFate::PassAndCopy) => Verdict::copied(Reason::Fragment, ip.start),
            // A provider's fragments may overtake the first one; anybody else's may not.
            None if tables.provider(ip.source).is_some() => {
                Verdict::copied(Reason::Fragment, ip.start)
            }
            None => Verdict::plain(Reason::StrayFragment),
        },
    }
}

#[inline(always)]
fn fragment_key<A: Address>(ip: &Ip<A>, id: u32) -> FragmentKey {
    FragmentKey {
        source: ip.source.mapped(),
        destination: ip.destination.mapped(),
        id,
        protocol: u32::from(ip.protocol),
    }
}

#[inline(always)]
fn judge_transport<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Verdict {
    let judged = match ip.protocol {
        UDP => judge_udp(reader, tables, ip),
        TCP => judge_tcp(reader, tables, ip),
        _ => Ok(Verdict::plain(Reason::OtherProtocol)),
    };
    judged.unwrap_or(Verdict::plain(Reason::Malformed))
}

#[inline(always)]
fn judge_tcp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Result<Verdict, Malformed> {
    let ports = ip.ports(reader)?;
    if let Some(transport) = tables.settings().pbx.over_tcp(ports.destination) {
        return Ok(judge_signalling(tables, ip, transport));
    }
    // The PBX may have dialled out: then the provider's port is the source, and the rest of the world's traffic from such
    // ports is no signalling of ours.
    if let Some(transport) = tables.settings().providers.over_tcp(ports.source)
        && allows(tables.provider(ip.source), transport)
    {
        return Ok(signalling(ip, transport, Reason::Signalling));
    }
    Ok(Verdict::plain(Reason::OtherTraffic))
}

#[inline(always)]
fn judge_udp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Result<Verdict, Malformed> {
    let ports = ip.ports(reader)?;
    let (payload, payload_end) = ip.udp_payload(reader)?;
    if tables.settings().pbx.is_udp(ports.destination) {
        return Ok(judge_signalling(tables, ip, Transport::Udp));
    }
    if !tables.settings().is_media_port(ports.destination) {
        return Ok(Verdict::plain(Reason::OtherTraffic));
    }
    let Some(pinhole) = tables.pinhole(&PinholeKey::new(ip.destination, ports.destination)) else {
        return Ok(Verdict::plain(Reason::NoPinhole));
    };
    let Some(slot) = tables.slot(pinhole.slot) else {
        return Ok(Verdict::plain(Reason::NoPinhole));
    };
    let now = tables.now();
    let reason = judge_media(
        reader,
        pinhole,
        slot,
        ip.source,
        ports.source,
        (payload, payload_end),
        now,
    );
    match reason {
        Reason::Media => slot.count_ingress(ip.length(), now),
        _ => slot.count_dropped(now),
    }
    Ok(Verdict::plain(reason))
}

/// A packet to a pinhole: is the pinhole alive, the source right, and the packet what was negotiated?
#[inline(always)]
fn judge_media<A: Address, R: Reader>(
    reader: &R,
    pinhole: &Pinhole<A>,
    slot: &Slot,
    source: A,
    source_port: u16,
    (payload, payload_end): (usize, usize),
    now: u64,
) -> Reason {
    if is_expired(pinhole.opened, slot.last(), pinhole.idle, now) {
        return Reason::PinholeExpired;
    }
    if !pinhole
        .sources
        .iter()
        .any(|allowed| allowed.contains(source, source_port))
    {
        return Reason::WrongSource;
    }
    // An empty datagram is nothing at all.
    let first = if payload < payload_end {
        reader.byte(payload)
    } else {
        None
    };
    match first {
        Some(byte) if pinhole.shapes.admits(Shapes::of(byte)) => Reason::Media,
        _ => Reason::NotMedia,
    }
}

/// Whether a pinhole has been without a packet for longer than its limit. Times that lie in the future count as now: user space
/// may stamp a pinhole a tick ahead of the kernel's coarse clock.
#[inline(always)]
pub const fn is_expired(opened: u64, last_packet: u64, idle: u64, now: u64) -> bool {
    let last = if last_packet > opened {
        last_packet
    } else {
        opened
    };
    now > last && now - last > idle
}

#[inline(always)]
fn judge_signalling<A: Address, T: Tables + FamilyTables<A>>(
    tables: &T,
    ip: &Ip<A>,
    transport: Transport,
) -> Verdict {
    if allows(tables.provider(ip.source), transport) {
        signalling(ip, transport, Reason::Signalling)
    } else {
        Verdict::plain(Reason::UnknownSource)
    }
}

#[inline(always)]
fn allows(rule: Option<&ProviderRule>, transport: Transport) -> bool {
    rule.is_some_and(|rule| rule.allows(transport))
}

/// TLS passes without a copy: nobody here can read it.
#[inline(always)]
fn signalling<A>(ip: &Ip<A>, transport: Transport, reason: Reason) -> Verdict {
    match transport {
        Transport::Udp | Transport::Tcp => Verdict::copied(reason, ip.start),
        Transport::Tls => Verdict::plain(reason),
    }
}

#[inline(always)]
fn judge_egress<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Verdict
where
    Settings: Protects<A>,
{
    if !tables.settings().is_protected(ip.source) {
        return Verdict::plain(Reason::EgressOther);
    }
    if let Fragment::Later { .. } = ip.fragment {
        // Without ports, only the destination tells signalling from the rest.
        return match tables.provider(ip.destination) {
            Some(_) => Verdict::copied(Reason::EgressSignalling, ip.start),
            None => Verdict::plain(Reason::EgressOther),
        };
    }
    let judged = match ip.protocol {
        UDP => egress_udp(reader, tables, ip),
        TCP => egress_tcp(reader, tables, ip),
        _ => Err(Malformed),
    };
    judged.unwrap_or(Verdict::plain(Reason::EgressOther))
}

#[inline(always)]
fn egress_udp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Result<Verdict, Malformed> {
    let ports = ip.ports(reader)?;
    let settings = tables.settings();
    if settings.is_media_port(ports.source) {
        let Some(slot) = tables
            .pinhole(&PinholeKey::new(ip.source, ports.source))
            .and_then(|pinhole| tables.slot(pinhole.slot))
        else {
            return Ok(Verdict::plain(Reason::EgressOther));
        };
        slot.count_egress(ip.length(), tables.now());
        return Ok(Verdict::plain(Reason::EgressMedia));
    }
    if (settings.pbx.is_udp(ports.source) || settings.providers.is_udp(ports.destination))
        && allows(tables.provider(ip.destination), Transport::Udp)
    {
        return Ok(signalling(ip, Transport::Udp, Reason::EgressSignalling));
    }
    Ok(Verdict::plain(Reason::EgressOther))
}

#[inline(always)]
fn egress_tcp<A: Address, R: Reader, T: Tables + FamilyTables<A>>(
    reader: &R,
    tables: &T,
    ip: &Ip<A>,
) -> Result<Verdict, Malformed> {
    let ports = ip.ports(reader)?;
    let settings = tables.settings();
    let transport = settings
        .pbx
        .over_tcp(ports.source)
        .or(settings.providers.over_tcp(ports.destination));
    Ok(match transport {
        Some(transport) if allows(tables.provider(ip.destination), transport) => {
            signalling(ip, transport, Reason::EgressSignalling)
        }
        _ => Verdict::plain(Reason::EgressOther),
    })
}
