//! One SIP message as calls see it: who sent it, whose request it is or answers, and what it may change.
//!
//! It borrows the text of the parsed message and copies nothing. It reads no body (`session` does) and decides nothing.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::engine::{
    Direction,
    pinhole::Label,
    sip::{Message, Method, MethodName, Related, Start},
};

/// The longest Call-ID, tag or branch that a call will remember. RFC 3261 sets no limit; real ones stay below a hundred bytes.
pub const MAX_IDENTIFIER: usize = 256;

/// The key of every hash over text that a peer chose, so that nobody can aim collisions at a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u64; 2]);

impl HashKey {
    /// Hashes some bytes.
    pub fn hash(self, bytes: &[u8]) -> u64 {
        let [first, second] = self.0;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        hasher.write(bytes);
        hasher.finish()
    }

    /// The label of the call with this Call-ID whose inviting side has this tag. A Call-ID that passes twice is two calls, told apart by
    /// the inviting side.
    pub fn label(self, inviter: Direction, call_id: &str, tag: Option<&str>) -> Label {
        let [first, second] = self.0;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        hasher.write_u8(match inviter {
            Direction::Ingress => 1,
            Direction::Egress => 2,
        });
        hasher.write(call_id.as_bytes());
        // No byte of text is zero in a header that was read.
        hasher.write_u8(0);
        hasher.write(tag.unwrap_or_default().as_bytes());
        Label(hasher.finish().max(1))
    }
}

/// The methods that move dialogs or media, and those that a call's record tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// RFC 3261 §13, §14.
    Invite,
    /// RFC 3261 §13.2.2.4.
    Ack,
    /// RFC 3261 §15.
    Bye,
    /// RFC 3261 §9.
    Cancel,
    /// RFC 3262.
    Prack,
    /// RFC 3311.
    Update,
    /// It moves nothing.
    Aside(Aside),
}

/// Methods inside a call that change neither its dialogs nor its media, and yet explain what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// RFC 3515: asks for another call, whose INVITE is what counts.
    Refer,
    /// RFC 6665: how a REFER goes on.
    Notify,
    /// RFC 6086: DTMF, mostly.
    Info,
}

impl Verb {
    /// `None` for every method that no call needs to know of.
    pub fn of(method: &MethodName<'_>) -> Option<Self> {
        match method {
            MethodName::Known(Method::Invite) => Some(Self::Invite),
            MethodName::Known(Method::Ack) => Some(Self::Ack),
            MethodName::Known(Method::Bye) => Some(Self::Bye),
            MethodName::Known(Method::Cancel) => Some(Self::Cancel),
            MethodName::Known(Method::PRack) => Some(Self::Prack),
            MethodName::Known(Method::Update) => Some(Self::Update),
            MethodName::Known(Method::Refer) => Some(Self::Aside(Aside::Refer)),
            MethodName::Known(Method::Notify) => Some(Self::Aside(Aside::Notify)),
            MethodName::Known(Method::Info) => Some(Self::Aside(Aside::Info)),
            MethodName::Known(_) | MethodName::Other(_) => None,
        }
    }

    /// The method as SIP writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Prack => "PRACK",
            Self::Update => "UPDATE",
            Self::Aside(Aside::Refer) => "REFER",
            Self::Aside(Aside::Notify) => "NOTIFY",
            Self::Aside(Aside::Info) => "INFO",
        }
    }
}

/// Request, or response with its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A request.
    Request,
    /// A response: its status code.
    Response(u16),
}

/// A Via branch, hashed: what a response must repeat to be the request's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch(u64);

/// One message, sorted.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Who sent it.
    pub sender: Direction,
    /// Request or response.
    pub form: Form,
    /// Its method, or the method that it answers.
    pub verb: Verb,
    /// Its CSeq number.
    pub cseq: u32,
    /// The topmost Via's branch.
    pub branch: Option<Branch>,
    /// Call-ID.
    pub call_id: &'a str,
    /// The tag of the request's sender.
    pub from_tag: Option<&'a str>,
    /// The tag of the request's recipient, once there is one.
    pub to_tag: Option<&'a str>,
    /// The SDP.
    pub sdp: Option<&'a [u8]>,
    /// How long the session lasts without a refresh, in seconds.
    pub session_expires: Option<u32>,
    /// The provider's own name for the call.
    pub provider_call_id: Option<(&'a str, &'a str)>,
    /// Other calls that it names.
    pub related: &'a Related<'a>,
}

/// An identifier is longer than [`MAX_IDENTIFIER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oversized;

impl<'a> Seen<'a> {
    /// Sorts a message; `None` if its method is of no concern.
    ///
    /// # Errors
    /// [`Oversized`] if it carries an identifier that no call would remember.
    pub fn read(
        message: &'a Message<'a>,
        sender: Direction,
        key: HashKey,
    ) -> Result<Option<Self>, Oversized> {
        let form = match &message.start {
            Start::Request(_) => Form::Request,
            Start::Response(status) => Form::Response(*status),
        };
        let method = match &message.start {
            Start::Request(method) => method,
            Start::Response(_) => &message.cseq.method,
        };
        let Some(verb) = Verb::of(method) else {
            return Ok(None);
        };
        let from_tag = message.from_tag.as_deref();
        let to_tag = message.to_tag.as_deref();
        let branch = message.branch.as_deref();
        let call_id = message.call_id.as_ref();
        if [Some(call_id), from_tag, to_tag, branch]
            .into_iter()
            .flatten()
            .any(|text| text.len() > MAX_IDENTIFIER)
        {
            return match verb {
                Verb::Aside(_) => Ok(None),
                _ => Err(Oversized),
            };
        }
        Ok(Some(Self {
            sender,
            form,
            verb,
            cseq: message.cseq.number,
            branch: branch.map(|text| Branch(key.hash(text.as_bytes()))),
            call_id,
            from_tag,
            to_tag,
            sdp: message.sdp,
            session_expires: message.session_expires,
            provider_call_id: message
                .provider_call_id
                .as_ref()
                .map(|(name, value)| (name.as_ref(), value.as_ref())),
            related: &message.related,
        }))
    }

    /// Who sent the request that this is, or that this answers.
    pub fn requester(&self) -> Direction {
        match self.form {
            Form::Request => self.sender,
            Form::Response(_) => self.sender.opposite(),
        }
    }

    /// What the call that this message belongs to may be labelled: who sent its INVITE cannot be told from every message.
    pub fn labels(&self, key: HashKey) -> [Label; 2] {
        [Direction::Ingress, Direction::Egress]
            .map(|inviter| key.label(inviter, self.call_id, self.tag_of(inviter)))
    }

    /// The tag that this message gives to the party on that side.
    pub fn tag_of(&self, side: Direction) -> Option<&'a str> {
        if side == self.requester() {
            self.from_tag
        } else {
            self.to_tag
        }
    }
}
