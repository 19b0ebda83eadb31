//! What goes over the wire: session descriptions, SIP as text, RTP, RTCP and UDPTL.
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

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    Audio,
    Video,
    /// T.38 over UDPTL.
    Fax,
}

/// One `m=` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    pub medium: Medium,
    /// 0: there is no such stream (RFC 3264 §6).
    pub port: u16,
}

/// What a description is made of, before it has addresses and ports: each section's medium, and whether it is there.
pub type Layout = Vec<(Medium, bool)>;

/// One side's session description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desc {
    pub version: u64,
    pub address: IpAddr,
    pub sections: Vec<Section>,
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
        for Section { medium, port } in &self.sections {
            let _ = match medium {
                Medium::Audio => write!(text, "m=audio {port} RTP/AVP 8 101\r\n"),
                Medium::Video => write!(text, "m=video {port} RTP/AVP 8 101\r\n"),
                Medium::Fax => write!(text, "m=image {port} udptl t38\r\na=T38FaxVersion:0\r\n"),
            };
            text.push_str(match self.hold {
                Hold::None => "a=sendrecv\r\n",
                Hold::SendOnly => "a=sendonly\r\n",
                Hold::Inactive | Hold::NoAddress => "a=inactive\r\n",
            });
            if self.mux && *medium != Medium::Fax {
                text.push_str("a=rtcp-mux\r\n");
            }
        }
        text
    }

    pub fn layout(&self) -> Layout {
        self.sections
            .iter()
            .map(|section| (section.medium, section.port != 0))
            .collect()
    }

    /// Where packets of the component go or come from, and what they carry.
    pub fn socket(&self, stream: usize, component: Component) -> Option<(SocketAddr, Medium)> {
        let Section { medium, port } = *self.sections.get(stream)?;
        let port = match (component, medium) {
            _ if port == 0 => return None,
            (Component::Rtp, _) => port,
            (Component::Rtcp, Medium::Fax) => return None,
            (Component::Rtcp, _) => port + 1,
        };
        Some((SocketAddr::new(self.address, port), medium))
    }

    /// Whether it names this place for this kind of packet. Fax, of which no byte is known, is only where fax was negotiated; where it
    /// was, anything may be fax.
    pub fn names(&self, place: SocketAddr, shape: Shape) -> bool {
        (0..self.sections.len()).any(|stream| {
            [Component::Rtp, Component::Rtcp]
                .into_iter()
                .filter_map(|component| self.socket(stream, component))
                .any(|(known, medium)| {
                    known == place && (shape == Shape::Rtp || medium == Medium::Fax)
                })
        })
    }
}

/// What a packet looks like (RFC 7983).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// RTP or RTCP.
    Rtp,
    /// Neither: UDPTL, or anything at all.
    Other,
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
    /// A provisional response that wants a PRACK, or the PRACK (RFC 3262).
    pub reliable: &'a str,
    pub sdp: Option<&'a Desc>,
}

impl Sip<'_> {
    pub fn text(&self) -> String {
        let to = self
            .to_tag
            .map_or(String::new(), |tag| format!(";tag={tag}"));
        let mut text = format!(
            "{}\r\nVia: SIP/2.0/UDP host.example;branch={}\r\nMax-Forwards: 70\r\nFrom: <sip:1@example.com>;tag={}\r\n\
             To: <sip:2@example.com>{to}\r\nCall-ID: {}\r\nCSeq: {} {}\r\n{}",
            self.start,
            self.branch,
            self.from_tag,
            self.call_id,
            self.cseq.0,
            self.cseq.1,
            self.reliable
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

/// RTP with 20 bytes of nothing, or an RTCP receiver report (RFC 3550 §5.1, §6.4.2).
pub fn media(component: Component) -> Vec<u8> {
    let mut payload = match component {
        Component::Rtp => vec![0x80, 8],
        Component::Rtcp => vec![0x80, 201],
    };
    payload.resize(32, 0);
    payload
}

/// UDPTL (ITU-T T.38 §9): a sequence number, then a length. It begins like anything, RTP not excepted; here never like RTP.
pub fn udptl(sequence: u64) -> Vec<u8> {
    let mut payload = vec![(sequence % 0x80) as u8, (sequence / 0x80) as u8, 1];
    payload.resize(32, 0);
    payload
}
