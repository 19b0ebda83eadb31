//! One conversation, written once, as the two SIPp scenarios of its caller and callee.
//!
//! A conversation is a list of turns: who says what, with which SDP, and where the lab may talk. Only what the cases of offer and
//! answer need is here (RFC 3261, RFC 3262, RFC 3264, RFC 3311, RFC 3515, RFC 3891); nothing is sent or started. It may have several
//! calls, and a call several forks, but only two processes: one of them plays every caller, the other every callee.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
};

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
    /// Audio in the first slot and video in the moved one, whichever is named.
    AudioAndVideo,
    /// The same once video is gone.
    VideoRemoved,
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
    Refer,
    Notify,
    Cancel,
    Bye,
}

impl Method {
    fn word(self) -> &'static str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Prack => "PRACK",
            Self::Update => "UPDATE",
            Self::Refer => "REFER",
            Self::Notify => "NOTIFY",
            Self::Cancel => "CANCEL",
            Self::Bye => "BYE",
        }
    }
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A request; the first INVITE of a call is its caller's.
    Request(Method),
    /// A response to the latest request of that method. A 183 is reliable (RFC 3262), whether or not a PRACK follows.
    Response(u16, Method),
    /// A 183 that is not reliable.
    Preview,
}

/// A step of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A message.
    Say(Role, What, Option<Sdp>),
    /// What follows belongs to this dialog.
    In(Dialog),
    /// The lab may talk: to the caller's endpoint and to the callee's.
    Talk(Slot, Slot, Sound),
}

/// One of a conversation's dialogs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dialog {
    /// Which call, from 0; each has a Call-ID of its own.
    pub call: u8,
    /// Which of the callee's tags.
    pub fork: char,
    /// Which call its INVITE replaces (RFC 3891).
    pub replaces: Option<u8>,
}

impl Dialog {
    /// A conversation's first.
    pub const FIRST: Self = Self::of_call(0);

    /// A call's first.
    #[must_use]
    pub const fn of_call(call: u8) -> Self {
        Self {
            call,
            fork: 'a',
            replaces: None,
        }
    }

    fn call_id(self) -> String {
        Self::call_id_of(self.call)
    }

    /// SIPp takes what stands before `///` for no part of its own call's identifier.
    fn call_id_of(call: u8) -> String {
        match call {
            0 => "[call_id]".to_owned(),
            _ => format!("call-{call}///[call_id]"),
        }
    }

    fn tag(self) -> String {
        format!("callee-{}", self.fork)
    }
}

/// What is to be heard at a [`Turn::Talk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sound {
    /// Audio, and no other endpoints are in force.
    Audio,
    /// Audio; other endpoints may be in force as well: another dialog's, or for a while what was in force before an answer without an ACK.
    AudioUnsettled,
    /// Audio, and the other pair of endpoints is in force as well.
    AudioBesideVideo,
    /// Video, and the other pair of endpoints is in force as well.
    Video,
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
        saved: BTreeSet::new(),
        last: None,
        dialog: Dialog::FIRST,
        calls: BTreeMap::new(),
        challenge: None,
    };
    let mut talks = 0;
    for (index, turn) in turns.iter().enumerate() {
        let next = |from: usize| {
            turns[from..].iter().find_map(|turn| match turn {
                Turn::Say(by, what, _) => Some((*by, *what)),
                Turn::In(_) | Turn::Talk(..) => None,
            })
        };
        match *turn {
            // SIPp repeats a message until it is answered, and says nothing else meanwhile.
            Turn::Say(by, what, sdp) if by == role => {
                let is_answered = next(index + 1).is_some_and(|(by, answer)| {
                    let is_request = |what| matches!(what, What::Request(_));
                    by != role && is_request(what) != is_request(answer)
                });
                writer.send(what, sdp, is_answered);
            }
            Turn::Say(_, what, _) => writer.receive(what),
            Turn::In(dialog) => writer.dialog = dialog,
            Turn::Talk(..) => {
                if next(index).is_some_and(|(by, _)| by == role) {
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
    /// SIPp's variables that are in use.
    saved: BTreeSet<String>,
    /// The request that was received last, if nothing else was since: then `[last_…]` refers to it.
    last: Option<Method>,
    dialog: Dialog,
    calls: BTreeMap<u8, Call>,
    /// The header field that answers the last challenge (RFC 3261 §22).
    challenge: Option<&'static str>,
}

/// What an agent remembers of a call.
#[derive(Default)]
struct Call {
    cseq: u32,
    /// That of its own last INVITE, which ACK and CANCEL repeat (RFC 3261 §13.2.2.4, §9.1).
    invite: u32,
    /// Whether the last response to an INVITE was a refusal, whose ACK belongs to the INVITE's transaction (RFC 3261 §17.1.1.3).
    failed: bool,
    /// Whether an INVITE has been answered with a 2xx: the next one is a re-INVITE.
    answered: bool,
    /// Whether the last INVITE that was received was one.
    again: bool,
}

impl Call {
    fn handle_response(&mut self, code: u16, method: Method) {
        if method == Method::Invite {
            self.failed = code >= 300;
            self.answered |= (200..300).contains(&code);
        }
    }
}

impl Writer {
    fn call(&mut self) -> &mut Call {
        self.calls.entry(self.dialog.call).or_default()
    }

    fn pause(&mut self, number: usize) {
        self.text += &format!(
            "<nop><action><log message=\"talk {number}\"/></action></nop>\n<pause milliseconds=\"{PAUSE}\"/>\n"
        );
    }

    fn receive(&mut self, what: What) {
        match what {
            What::Request(method) => {
                let actions = if method == Method::Invite {
                    let call = self.call();
                    call.again = call.answered;
                    let prefix = if call.again { "again_" } else { "" };
                    ["Via", "From", "To", "CSeq"]
                        .map(|header| {
                            let variable = format!("{prefix}{}", header.to_lowercase());
                            let action = format!(
                                "<ereg regexp=\"(.*)\" search_in=\"hdr\" header=\"{header}:\" assign_to=\"whole,{variable}\"/>",
                            );
                            self.saved.extend(["whole".to_owned(), variable]);
                            action
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
                self.last = Some(method);
            }
            What::Response(code, method) => self.receive_response(code, method),
            What::Preview => self.receive_response(183, Method::Invite),
        }
    }

    fn receive_response(&mut self, code: u16, method: Method) {
        if method == Method::Invite {
            self.text += "<recv response=\"100\" optional=\"true\"/>\n";
        }
        self.call().handle_response(code, method);
        self.challenge = match code {
            401 => Some("Authorization"),
            407 => Some("Proxy-Authorization"),
            _ => self.challenge,
        };
        self.last = None;
        let _ = writeln!(self.text, "<recv response=\"{code}\" rrs=\"true\"/>");
    }

    fn send(&mut self, what: What, sdp: Option<Sdp>, is_answered: bool) {
        let (retransmitted, head) = match what {
            What::Request(method) => (method != Method::Ack, self.request(method)),
            What::Response(code, method) => (
                method == Method::Invite && code != 180,
                self.response(code, method, code == 183),
            ),
            What::Preview => (false, self.response(183, Method::Invite, false)),
        };
        let (kind, body) = match (what, sdp) {
            (_, Some(sdp)) => ("Content-Type: application/sdp\n", self.body(sdp)),
            // RFC 3515 §2.4.5.
            (What::Request(Method::Notify), None) => (
                "Content-Type: message/sipfrag\n",
                "SIP/2.0 100 Trying\n".to_owned(),
            ),
            (_, None) => ("", String::new()),
        };
        let again = if retransmitted && is_answered {
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
        let role = self.role;
        let dialog = self.dialog;
        let call = self.call();
        let cseq = match method {
            Method::Ack | Method::Cancel => call.invite,
            _ => {
                call.cseq += 1;
                call.cseq
            }
        };
        if method == Method::Invite {
            call.invite = cseq;
        }
        let word = method.word();
        // What goes to where the call's first INVITE went (RFC 3261 §9.1, §17.1.1.3).
        let first = role == Role::Caller
            && match method {
                Method::Invite => !call.answered,
                Method::Cancel => true,
                Method::Ack => call.failed && !call.answered,
                _ => false,
            };
        let has_tag = !first || method == Method::Ack;
        let branch = match method {
            Method::Ack if call.failed => "INVITE",
            Method::Cancel => "INVITE",
            other => other.word(),
        };
        let callee = self.addresses.behind_proxy.map_or_else(
            || "sip:callee@[remote_ip]:[remote_port]".to_owned(),
            |at| format!("sip:callee@{at}"),
        );
        let (uri, routes) = if first {
            (callee.clone(), "")
        } else {
            ("[next_url]".to_owned(), "[routes]\n")
        };
        let tag = dialog.tag();
        let (from, to) = match role {
            Role::Caller => (
                "From: <sip:caller@[local_ip]:[local_port]>;tag=[pid]uac[call_number]".to_owned(),
                if has_tag {
                    format!("To: <{callee}>;tag={tag}")
                } else {
                    format!("To: <{callee}>")
                },
            ),
            Role::Callee => (format!("From:[$to];tag={tag}"), "To:[$from]".to_owned()),
        };
        let side = if role == Role::Caller { "r" } else { "e" };
        let more = self.more(method);
        format!(
            "{word} {uri} SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK[pid]{side}{call_number}{fork}{branch}{cseq}\n\
             {routes}{from}\n{to}\nCall-ID: {call_id}\nCSeq: {cseq} {word}\n\
             Contact: <sip:lab@[local_ip]:[local_port];transport=[transport]>\nMax-Forwards: 70\n{more}",
            call_number = dialog.call,
            // A transaction of its own for each fork's ACK, but not for what belongs to the INVITE's.
            fork = if branch == "INVITE" {
                String::new()
            } else {
                dialog.fork.to_string()
            },
            call_id = dialog.call_id(),
        )
    }

    /// What only requests of this method carry.
    fn more(&self, method: Method) -> String {
        match method {
            Method::Invite => {
                let replaces = self.dialog.replaces.map_or_else(String::new, |call| {
                    format!(
                        "Replaces: {};to-tag={};from-tag=[pid]uac[call_number]\n",
                        Dialog::call_id_of(call),
                        Dialog::of_call(call).tag()
                    )
                });
                let credentials = self.challenge.map_or_else(String::new, |header| {
                    format!(
                        "{header}: Digest username=\"lab\", realm=\"lab\", nonce=\"1\", uri=\"sip:lab\", response=\"00000000000000000000000000000000\"\n"
                    )
                });
                format!(
                    "Supported: 100rel\nAllow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE\n{replaces}{credentials}"
                )
            }
            Method::Prack => "RAck: 1 1 INVITE\n".to_owned(),
            Method::Refer => "Refer-To: <sip:lab@[local_ip]:[local_port]>\n".to_owned(),
            Method::Notify => "Event: refer\nSubscription-State: active;expires=60\n".to_owned(),
            Method::Ack | Method::Update | Method::Cancel | Method::Bye => String::new(),
        }
    }

    fn response(&mut self, code: u16, method: Method, reliable: bool) -> String {
        let reason = match code {
            180 => "Ringing",
            183 => "Session Progress",
            202 => "Accepted",
            302 => "Moved Temporarily",
            401 => "Unauthorized",
            407 => "Proxy Authentication Required",
            487 => "Request Terminated",
            488 => "Not Acceptable Here",
            491 => "Request Pending",
            _ => "OK",
        };
        let tag = self.dialog.tag();
        let is_last = self.last == Some(method);
        let again = self.call().again;
        self.call().handle_response(code, method);
        // Something else may have come in since the INVITE; then only what was kept of it will do.
        let (via, from, cseq) = match (is_last, again) {
            (true, _) => ("[last_Via:]", "[last_From:]", "[last_CSeq:]"),
            (false, true) => (
                "Via:[$again_via]",
                "From:[$again_from]",
                "CSeq:[$again_cseq]",
            ),
            (false, false) => ("Via:[$via]", "From:[$from]", "CSeq:[$cseq]"),
        };
        // The first INVITE and its CANCEL have no tag in To; whatever comes later does.
        let to = match method {
            Method::Invite if !again => format!("To:[$to];tag={tag}"),
            Method::Invite if !is_last => "To:[$again_to]".to_owned(),
            Method::Cancel => format!("[last_To:];tag={tag}"),
            _ => "[last_To:]".to_owned(),
        };
        let record_route = if to.contains("$to") {
            "[last_Record-Route:]\n"
        } else {
            ""
        };
        let more = match code {
            183 if reliable => "Require: 100rel\nRSeq: 1\n",
            401 => "WWW-Authenticate: Digest realm=\"lab\", nonce=\"1\"\n",
            407 => "Proxy-Authenticate: Digest realm=\"lab\", nonce=\"1\"\n",
            _ => "",
        };
        format!(
            "SIP/2.0 {code} {reason}\n{via}\n{record_route}{from}\n{to}\nCall-ID: {call_id}\n{cseq}\n\
             Contact: <sip:lab@[local_ip]:[local_port];transport=[transport]>\n\
             Allow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE\n{more}",
            call_id = self.dialog.call_id(),
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
            Media::AudioAndVideo | Media::VideoRemoved => {
                let [first, moved] = self.addresses.media;
                let video = if sdp.media == Media::AudioAndVideo {
                    moved.port()
                } else {
                    0
                };
                // The section's own address goes before the session's (RFC 8866 §5.7).
                format!(
                    "{}m=video {video} RTP/AVP 34\nc=IN {kind} {}\na=rtpmap:34 H263/90000\n",
                    audio(first.port(), "sendrecv"),
                    moved.ip()
                )
            }
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
        // SIPp complains of variables that nothing refers to.
        let saved = if self.saved.is_empty() {
            String::new()
        } else {
            let names: Vec<_> = self.saved.into_iter().collect();
            format!("<Reference variables=\"{}\"/>\n", names.join(","))
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
