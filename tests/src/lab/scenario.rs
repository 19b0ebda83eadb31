//! One conversation, written once, as the two SIPp scenarios of its caller and callee.
//!
//! A conversation is a list of turns: who says what, with which SDP, and where the lab may talk. Only what the cases of offer and
//! answer need is here (RFC 3261, RFC 3262, RFC 3264, RFC 3311); nothing is sent or started.

use std::{fmt::Write as _, net::SocketAddr};

use super::call::Role;

/// How long the agents wait at a [`Turn::Talk`], in milliseconds.
pub const PAUSE: u64 = 900;

/// Which of its two media endpoints an agent names in SDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The one that it starts with.
    First,
    /// The one that it moves to.
    Moved,
}

/// What a media description is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// PCMU over RTP, with this direction attribute (RFC 3264 §5.1).
    Audio(&'static str),
    /// The same with the unspecified address in `c=` (RFC 2543's hold).
    AudioToNobody,
    /// T.38 over UDPTL (ITU-T T.38 annex D); audio is gone.
    Fax,
}

/// An offer or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sdp {
    /// Where its sender takes media.
    pub slot: Slot,
    /// What for.
    pub media: Media,
}

/// A SIP request's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum Method {
    Invite,
    Ack,
    Prack,
    Update,
    Bye,
}

impl Method {
    fn word(self) -> &'static str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Prack => "PRACK",
            Self::Update => "UPDATE",
            Self::Bye => "BYE",
        }
    }
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A request; a BYE, UPDATE or second INVITE of either side, everything else the caller's.
    Request(Method),
    /// A response to the latest request of that method.
    Response(u16, Method),
}

/// A step of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A message.
    Say(Role, What, Option<Sdp>),
    /// The lab may talk: to the caller's endpoint and to the callee's.
    Talk(Slot, Slot, Sound),
}

/// What is to be heard at a [`Turn::Talk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sound {
    /// Audio, and no other endpoints are in force.
    Audio,
    /// Audio; what was in force before an answer without an ACK may still be heard for a while.
    AudioUnsettled,
    /// UDPTL, and no other endpoints are in force.
    Fax,
}

/// What stands in a scenario instead of the lab's plan.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Where the callee itself takes SIP, if the caller talks to a proxy instead.
    pub behind_proxy: Option<SocketAddr>,
    /// The media endpoints of the scenario's agent, by [`Slot`].
    pub media: [SocketAddr; 2],
}

/// The SIPp scenario of one role.
#[must_use]
pub fn xml(turns: &[Turn], role: Role, addresses: Addresses) -> String {
    let mut writer = Writer {
        role,
        addresses,
        text: String::new(),
        heard: None,
        cseq: 0,
        failed: false,
        answered: false,
    };
    let mut talks = 0;
    for (index, turn) in turns.iter().enumerate() {
        match *turn {
            Turn::Say(by, what, sdp) if by == role => writer.send(what, sdp),
            Turn::Say(_, what, _) => writer.receive(what, index == 0),
            Turn::Talk(..) => {
                let next = turns[index..].iter().find_map(|turn| match turn {
                    Turn::Say(by, ..) => Some(*by),
                    Turn::Talk(..) => None,
                });
                if next == Some(role) {
                    writer.pause(talks);
                }
                talks += 1;
            }
        }
    }
    writer.finish()
}

struct Writer {
    role: Role,
    addresses: Addresses,
    text: String,
    /// The request that was received last, which `[last_…]` refers to.
    heard: Option<Method>,
    cseq: u32,
    /// Whether the last response to an INVITE was a refusal, whose ACK belongs to the INVITE's transaction (RFC 3261 §17.1.1.3).
    failed: bool,
    /// Whether the first INVITE has its final answer: from then on To has a tag.
    answered: bool,
}

impl Writer {
    fn pause(&mut self, number: usize) {
        self.text += &format!(
            "<nop><action><log message=\"talk {number}\"/></action></nop>\n<pause milliseconds=\"{PAUSE}\"/>\n"
        );
    }

    fn receive(&mut self, what: What, first: bool) {
        match what {
            What::Request(method) => {
                let actions = if first {
                    ["Via", "From", "To", "CSeq"]
                        .map(|header| {
                            format!(
                                "<ereg regexp=\"(.*)\" search_in=\"hdr\" header=\"{header}:\" assign_to=\"whole,{}\"/>",
                                header.to_lowercase()
                            )
                        })
                        .join("\n")
                } else {
                    String::new()
                };
                let _ = writeln!(
                    self.text,
                    "<recv request=\"{}\" rrs=\"true\"><action>{actions}<log message=\"got\"/></action></recv>",
                    method.word()
                );
                if method != Method::Ack {
                    self.heard = Some(method);
                }
            }
            What::Response(code, method) => {
                if method == Method::Invite {
                    self.text += "<recv response=\"100\" optional=\"true\"/>\n";
                    self.failed = code >= 300;
                }
                let _ = writeln!(self.text, "<recv response=\"{code}\" rrs=\"true\"/>");
            }
        }
    }

    fn send(&mut self, what: What, sdp: Option<Sdp>) {
        let (retransmitted, head) = match what {
            What::Request(method) => (method != Method::Ack, self.request(method)),
            What::Response(code, method) => (
                method == Method::Invite && code != 180,
                self.response(code, method),
            ),
        };
        let body = sdp.map(|sdp| self.body(sdp)).unwrap_or_default();
        let kind = if sdp.is_some() {
            "Content-Type: application/sdp\n"
        } else {
            ""
        };
        let again = if retransmitted {
            " retrans=\"500\""
        } else {
            ""
        };
        let _ = writeln!(
            self.text,
            "<send{again}><![CDATA[\n\n{head}{kind}Content-Length: [len]\n\n{body}]]></send>"
        );
    }

    fn request(&mut self, method: Method) -> String {
        if method != Method::Ack {
            self.cseq += 1;
        }
        let (word, cseq) = (method.word(), self.cseq);
        let first = self.role == Role::Caller && method == Method::Invite && cseq == 1;
        let callee = self.addresses.behind_proxy.map_or_else(
            || "sip:callee@[remote_ip]:[remote_port]".to_owned(),
            |at| format!("sip:callee@{at}"),
        );
        let uri = if first {
            callee.clone()
        } else {
            "[next_url]".to_owned()
        };
        let routes = if first { "" } else { "[routes]\n" };
        let (from, to) = match self.role {
            Role::Caller => (
                "From: <sip:caller@[local_ip]:[local_port]>;tag=[pid]uac[call_number]",
                format!(
                    "To: <{callee}>{}",
                    if first { "" } else { "[peer_tag_param]" }
                ),
            ),
            Role::Callee => (
                "From:[$to];tag=[pid]uas[call_number]",
                "To:[$from]".to_owned(),
            ),
        };
        let branch = match method {
            Method::Ack if self.failed => "INVITE",
            other => other.word(),
        };
        let side = if self.role == Role::Caller { "r" } else { "e" };
        let more = match method {
            Method::Invite => "Supported: 100rel\nAllow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE\n",
            Method::Prack => "RAck: 1 1 INVITE\n",
            _ => "",
        };
        format!(
            "{word} {uri} SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK[pid]{side}{branch}{cseq}\n\
             {routes}{from}\n{to}\nCall-ID: [call_id]\nCSeq: {cseq} {word}\n\
             Contact: <sip:lab@[local_ip]:[local_port];transport=[transport]>\nMax-Forwards: 70\n{more}"
        )
    }

    fn response(&mut self, code: u16, method: Method) -> String {
        let reason = match code {
            180 => "Ringing",
            183 => "Session Progress",
            488 => "Not Acceptable Here",
            _ => "OK",
        };
        // A PRACK or UPDATE may have come in between; then only what was kept of the INVITE will do.
        let (via, from, cseq) = if self.heard == Some(method) || self.role == Role::Caller {
            ("[last_Via:]", "[last_From:]", "[last_CSeq:]")
        } else {
            ("Via:[$via]", "From:[$from]", "CSeq:[$cseq]")
        };
        // The first INVITE has no tag in To yet; whatever comes later does.
        let to = if method == Method::Invite && self.role == Role::Callee && !self.answered {
            "To:[$to];tag=[pid]uas[call_number]"
        } else {
            "[last_To:]"
        };
        let record_route = if to.contains("$to") {
            "[last_Record-Route:]\n"
        } else {
            ""
        };
        let reliable = if code == 183 {
            "Require: 100rel\nRSeq: 1\n"
        } else {
            ""
        };
        self.answered |= code >= 200 && method == Method::Invite;
        format!(
            "SIP/2.0 {code} {reason}\n{via}\n{record_route}{from}\n{to}\n[last_Call-ID:]\n{cseq}\n\
             Contact: <sip:lab@[local_ip]:[local_port];transport=[transport]>\n\
             Allow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE\n{reliable}"
        )
    }

    fn body(&self, sdp: Sdp) -> String {
        let at = self.addresses.media[sdp.slot as usize];
        let kind = if at.is_ipv4() { "IP4" } else { "IP6" };
        let nobody = if at.is_ipv4() { "0.0.0.0" } else { "::" };
        // Greater than in the SDP before it (RFC 3264 §8).
        let version = self.text.len();
        let address = match sdp.media {
            Media::AudioToNobody => nobody.to_owned(),
            _ => at.ip().to_string(),
        };
        let media = match sdp.media {
            Media::Audio(direction) => audio(at.port(), direction),
            Media::AudioToNobody => audio(at.port(), "sendrecv"),
            Media::Fax => format!(
                "m=image {} udptl t38\na=T38FaxVersion:0\na=T38MaxBitRate:14400\na=T38FaxUdpEC:t38UDPRedundancy\n",
                at.port()
            ),
        };
        format!(
            "v=0\no=lab 1 {version} IN {kind} {ip}\ns=-\nc=IN {kind} {address}\nt=0 0\n{media}",
            ip = at.ip()
        )
    }

    /// Nobody leaves at once: over TCP that would take the connection away from a peer who is not done yet.
    fn finish(self) -> String {
        let saved = match self.role {
            Role::Caller => "",
            Role::Callee => "<Reference variables=\"whole,via,from,to,cseq\"/>\n",
        };
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE scenario SYSTEM \"sipp.dtd\">\n<scenario name=\"lab\">\n{}\
             <nop><action><log message=\"ended\"/></action></nop>\n<pause milliseconds=\"{PAUSE}\"/>\n{saved}</scenario>\n",
            self.text
        )
    }
}

fn audio(port: u16, direction: &str) -> String {
    format!(
        "m=audio {port} RTP/AVP 0 101\na=rtpmap:0 PCMU/8000\na=rtpmap:101 telephone-event/8000\na=ptime:20\na={direction}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURNS: [Turn; 5] = [
        Turn::Say(Role::Caller, What::Request(Method::Invite), None),
        Turn::Say(
            Role::Callee,
            What::Response(200, Method::Invite),
            Some(Sdp {
                slot: Slot::Moved,
                media: Media::AudioToNobody,
            }),
        ),
        Turn::Say(Role::Caller, What::Request(Method::Ack), None),
        Turn::Talk(Slot::First, Slot::First, Sound::Audio),
        Turn::Say(Role::Caller, What::Request(Method::Bye), None),
    ];

    #[test]
    fn a_conversation_has_two_sides() {
        let addresses = Addresses {
            behind_proxy: Some("203.0.113.10:5060".parse().unwrap()),
            media: [
                "203.0.113.10:10000".parse().unwrap(),
                "203.0.113.10:10004".parse().unwrap(),
            ],
        };
        let caller = xml(&TURNS, Role::Caller, addresses);
        let callee = xml(&TURNS, Role::Callee, addresses);
        let order = |text: &str, words: &[&str]| {
            let mut rest = text;
            for word in words {
                let at = rest.find(word).unwrap_or_else(|| panic!("{word}: {text}"));
                rest = &rest[at..];
            }
        };
        order(
            &caller,
            &[
                "INVITE sip:callee@203.0.113.10:5060",
                "recv response=\"200\"",
                "ACK [next_url]",
                "talk 0",
                "<pause",
                "CSeq: 2 BYE",
            ],
        );
        order(
            &callee,
            &[
                "recv request=\"INVITE\"",
                "SIP/2.0 200 OK",
                "c=IN IP4 0.0.0.0",
                "m=audio 10004",
                "recv request=\"ACK\"",
                "recv request=\"BYE\"",
            ],
        );
        assert!(!callee.contains("talk"), "only who speaks next waits");
    }
}
