//! What two recordings say of the media between provider and PBX: how many packets each side put on its wire, and which of them the
//! other side's wire never carried.
//!
//! Exact for any agent, whatever it encrypts: packets are matched by their UDP payload. What a host sends after its own BYE is not
//! counted, because nobody has to take it (RFC 3261 §15). It knows nothing of who should hear what.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::address::PBX_RTP_FIRST;

/// Media is told from everything else by RFC 7983: the first byte of a datagram between two RTP ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// RTP and SRTP.
    Rtp,
    /// RTCP and SRTCP (RFC 5761 §4).
    Rtcp,
    /// ICE's connectivity checks.
    Stun,
    /// Handshakes.
    Dtls,
    /// Anything else, such as UDPTL.
    Other,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Rtp, Self::Rtcp, Self::Stun, Self::Dtls, Self::Other];

    fn of(payload: &[u8]) -> Self {
        match payload {
            [0..=3, ..] => Self::Stun,
            [20..=63, ..] => Self::Dtls,
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, _, ..] => Self::Rtp,
            _ => Self::Other,
        }
    }
}

/// Packets of one shape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passage {
    /// On the sender's wire.
    pub sent: usize,
    /// Of these, on the receiver's wire.
    pub arrived: usize,
    /// Which one was lost first, from 0.
    pub first_lost: Option<usize>,
}

impl Passage {
    /// How many were lost on the way.
    #[must_use]
    pub fn lost(self) -> usize {
        self.sent - self.arrived
    }
}

/// The media of a run.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// From the provider to the PBX.
    pub inwards: HashMap<Shape, Passage>,
    /// From the PBX to the provider.
    pub outwards: HashMap<Shape, Passage>,
}

impl Trace {
    /// Compares what the two hosts' wires carried. `provider` are all addresses that belong to the provider.
    #[must_use]
    pub fn of(provider_wire: &[Vec<u8>], pbx_wire: &[Vec<u8>], provider: &[IpAddr]) -> Self {
        let from_provider = |datagram: &Datagram<'_>| provider.contains(&datagram.from);
        let to_provider = |datagram: &Datagram<'_>| provider.contains(&datagram.to);
        Self {
            inwards: passages(provider_wire, pbx_wire, |d| {
                from_provider(d) && !to_provider(d)
            }),
            outwards: passages(pbx_wire, provider_wire, |d| {
                to_provider(d) && !from_provider(d)
            }),
        }
    }

    /// One shape's packets, the provider's first.
    #[must_use]
    pub fn shape(&self, shape: Shape) -> [Passage; 2] {
        [&self.inwards, &self.outwards].map(|way| way.get(&shape).copied().unwrap_or_default())
    }
}

fn passages(
    sender: &[Vec<u8>],
    receiver: &[Vec<u8>],
    chosen: impl Fn(&Datagram<'_>) -> bool,
) -> HashMap<Shape, Passage> {
    // The same bytes may be sent more than once (a repeated connectivity check), and each must arrive.
    let mut arrived: HashMap<&[u8], usize> = HashMap::new();
    for datagram in media(receiver).filter(&chosen) {
        *arrived.entry(datagram.payload).or_default() += 1;
    }
    let mut passages: HashMap<Shape, Passage> = HashMap::new();
    for datagram in media(sender).filter(&chosen) {
        let passage = passages.entry(Shape::of(datagram.payload)).or_default();
        passage.sent += 1;
        if let Some(left) = arrived.get_mut(datagram.payload).filter(|left| **left > 0) {
            *left -= 1;
            passage.arrived += 1;
        } else {
            passage.first_lost.get_or_insert(passage.sent - 1);
        }
    }
    passages
}

/// Whose SDP has to have gone by before media may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// Both sides'.
    WithBoth,
    /// That of the side that receives it.
    WithTheReceivers,
}

/// Media that crossed one link, by what both sides had said by then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crossings {
    /// Towards the PBX before the SDP that it takes had gone by: an agent that answers may send before its answer does.
    pub premature: u64,
    /// Towards the PBX between that and its sender's BYE.
    pub agreed: u64,
    /// Towards the PBX behind its sender's BYE.
    pub late: u64,
    /// From the PBX behind a BYE of either side.
    pub late_outwards: u64,
}

impl Crossings {
    /// Counts the media among these frames, in their order. `provider` are all addresses that belong to the provider; each signals for
    /// its own media.
    #[must_use]
    pub fn of<'a>(
        frames: impl Iterator<Item = &'a [u8]>,
        provider: &[IpAddr],
        opens: Opens,
    ) -> Self {
        let mut this = Self::default();
        for datagram in all_media(frames) {
            let is_agreed = match opens {
                Opens::WithBoth => datagram.behind_own_sdp && datagram.behind_peers_sdp,
                Opens::WithTheReceivers => datagram.behind_peers_sdp,
            };
            if !provider.contains(&datagram.from) {
                this.late_outwards += u64::from(datagram.behind_bye);
            } else if datagram.behind_own_bye {
                this.late += 1;
            } else if is_agreed {
                this.agreed += 1;
            } else {
                this.premature += 1;
            }
        }
        this
    }
}

/// IP's protocol numbers.
const UDP: u8 = 17;
const TCP: u8 = 6;
/// The beginning of every description (RFC 8866 §5.1).
const SDP: &[u8] = b"v=0\r\n";

#[derive(Debug)]
struct Datagram<'a> {
    from: IpAddr,
    to: IpAddr,
    payload: &'a [u8],
    /// Whether its sender has sent a BYE.
    behind_own_bye: bool,
    /// Whether anybody has.
    behind_bye: bool,
    /// Whether its sender has sent SDP.
    behind_own_sdp: bool,
    /// Whether its sender has been sent SDP.
    behind_peers_sdp: bool,
}

/// Media, but for what its sender sent after a BYE.
fn media(frames: &[Vec<u8>]) -> impl Iterator<Item = Datagram<'_>> {
    all_media(frames.iter().map(Vec::as_slice)).filter(|datagram| !datagram.behind_own_bye)
}

/// UDP between two ports that only media uses. A loopback's frames carry no Ethernet addresses; those are the lab's own commands.
fn all_media<'a>(frames: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = Datagram<'a>> {
    let mut left: HashSet<IpAddr> = HashSet::new();
    let mut described: HashSet<IpAddr> = HashSet::new();
    let mut told: HashSet<IpAddr> = HashSet::new();
    frames
        .filter(|frame| {
            frame
                .get(..12)
                .is_some_and(|addresses| addresses != [0; 12])
        })
        .filter_map(move |frame| {
            let (from, to, protocol, transport): (IpAddr, IpAddr, u8, &[u8]) =
                match frame.get(12..14)? {
                    [0x08, 0x00] => (
                        <[u8; 4]>::try_from(frame.get(26..30)?).ok()?.into(),
                        <[u8; 4]>::try_from(frame.get(30..34)?).ok()?.into(),
                        *frame.get(23)?,
                        frame.get(34..)?,
                    ),
                    [0x86, 0xdd] => (
                        <[u8; 16]>::try_from(frame.get(22..38)?).ok()?.into(),
                        <[u8; 16]>::try_from(frame.get(38..54)?).ok()?.into(),
                        *frame.get(20)?,
                        frame.get(54..)?,
                    ),
                    _ => return None,
                };
            // SDP may be in a later fragment or segment of its message.
            if transport.windows(SDP.len()).any(|bytes| bytes == SDP) {
                described.insert(from);
                told.insert(to);
            }
            let header = match protocol {
                UDP => 8,
                TCP => usize::from(transport.get(12)? >> 4) * 4,
                _ => return None,
            };
            let payload = transport.get(header..)?;
            if payload.starts_with(b"BYE ") {
                left.insert(from);
            }
            let port = |at: usize| {
                let bytes = transport.get(at..at + 2)?;
                Some(u16::from_be_bytes([bytes[0], bytes[1]]))
            };
            let is_media =
                protocol == UDP && port(0)? >= PBX_RTP_FIRST && port(2)? >= PBX_RTP_FIRST;
            is_media.then(|| Datagram {
                from,
                to,
                payload,
                behind_own_bye: left.contains(&from),
                behind_bye: !left.is_empty(),
                behind_own_sdp: described.contains(&from),
                behind_peers_sdp: told.contains(&from),
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(from);
        frame.extend(to);
        frame.extend(20_000_u16.to_be_bytes());
        frame.extend(20_002_u16.to_be_bytes());
        frame.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        frame
    }

    fn sip(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = frame(from, to, payload);
        frame[34..36].copy_from_slice(&5060_u16.to_be_bytes());
        frame
    }

    #[test]
    fn a_lost_packet_is_missed_even_if_its_twin_arrived() {
        let (provider, pbx) = ([198, 51, 100, 10], [203, 0, 113, 10]);
        let rtp = frame(provider, pbx, &[0x80, 0, 0, 1]);
        let stun = frame(pbx, provider, &[0, 1, 0, 0]);
        let trace = Trace::of(
            &[rtp.clone(), rtp.clone(), stun.clone()],
            &[rtp, stun],
            &[provider.into()],
        );
        let passage = |sent, arrived, first_lost| Passage {
            sent,
            arrived,
            first_lost,
        };
        assert_eq!(
            trace.shape(Shape::Rtp),
            [passage(2, 1, Some(1)), passage(0, 0, None)]
        );
        assert_eq!(
            trace.shape(Shape::Stun),
            [passage(0, 0, None), passage(1, 1, None)]
        );
        assert_eq!(trace.shape(Shape::Rtp)[0].lost(), 1);
    }

    #[test]
    fn what_follows_a_bye_of_its_sender_is_not_counted() {
        let (provider, pbx) = ([198, 51, 100, 10], [203, 0, 113, 10]);
        let rtp = [provider, pbx].map(|from| {
            let to = if from == pbx { provider } else { pbx };
            frame(from, to, &[0x80, 0, 0, 1])
        });
        let bye = frame(provider, pbx, b"BYE sip:pbx SIP/2.0");
        let wire: Vec<_> = [&rtp[0], &bye, &rtp[0], &rtp[1]]
            .into_iter()
            .cloned()
            .collect();
        let trace = Trace::of(&wire, &wire, &[provider.into()]);
        assert_eq!(trace.shape(Shape::Rtp).map(|rtp| rtp.sent), [1, 1]);
    }

    #[test]
    fn media_is_agreed_between_the_sdp_that_it_takes_and_the_bye() {
        let (provider, pbx) = ([198, 51, 100, 10], [203, 0, 113, 10]);
        let inwards = frame(provider, pbx, &[0x80, 0, 0, 1]);
        let outwards = frame(pbx, provider, &[0x80, 0, 0, 1]);
        let offer = sip(pbx, provider, b"INVITE x SIP/2.0\r\n\r\nv=0\r\n");
        let answer = sip(provider, pbx, b"SIP/2.0 200 OK\r\n\r\nv=0\r\n");
        let bye = sip(provider, pbx, b"BYE sip:pbx SIP/2.0");
        let wire = [
            &inwards, &offer, &inwards, &answer, &inwards, &inwards, &outwards, &bye, &inwards,
            &outwards,
        ];
        for (opens, premature, agreed) in [(Opens::WithBoth, 2, 2), (Opens::WithTheReceivers, 1, 3)]
        {
            let frames = wire.into_iter().map(Vec::as_slice);
            let expect = Crossings {
                premature,
                agreed,
                late: 1,
                late_outwards: 1,
            };
            assert_eq!(Crossings::of(frames, &[provider.into()], opens), expect);
        }
    }

    #[test]
    fn shapes_follow_the_first_bytes() {
        for (payload, shape) in [
            (&[0x80, 0][..], Shape::Rtp),
            (&[0x80, 0x80], Shape::Rtp),
            (&[0x80, 200], Shape::Rtcp),
            (&[0, 1], Shape::Stun),
            (&[22, 254], Shape::Dtls),
            (&[64, 0], Shape::Other),
            (&[], Shape::Other),
        ] {
            assert_eq!(Shape::of(payload), shape, "{payload:?}");
        }
    }
}
