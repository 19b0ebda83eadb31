//! The attackers: what strangers and wrong senders try, each packet marked with its kind so that its arrival is counted.
//!
//! Bounded in number, paced, and only within the lab. Nothing here depends on an answer; whether a packet arrived is the sniffer's to say.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    address::{PBX_RTP_LAST, PROVIDER_RTP_FIRST, PROVIDER_RTP_LAST, Place, SIP_PORT},
    call::Call,
    namespace::Namespace,
    rtp::{Way, rtp_header},
    topology::Network,
};

const MARKER: &[u8] = b"lab-attack:";
/// No scenario lists this payload type.
const UNLISTED: u8 = 99;
/// At least so long between two packets of one attacker.
const PACE: Duration = Duration::from_millis(1);

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// INVITE from a stranger: toll fraud.
    StrangerInvite,
    /// OPTIONS from a stranger: scanning.
    StrangerOptions,
    /// REGISTER from a stranger: password guessing.
    StrangerRegister,
    /// RTP from a stranger to the port of a call.
    OpenPort,
    /// RTP from a stranger to a port of the RTP range that no call has.
    ClosedPort,
    /// RTP from the right address and a port in the provider's range, to a port that no call has.
    ClosedPortFromProvider,
    /// RTP to the port of a call from the right address, but from outside the provider's source ports.
    WrongSourcePort,
    /// RTP to the port of a call from an address of the provider that the call's SDP did not name.
    WrongProviderAddress,
    /// Not RTP at all, from the right address and port range to the port of a call.
    NotMedia,
    /// RTP of a payload type that neither side has listed, from the right address and port range to the port of a call.
    PayloadType,
    /// RTP from a stranger to the port that a forged 200 (OK) with SDP, sent from a provider's address, has named.
    ForgedConsent,
    /// RTP of a call that has ended, from the right source. Sent by the RTP agents; reported on its own.
    AfterBye,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::StrangerInvite,
        Self::StrangerOptions,
        Self::StrangerRegister,
        Self::OpenPort,
        Self::ClosedPort,
        Self::ClosedPortFromProvider,
        Self::WrongSourcePort,
        Self::WrongProviderAddress,
        Self::NotMedia,
        Self::PayloadType,
        Self::ForgedConsent,
        Self::AfterBye,
    ];

    /// A few words for a person.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::StrangerInvite => "INVITE from a stranger",
            Self::StrangerOptions => "OPTIONS from a stranger",
            Self::StrangerRegister => "REGISTER from a stranger",
            Self::OpenPort => "RTP from a stranger to an open port",
            Self::ClosedPort => "RTP from a stranger to a closed port",
            Self::ClosedPortFromProvider => "RTP from the provider to a closed port",
            Self::WrongSourcePort => "RTP, right address, wrong source port",
            Self::WrongProviderAddress => "RTP, provider's address not in SDP",
            Self::NotMedia => "right source, but not RTP",
            Self::PayloadType => "right source, payload type not in SDP",
            Self::ForgedConsent => "RTP to a port named by forged SIP",
            Self::AfterBye => "RTP after BYE",
        }
    }

    fn sip_method(self) -> Option<&'static str> {
        match self {
            Self::StrangerInvite => Some("INVITE"),
            Self::StrangerOptions => Some("OPTIONS"),
            Self::StrangerRegister => Some("REGISTER"),
            _ => None,
        }
    }
}

/// The mark that a packet of this kind carries.
#[must_use]
pub fn marker(kind: Kind) -> Vec<u8> {
    let mut bytes = MARKER.to_vec();
    bytes.push(b'a' + kind as u8);
    bytes
}

/// The kind whose mark is somewhere in these bytes.
#[must_use]
pub fn find_marker(bytes: &[u8]) -> Option<Kind> {
    let at = bytes
        .windows(MARKER.len())
        .position(|window| window == MARKER)?;
    let letter = bytes.get(at + MARKER.len())?;
    Kind::ALL
        .get(usize::from(letter.checked_sub(b'a')?))
        .copied()
}

fn with_payload_type(mut rtp: Vec<u8>, payload_type: u8) -> Vec<u8> {
    if let Some(second) = rtp.get_mut(1) {
        *second = payload_type;
    }
    rtp
}

/// One planned packet.
struct Shot {
    kind: Kind,
    from: usize,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// Attackers: their sockets, and what each sends in turn.
type Plan = Vec<(Vec<UdpSocket>, Vec<Shot>)>;

/// Counts of sent packets by kind, readable while the attack runs.
#[derive(Debug, Default)]
pub struct Fired([AtomicU64; Kind::ALL.len()]);

impl Fired {
    /// How many packets of one kind were sent.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }
}

/// An attack that is under way.
#[derive(Debug)]
pub struct Attack {
    fired: Arc<Fired>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Attack {
    /// Starts strangers who send SIP, `rounds` times one of each method to each of the PBX's SIP addresses.
    ///
    /// # Errors
    /// Where a socket cannot be bound.
    pub fn on_signalling(network: &Network, calls: &[Call], rounds: usize) -> Result<Self> {
        let from = bind(
            &network.stranger,
            &[SocketAddr::new(
                Place::Stranger.address(network.family),
                5060,
            )],
        )?;
        let mut shots = Vec::new();
        for round in 0..rounds {
            for place in [Place::PbxCallee, Place::PbxCaller] {
                for kind in [
                    Kind::StrangerInvite,
                    Kind::StrangerOptions,
                    Kind::StrangerRegister,
                ] {
                    let to = SocketAddr::new(place.address(network.family), SIP_PORT);
                    let user = calls
                        .get(round % calls.len().max(1))
                        .map(Call::label)
                        .unwrap_or_default();
                    shots.push(Shot {
                        kind,
                        from: 0,
                        to,
                        bytes: sip_request(kind, to, &user, round),
                    });
                }
            }
        }
        Ok(Self::fire(vec![(from, shots)], 1))
    }

    /// Starts everybody who sends towards RTP ports, `rounds` packets of each kind for each call.
    ///
    /// # Errors
    /// Where a socket cannot be bound.
    pub fn on_media(network: &Network, calls: &[Call], rounds: usize) -> Result<Self> {
        Ok(Self::fire(Self::media_plan(network, calls, rounds)?, 1))
    }

    /// The same, until it is dropped.
    ///
    /// # Errors
    /// Where a socket cannot be bound.
    pub fn endless_on_media(network: &Network, calls: &[Call]) -> Result<Self> {
        let plan = Self::media_plan(network, calls, 1)?;
        Ok(Self::fire(plan, usize::MAX))
    }

    fn media_plan(network: &Network, calls: &[Call], rounds: usize) -> Result<Plan> {
        let family = network.family;
        let stranger = SocketAddr::new(Place::Stranger.address(family), 45_678);
        let strangers = bind(&network.stranger, &[stranger])?;
        // Sockets at the provider: for each media address one outside and two inside its port range, one at an address of its own, and
        // one at the signalling address for the forged answer.
        let mut provider = Vec::new();
        for index in 0..super::address::PROVIDER_MEDIA_COUNT {
            let address = Place::ProviderMedia(index).address(family);
            provider.push(SocketAddr::new(address, PROVIDER_RTP_FIRST - 1));
            provider.push(SocketAddr::new(address, PROVIDER_RTP_LAST));
        }
        let other = provider.len();
        provider.push(SocketAddr::new(
            Place::ProviderOther.address(family),
            PROVIDER_RTP_LAST,
        ));
        provider.push(SocketAddr::new(Place::ProviderCaller.address(family), 5070));
        let providers = bind(&network.provider, &provider)?;

        let mut by_stranger = Vec::new();
        let mut by_provider = Vec::new();
        for round in 0..rounds {
            for call in calls {
                let open = call.pbx_media;
                let [closed, forged] = closed_ports(call);
                let media = usize::from(call.number % super::address::PROVIDER_MEDIA_COUNT);
                let rtp = |kind| {
                    let mut bytes = rtp_header(call.number, Way::In, round as u32);
                    bytes.extend(marker(kind));
                    bytes.resize(172, 0xff);
                    bytes
                };
                for (kind, to) in [
                    (Kind::OpenPort, open),
                    (Kind::ClosedPort, closed),
                    (Kind::ForgedConsent, forged),
                ] {
                    by_stranger.push(Shot {
                        kind,
                        from: 0,
                        to,
                        bytes: rtp(kind),
                    });
                }
                for (kind, from, to, bytes) in [
                    (
                        Kind::ClosedPortFromProvider,
                        2 * media + 1,
                        closed,
                        rtp(Kind::ClosedPortFromProvider),
                    ),
                    (
                        Kind::WrongSourcePort,
                        2 * media,
                        open,
                        rtp(Kind::WrongSourcePort),
                    ),
                    (
                        Kind::WrongProviderAddress,
                        other,
                        open,
                        rtp(Kind::WrongProviderAddress),
                    ),
                    (Kind::NotMedia, 2 * media + 1, open, marker(Kind::NotMedia)),
                    (
                        Kind::PayloadType,
                        2 * media + 1,
                        open,
                        with_payload_type(rtp(Kind::PayloadType), UNLISTED),
                    ),
                ] {
                    by_provider.push(Shot {
                        kind,
                        from,
                        to,
                        bytes,
                    });
                }
            }
        }
        let forgeries = UdpSocket::try_clone(&providers[other + 1])?;
        for call in calls.iter().take(20) {
            let [_, forged] = closed_ports(call);
            forgeries.send_to(
                forged_answer(stranger, forged).as_bytes(),
                SocketAddr::new(Place::PbxCallee.address(family), SIP_PORT),
            )?;
        }
        Ok(vec![(strangers, by_stranger), (providers, by_provider)])
    }

    /// What has been sent so far.
    #[must_use]
    pub fn fired(&self) -> Arc<Fired> {
        Arc::clone(&self.fired)
    }

    /// Waits until everything planned has been sent.
    pub fn finish(mut self) {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    fn fire(attackers: Plan, turns: usize) -> Self {
        let fired = Arc::new(Fired::default());
        let stop = Arc::new(AtomicBool::new(false));
        let threads = attackers
            .into_iter()
            .map(|(sockets, shots)| {
                let (fired, stop) = (Arc::clone(&fired), Arc::clone(&stop));
                thread::spawn(move || {
                    for shot in std::iter::repeat_n(&shots, turns).flatten() {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        // Only what really left counts as sent.
                        if sockets[shot.from].send_to(&shot.bytes, shot.to).is_ok() {
                            fired.0[shot.kind as usize].fetch_add(1, Ordering::Relaxed);
                        }
                        thread::sleep(PACE);
                    }
                })
            })
            .collect();
        Self {
            fired,
            stop,
            threads,
        }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The ports beside a call's that [`Kind::ClosedPort`] and [`Kind::ForgedConsent`] name.
#[must_use]
pub fn closed_ports(call: &Call) -> [SocketAddr; 2] {
    let closed = PBX_RTP_LAST - 2 * (call.number % 1000);
    [closed, closed - 2001].map(|port| SocketAddr::new(call.pbx_media.ip(), port))
}

fn bind(namespace: &Namespace, addresses: &[SocketAddr]) -> Result<Vec<UdpSocket>> {
    namespace.enter(|| {
        addresses
            .iter()
            .map(|at| bind_when_free(at).with_context(|| format!("cannot bind {at}")))
            .collect()
    })?
}

/// A program that another test starts holds this process's closed sockets for a moment, too, until it is itself.
fn bind_when_free(at: &SocketAddr) -> std::io::Result<UdpSocket> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match UdpSocket::bind(at) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            bound => return bound,
        }
    }
}

/// The marker stands in a header that no answer repeats.
fn sip_request(kind: Kind, to: SocketAddr, user: &str, round: usize) -> Vec<u8> {
    let method = kind.sip_method().unwrap_or("OPTIONS");
    let mark = String::from_utf8_lossy(&marker(kind)).into_owned();
    format!(
        "{method} sip:call-{user}@{to} SIP/2.0\r\nVia: SIP/2.0/UDP stranger:5060;branch=z9hG4bK{method}{round}\r\n\
         From: <sip:100@{to}>;tag={round}\r\nTo: <sip:call-{user}@{to}>\r\nCall-ID: {method}-{round}@stranger\r\n\
         CSeq: 1 {method}\r\nContact: <sip:100@stranger>\r\nMax-Forwards: 70\r\nSubject: {mark}\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// An answer to an offer that nobody made, as somebody who can spoof the provider's address would send it.
fn forged_answer(media: SocketAddr, named: SocketAddr) -> String {
    let version = if media.is_ipv6() { 6 } else { 4 };
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP{version} {ip}\r\ns=-\r\nc=IN IP{version} {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n",
        ip = media.ip(),
        port = media.port(),
    );
    format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {named};branch=z9hG4bKforged{port}\r\nFrom: <sip:a@lab>;tag=a{port}\r\n\
         To: <sip:b@lab>;tag=b{port}\r\nCall-ID: forged-{port}@lab\r\nCSeq: 1 INVITE\r\nContact: <sip:b@lab>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{sdp}",
        port = named.port(),
        length = sdp.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_by_its_marker() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            let mut packet = rtp_header(1, Way::In, 1);
            packet.extend(marker(kind));
            assert_eq!(find_marker(&packet), Some(kind));
        }
        assert_eq!(find_marker(b"lab-attack:"), None);
        assert_eq!(find_marker(b"lab-attack:Z"), None);
    }
}
