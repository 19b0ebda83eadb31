//! The media sockets of one conversation, which send and receive where its SDP says, or on purpose elsewhere.
//!
//! Every packet is counted by the socket that it was meant for. Nothing here knows of SIP.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    conversation::Plan,
    namespace::Namespace,
    rtp::PACKET_TIME,
    scenario::{Slot, Sound},
    topology::Network,
};

/// How long an empty socket is listened to.
const SILENCE: Duration = Duration::from_millis(100);

/// The number of the first packet that is meant for nobody.
const BESIDE: u32 = 800;

/// The media sockets of one conversation, by [`Slot`].
#[derive(Debug)]
pub struct Legs {
    provider: [UdpSocket; 2],
    pbx: [UdpSocket; 2],
    plan: Plan,
}

impl Legs {
    /// Binds them.
    ///
    /// # Errors
    /// Where an address cannot be bound.
    pub fn bind(network: &Network, plan: Plan) -> Result<Self> {
        let pair = |namespace: &Namespace, at: [SocketAddr; 2]| -> Result<[UdpSocket; 2]> {
            namespace.enter(|| {
                let bind = |at: SocketAddr| {
                    let socket =
                        UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
                    socket.set_read_timeout(Some(SILENCE))?;
                    anyhow::Ok(socket)
                };
                Ok([bind(at[0])?, bind(at[1])?])
            })?
        };
        Ok(Self {
            provider: pair(&network.provider, plan.provider_media)?,
            pbx: pair(network.pbx(), plan.pbx_media)?,
            plan,
        })
    }

    /// Sends so many packets each way; gives how many were sent and how many arrived.
    ///
    /// # Errors
    /// Where a socket refuses.
    pub fn talk(
        &self,
        provider: Slot,
        pbx: Slot,
        sound: Sound,
        packets: u32,
    ) -> Result<(u32, u32)> {
        let (from, to) = (&self.provider[provider as usize], &self.pbx[pbx as usize]);
        for number in 0..packets {
            // The provider first, as address translation would want it.
            from.send_to(
                &self.packet(number, sound),
                self.plan.pbx_media[pbx as usize],
            )?;
            to.send_to(
                &self.packet(number + packets, sound),
                self.plan.provider_media[provider as usize],
            )?;
            thread::sleep(PACKET_TIME);
        }
        let inwards = self.count(to, 0..packets, sound);
        let outwards = self.count(from, packets..2 * packets, sound);
        Ok((2 * packets, inwards + outwards))
    }

    /// One packet from where the provider's audio does not come (any more), and one to where the PBX does not take it; where nothing else
    /// is in force, a third between the two.
    ///
    /// # Errors
    /// Where a socket refuses.
    pub fn talk_beside(&self, provider: Slot, pbx: Slot, sound: Sound) -> Result<(u32, u32)> {
        let other = |slot| match slot {
            Slot::First => Slot::Moved,
            Slot::Moved => Slot::First,
        };
        let mut ways = vec![(other(provider), pbx), (provider, other(pbx))];
        if matches!(sound, Sound::Audio | Sound::Fax) {
            ways.push((other(provider), other(pbx)));
        }
        for (&(from, to), number) in ways.iter().zip(BESIDE..) {
            self.provider[from as usize].send_to(
                &self.packet(number, sound),
                self.plan.pbx_media[to as usize],
            )?;
        }
        let delivered = self.count(&self.pbx[pbx as usize], BESIDE..BESIDE + 1, sound)
            + self.count(
                &self.pbx[other(pbx) as usize],
                BESIDE + 1..BESIDE + u32::try_from(ways.len())?,
                sound,
            );
        Ok((u32::try_from(ways.len())?, delivered))
    }

    /// One packet to each of the PBX's endpoints.
    ///
    /// # Errors
    /// Where a socket refuses.
    pub fn talk_inwards(&self) -> Result<(u32, u32)> {
        let mut delivered = 0;
        for (from, (to, at)) in self
            .provider
            .iter()
            .zip(self.pbx.iter().zip(self.plan.pbx_media))
        {
            from.send_to(&self.packet(900, Sound::Audio), at)?;
            delivered += self.count(to, 900..901, Sound::Audio);
        }
        Ok((2, delivered))
    }

    /// Different packets of this burst that are waiting.
    fn count(&self, socket: &UdpSocket, numbers: std::ops::Range<u32>, sound: Sound) -> u32 {
        let mut expected: Vec<Vec<u8>> = numbers.map(|n| self.packet(n, sound)).collect();
        let all = expected.len();
        let mut buffer = [0; 2048];
        while !expected.is_empty()
            && let Ok((length, _)) = socket.recv_from(&mut buffer)
        {
            expected.retain(|packet| packet != &buffer[..length]);
        }
        u32::try_from(all - expected.len()).unwrap_or(u32::MAX)
    }

    /// PCMU or H.263 in RTP by number (RFC 3551 §6), or a UDPTL packet with one primary packet and no redundancy.
    fn packet(&self, number: u32, sound: Sound) -> Vec<u8> {
        let sequence = u16::try_from(number & 0xffff)
            .unwrap_or_default()
            .to_be_bytes();
        let is_fax = sound == Sound::Fax;
        let payload_type = if sound == Sound::Video { 34 } else { 0 };
        let mut bytes = if is_fax {
            vec![sequence[0], sequence[1], 160]
        } else {
            let mut bytes = vec![0x80, payload_type, sequence[0], sequence[1]];
            bytes.extend((number * 160).to_be_bytes());
            bytes.extend(u32::from(self.plan.number).to_be_bytes());
            bytes
        };
        bytes.extend(self.plan.number.to_be_bytes());
        bytes.resize(bytes.len() + 158, 0xd5);
        if is_fax {
            bytes.extend([0, 0]);
        }
        bytes
    }
}
