//! Packets and their order: whole ones of every kind, and what bad luck or malice makes of them.

use std::net::{IpAddr, SocketAddr};

use sipfilter_common::settings::Settings;
use sipfilter_daemon::shell::policy::{KernelPinhole, KernelPolicy};

use super::{
    Packet, Sizes, Step, Tables, far_port, far4, far6, pbx4, pbx6, port,
    tables::{named, pinhole},
};
use crate::policy::{
    cases::{OUTER, Way},
    frame::{Frame, ICMP, TCP, UDP},
    random::Random,
};

/// The least that a test run takes: an Ethernet header before XDP, a byte more before TC.
const LEAST: usize = 15;

/// The most that a frame is cut at every length of.
const LADDER: usize = 160;

/// So many packets, or a few more, with what user space does meanwhile.
pub fn steps(
    random: &mut Random,
    policy: &KernelPolicy,
    tables: &Tables,
    sizes: Sizes,
    packets: usize,
) -> Vec<Step> {
    let mut maker = Maker {
        random,
        settings: &policy.settings,
        tables,
        sizes,
        sent: Vec::new(),
        steps: Vec::new(),
    };
    while maker.sent.len() < packets {
        maker.go_on();
    }
    maker.steps
}

/// Both ends of a packet, as it came in or left.
#[derive(Debug, Clone, Copy)]
struct Ends {
    source: SocketAddr,
    destination: SocketAddr,
}

struct Maker<'a> {
    random: &'a mut Random,
    settings: &'a Settings,
    tables: &'a Tables,
    sizes: Sizes,
    /// Every packet so far, for repetitions and answers.
    sent: Vec<(Packet, Ends)>,
    steps: Vec<Step>,
}

impl Maker<'_> {
    fn go_on(&mut self) {
        match self.random.below(1_000) {
            0 => self.steps.push(Step::Wait(self.random.between(4, 12))),
            1..=8 => {
                let pinhole = self.other_pinhole();
                self.steps.push(if self.random.percent(70) {
                    Step::Put(pinhole)
                } else {
                    Step::Remove(pinhole)
                });
            }
            9..=10 => self.ladder(),
            11..=40 => self.burst(),
            121..=160 => self.exchange(),
            41..=120 if !self.sent.is_empty() => {
                let (packet, ends) = self.sent[self.random.below(self.sent.len())].clone();
                self.send(packet, ends);
            }
            _ => {
                let (packet, ends) = self.packet();
                self.send(packet, ends);
            }
        }
    }

    fn send(&mut self, packet: Packet, ends: Ends) {
        self.steps.push(Step::Packet(packet.clone()));
        self.sent.push((packet, ends));
    }

    /// One of the table's, renewed or replaced, or a new one.
    fn other_pinhole(&mut self) -> KernelPinhole {
        let new = pinhole(self.random, self.settings);
        if self.tables.pinholes.is_empty() || self.random.percent(20) {
            return new;
        }
        let old = self.tables.pinholes[self.random.below(self.tables.pinholes.len())];
        match (old, new) {
            (KernelPinhole::V4(key, _), KernelPinhole::V4(_, value)) => {
                KernelPinhole::V4(key, value)
            }
            (KernelPinhole::V6(key, _), KernelPinhole::V6(_, value)) => {
                KernelPinhole::V6(key, value)
            }
            (KernelPinhole::V4(key, mut value), _) => {
                value.generation = value.generation.wrapping_add(1);
                KernelPinhole::V4(key, value)
            }
            (KernelPinhole::V6(key, mut value), _) => {
                value.generation = value.generation.wrapping_add(1);
                KernelPinhole::V6(key, value)
            }
        }
    }

    /// One frame, cut at every length.
    fn ladder(&mut self) {
        let (packet, ends) = self.packet();
        for length in LEAST..=packet.frame.len().min(LADDER) {
            let mut cut = packet.clone();
            cut.frame.truncate(length);
            self.send(cut, ends);
        }
    }

    /// A message with SDP leaves, and media comes to where it may have named.
    fn exchange(&mut self) {
        let (mut near, far) = self.anywhere();
        near.set_port(self.settings.pbx.udp[0]);
        let text = message(self.random);
        let mut frame = Frame::between(UDP, near, far, &text).build();
        frame.truncate(self.sizes.egress);
        let packet = Packet {
            way: Way::Out,
            frame,
            arrived_on: 0,
        };
        let ends = Ends {
            source: near,
            destination: far,
        };
        self.send(packet, ends);
        for _ in 0..self.random.between(4, 24) {
            near.set_port(10_000 + self.random.below(17) as u16);
            let ends = Ends {
                source: SocketAddr::new(far.ip(), far_port(self.random)),
                destination: near,
            };
            let length = self.random.between(7, 20) as usize;
            let mut payload = self.random.bytes(length);
            payload[0] = self.random.pick(&[0x80, 0x80, 0x81, 0, 22, 0x50]);
            let packet = Packet {
                way: Way::In,
                frame: Frame::between(UDP, ends.source, ends.destination, &payload).build(),
                arrived_on: 0,
            };
            self.send(packet, ends);
        }
    }

    /// One frame, many times: budgets run out.
    fn burst(&mut self) {
        let (packet, ends) = self.packet();
        for _ in 0..self.random.between(2, 12) {
            self.send(packet.clone(), ends);
        }
    }

    fn packet(&mut self) -> (Packet, Ends) {
        let (way, ends) = self.way_and_ends();
        let mut frame = self.frame(way, ends);
        let bytes = &mut frame;
        if self.random.percent(12) {
            for _ in 0..self.random.between(1, 4) {
                let place = self.random.below(bytes.len().min(96));
                bytes[place] = match self.random.below(4) {
                    0 => bytes[place] ^ 1 << self.random.below(8),
                    1 => self.random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                    _ => self.random.byte(),
                };
            }
        }
        if self.random.percent(8) {
            frame.truncate(self.random.between(LEAST as u64, frame.len() as u64) as usize);
        }
        let most = match way {
            Way::In => self.sizes.ingress,
            Way::Out => self.sizes.egress,
        };
        frame.truncate(most);
        frame.resize(frame.len().max(LEAST), 0);
        let arrived_on = match way {
            Way::Out if self.random.percent(15) => self.random.pick(&[OUTER[0], OUTER[1], 7, 9]),
            _ => 0,
        };
        let packet = Packet {
            way,
            frame,
            arrived_on,
        };
        (packet, ends)
    }

    fn way_and_ends(&mut self) -> (Way, Ends) {
        // The answer to what went the other way.
        if !self.sent.is_empty() && self.random.percent(12) {
            let recent = self.sent.len().saturating_sub(20);
            let place = recent + self.random.below(self.sent.len() - recent);
            let (packet, ends) = &self.sent[place];
            let back = Ends {
                source: ends.destination,
                destination: ends.source,
            };
            return match packet.way {
                Way::In => (Way::Out, back),
                Way::Out => (Way::In, back),
            };
        }
        let (near, far) = if !self.tables.pinholes.is_empty() && self.random.percent(55) {
            self.at_a_pinhole()
        } else {
            self.anywhere()
        };
        if self.random.percent(65) {
            let ends = Ends {
                source: far,
                destination: near,
            };
            (Way::In, ends)
        } else {
            let ends = Ends {
                source: near,
                destination: far,
            };
            (Way::Out, ends)
        }
    }

    fn at_a_pinhole(&mut self) -> (SocketAddr, SocketAddr) {
        let pinhole = self.tables.pinholes[self.random.below(self.tables.pinholes.len())];
        let near = match &pinhole {
            KernelPinhole::V4(key, _) => {
                SocketAddr::new(IpAddr::V4(key.address().to_bytes().into()), key.port())
            }
            KernelPinhole::V6(key, _) => {
                SocketAddr::new(IpAddr::V6(key.address().to_bytes().into()), key.port())
            }
        };
        let (address, port) = if self.random.percent(80) {
            named(self.random, &pinhole)
        } else if near.is_ipv4() {
            (IpAddr::V4(far4(self.random)), far_port(self.random))
        } else {
            (IpAddr::V6(far6(self.random)), far_port(self.random))
        };
        (near, SocketAddr::new(address, port))
    }

    fn anywhere(&mut self) -> (SocketAddr, SocketAddr) {
        let settings = self.settings;
        let near_port = match self.random.below(4) {
            0 => self.random.pick(&settings.pbx.udp),
            1 => self.random.pick(&settings.pbx.tcp),
            _ => port(self.random),
        };
        let far_port = match self.random.below(4) {
            0 => self.random.pick(&settings.providers.udp),
            1 => self.random.pick(&settings.providers.tls),
            _ => far_port(self.random),
        };
        // Now and then one that is not protected.
        let (near, far): (IpAddr, IpAddr) = if self.random.percent(50) {
            let count = settings.protected4_count as usize + usize::from(self.random.percent(10));
            let near = pbx4(self.random.below(count.max(1)) as u8);
            (near.into(), far4(self.random).into())
        } else {
            let count = settings.protected6_count as usize + usize::from(self.random.percent(10));
            let near = pbx6(self.random.below(count.max(1)) as u16);
            (near.into(), far6(self.random).into())
        };
        (
            SocketAddr::new(near, near_port),
            SocketAddr::new(far, far_port),
        )
    }

    fn frame(&mut self, way: Way, ends: Ends) -> Vec<u8> {
        let most = match way {
            Way::In => self.sizes.ingress,
            Way::Out => self.sizes.egress,
        };
        let payload = payload(self.random, most);
        let random = &mut *self.random;
        let protocol = match random.below(20) {
            0..=13 => UDP,
            14..=17 => TCP,
            18 => random.pick(&[ICMP, 2, 47, 50, 58, 89, 112, 132]),
            _ => random.byte(),
        };
        let mut frame = Frame::between(protocol, ends.source, ends.destination, &payload);
        if protocol == TCP {
            frame = frame.flags(random.pick(&[0x02, 0x02, 0x12, 0x10, 0x18, 0x04, 0xc2, 0]));
        }
        if random.percent(3) {
            frame = frame.relabelled(random.pick(&[UDP, TCP, ICMP, 0, 43, 44, 60, 59]));
        }
        if random.percent(10) {
            for _ in 0..random.between(1, 3) {
                frame = frame.tagged(random.pick(&[0x8100, 0x88a8, 0x9100]));
            }
        }
        if random.percent(10) {
            frame = frame
                .with_options(random.below(11))
                .with_extensions(random.below(6));
        }
        if random.percent(15) {
            let offset = match random.below(4) {
                0 | 1 => 0,
                2 => random.pick(&[1, 9]),
                _ => random.below(1 << 13) as u16,
            };
            let id = random.pick(&[1, 2, 3, 0xffff, 0x1_0001]);
            frame = frame.fragment(id, offset, random.percent(60));
        }
        if random.percent(10) {
            frame = frame.padded(random.below(46));
        }
        frame.build()
    }
}

/// Something that some rule looks at, of a length that it looks at too.
fn payload(random: &mut Random, most: usize) -> Vec<u8> {
    if random.percent(4) {
        return message(random);
    }
    let length = match random.below(12) {
        0 => random.below(16),
        1 => 172,
        2 if random.percent(20) => random.between(900, most.min(9_000) as u64 + 40) as usize,
        2 => random.below(400),
        3 => random.pick(&[0, 1, 2, 7, 8, 11, 12, 13]),
        _ => random.between(12, 60) as usize,
    };
    let mut bytes = random.bytes(length);
    let first = match random.below(10) {
        0..=5 => random.pick(&[0x80, 0x80, 0x81, 0x90, 0xbf]),
        6 => random.pick(&[0, 1, 3, 4]),
        7 => random.pick(&[19, 20, 22, 63, 64, 127]),
        8 => random.byte(),
        _ => {
            let text: &[u8] = random.pick(&[
                b"OPTIONS sip:pbx SIP/2.0\r\n\r\n" as &[u8],
                b"SIP/2.0 200 OK\r\n\r\n",
                b"BYE sip:pbx SIP/2.0\r\n\r\n",
                b"\r\n\r\n",
            ]);
            return text.to_vec();
        }
    };
    let second = match random.below(6) {
        0..=2 => random.pick(&[0, 8, 101]) | random.pick(&[0, 0x80]),
        3 => random.pick(&[191, 192, 200, 223, 224, 72, 95]),
        _ => random.byte(),
    };
    for (place, byte) in bytes.iter_mut().zip([first, second]) {
        *place = byte;
    }
    bytes
}

/// A message with SDP, whole or with something that no SDP has.
fn message(random: &mut Random) -> Vec<u8> {
    let first = random.pick(&[
        "SIP/2.0 200 OK",
        "SIP/2.0 200 OK",
        "SIP/2.0 183 Session Progress",
        "SIP/2.0 486 Busy Here",
        "ACK sip:a@example.com SIP/2.0",
        "PRACK sip:a@example.com SIP/2.0",
        "INVITE sip:a@example.com SIP/2.0",
        "UPDATE sip:a@example.com SIP/2.0",
        "BYE sip:a@example.com SIP/2.0",
    ]);
    let mut text =
        format!("{first}\r\nVia: SIP/2.0/UDP 198.51.100.1;branch=z9hG4bK1\r\n\r\nv=0\r\n");
    for _ in 0..random.below(7) {
        let key = random.pick(&["m=", "m=", "m=", "m=", "a=m=", "M=", "m"]);
        let kind = random.pick(&["audio", "audio", "video", "image", ""]);
        let port = match random.below(10) {
            0 => random.pick(&[0, 1, 4_000, 65_535, 65_536, 100_000]),
            _ => 10_000 + random.below(17),
        };
        let rest = random.pick(&[
            " RTP/AVP 0\r\n",
            " RTP/AVP 0\r\n",
            "/2 RTP/AVP 0\n",
            "\r\n",
            "x",
        ]);
        text += &format!("{key}{kind} {port}{rest}");
        text += &"a=x\r\n".repeat(random.below(20));
    }
    text += random.pick(&["", "a=sendrecv\r\n"]);
    text.into_bytes()
}
