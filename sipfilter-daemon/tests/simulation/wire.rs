//! What goes over the wire: session descriptions, SIP as text, RTP and RTCP, all in Ethernet frames with IP and UDP.
//!
//! An agent keeps the structured form beside the text that the filter reads; the text says nothing else.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

/// The two sides of the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Provider = 0,
    Pbx = 1,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Provider => Self::Pbx,
            Self::Pbx => Self::Provider,
        }
    }
}

/// One side's session description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desc {
    pub version: u64,
    pub address: IpAddr,
    /// RTP's port, of each stream.
    pub ports: Vec<u16>,
    pub mux: bool,
    pub hold: Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    None,
    SendOnly,
    Inactive,
    /// RFC 3264 §8.4's older form: no address.
    NoAddress,
}

impl Desc {
    pub fn text(&self) -> String {
        let (family, none) = match self.address {
            IpAddr::V4(_) => ("IP4", "0.0.0.0"),
            IpAddr::V6(_) => ("IP6", "::"),
        };
        let address = self.address;
        let shown = match self.hold {
            Hold::NoAddress => none.to_owned(),
            _ => address.to_string(),
        };
        let version = self.version;
        let mut text = format!(
            "v=0\r\no=- 1 {version} IN {family} {address}\r\ns=-\r\nc=IN {family} {shown}\r\nt=0 0\r\n"
        );
        for (index, port) in self.ports.iter().enumerate() {
            let kind = if index == 0 { "audio" } else { "video" };
            let _ = write!(text, "m={kind} {port} RTP/AVP 8 101\r\n");
            text.push_str(match self.hold {
                Hold::None => "a=sendrecv\r\n",
                Hold::SendOnly => "a=sendonly\r\n",
                Hold::Inactive | Hold::NoAddress => "a=inactive\r\n",
            });
            if self.mux {
                text.push_str("a=rtcp-mux\r\n");
            }
        }
        text
    }

    /// Where packets of the component go or come from.
    pub fn socket(&self, stream: usize, component: Component) -> Option<SocketAddr> {
        let port = *self.ports.get(stream)?;
        let port = match component {
            Component::Rtp => port,
            Component::Rtcp => port + 1,
        };
        Some(SocketAddr::new(self.address, port))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    Rtp,
    Rtcp,
}

/// The text of one SIP message.
pub struct Sip<'a> {
    /// The start line.
    pub start: String,
    pub branch: &'a str,
    pub from_tag: &'a str,
    pub to_tag: Option<&'a str>,
    pub call_id: &'a str,
    pub cseq: (u32, &'a str),
    pub sdp: Option<&'a Desc>,
}

impl Sip<'_> {
    pub fn text(&self) -> String {
        let to = self
            .to_tag
            .map_or(String::new(), |tag| format!(";tag={tag}"));
        let mut text = format!(
            "{}\r\nVia: SIP/2.0/UDP host.example;branch={}\r\nMax-Forwards: 70\r\nFrom: <sip:1@example.com>;tag={}\r\n\
             To: <sip:2@example.com>{to}\r\nCall-ID: {}\r\nCSeq: {} {}\r\n",
            self.start, self.branch, self.from_tag, self.call_id, self.cseq.0, self.cseq.1
        );
        match self.sdp {
            None => text.push_str("Content-Length: 0\r\n\r\n"),
            Some(sdp) => {
                let body = sdp.text();
                let length = body.len();
                let _ = write!(
                    text,
                    "Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{body}"
                );
            }
        }
        text
    }
}

/// How long the Ethernet header is.
pub const ETHERNET: usize = 14;

/// A UDP datagram in an Ethernet frame. Nobody here checks checksums.
pub fn frame(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).expect("a datagram");
    let mut frame = vec![0; 12];
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((length + 20).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => panic!("two address families in one packet"),
    }
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend_from_slice(payload);
    frame
}

/// RTP with 20 bytes of nothing, or an RTCP receiver report (RFC 3550 §5.1, §6.4.2).
pub fn media(component: Component) -> Vec<u8> {
    let mut payload = match component {
        Component::Rtp => vec![0x80, 8],
        Component::Rtcp => vec![0x80, 201],
    };
    payload.resize(32, 0);
    payload
}
