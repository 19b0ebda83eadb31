//! What the two agents of a call know: transactions, dialogs, and in each dialog each side's view of what is negotiated.
//!
//! Only data and the rules of offer and answer (RFC 3264); who sends what when is `agents`' matter.

use std::{net::SocketAddr, time::Duration};

use crate::{
    tcp::LinkId,
    wire::{Component, Desc, Hold, Medium, Shape, Side},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub usize);

/// A dialog of a call, by its place in [`Call::dialogs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialogId(pub usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Invite,
    Update,
    Bye,
    Cancel,
    /// RFC 3262.
    Prack,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Self::Invite => "INVITE",
            Self::Update => "UPDATE",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Prack => "PRACK",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Request,
    Response(u16),
    /// To this status.
    Ack(u16),
}

/// One SIP message in its structured form.
#[derive(Debug, Clone)]
pub struct Msg {
    pub tx: TxId,
    pub form: Form,
    pub dialog: Option<DialogId>,
    pub sdp: Option<Desc>,
    /// A provisional response that is repeated until its PRACK arrives (RFC 3262).
    pub is_reliable: bool,
}

/// What a request says about media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Nothing,
    Offer(Desc),
    /// Only in a PRACK: to the offer of a reliable provisional response.
    Answer(Desc),
}

impl Body {
    pub fn of(offer: Option<Desc>) -> Self {
        offer.map_or(Self::Nothing, Self::Offer)
    }

    pub fn offer(&self) -> Option<&Desc> {
        match self {
            Self::Offer(offer) => Some(offer),
            Self::Nothing | Self::Answer(_) => None,
        }
    }

    pub fn sdp(&self) -> Option<&Desc> {
        match self {
            Self::Offer(desc) | Self::Answer(desc) => Some(desc),
            Self::Nothing => None,
        }
    }
}

/// A response that is repeated until its ACK, or its PRACK, arrives.
#[derive(Debug, Clone)]
pub struct Final {
    pub msg: Msg,
    pub status: u16,
    pub acked: bool,
}

/// One transaction, both halves.
#[derive(Debug)]
pub struct Tx {
    pub call: CallId,
    pub dialog: Option<DialogId>,
    pub by: Side,
    pub method: Method,
    pub cseq: u32,
    pub branch: String,
    pub body: Body,
    /// The client: has it had any response, has it had a final one, what ACKs did it send?
    pub answered: bool,
    pub done: bool,
    pub acks: Vec<Msg>,
    /// The server.
    pub seen: bool,
    pub provisionals: Vec<Msg>,
    pub finals: Vec<Final>,
    /// One for each dialog at most.
    pub reliables: Vec<Final>,
    pub cancelled: bool,
}

impl Tx {
    /// A transaction that nobody has heard of yet.
    pub fn new(
        call: CallId,
        dialog: Option<DialogId>,
        by: Side,
        (method, cseq): (Method, u32),
        branch: String,
        body: Body,
    ) -> Self {
        Self {
            call,
            dialog,
            by,
            method,
            cseq,
            branch,
            body,
            answered: false,
            done: false,
            acks: Vec::new(),
            seen: false,
            provisionals: Vec::new(),
            finals: Vec::new(),
            reliables: Vec::new(),
            cancelled: false,
        }
    }
}

/// One side's view of one dialog.
#[derive(Debug, Default)]
pub struct End {
    pub exists: bool,
    pub alive: bool,
    pub confirmed: bool,
    /// The first offer is answered for good though the call still rings: it may be changed by UPDATE (RFC 3311).
    pub early: bool,
    /// An offer of either side is under way.
    pub busy: bool,
    /// My description in force: where I send from.
    pub mine: Option<Desc>,
    /// The other side's, as far as I know: where I send to.
    pub peer: Option<Desc>,
    /// My offer that has no answer yet.
    pub offered: Option<Desc>,
    /// Mine that may still be used: where I am ready to receive.
    pub listen: Vec<Desc>,
    /// The other side's that may still be used: from where I expect media.
    pub heard: Vec<Desc>,
    /// My answer to an UPDATE may not have arrived: an ACK, which is for an INVITE's, proves nothing of it.
    pub unproven: bool,
}

impl End {
    pub fn send_offer(&mut self, offer: Desc) {
        self.offered = Some(offer.clone());
        self.listen.push(offer);
        self.busy = true;
    }

    /// I answer: what was agreed before holds until the other side has my answer.
    pub fn answer(&mut self, offer: Desc, answer: Desc) {
        self.listen.retain(|desc| Some(desc) == self.mine.as_ref());
        self.listen.push(answer.clone());
        self.heard.retain(|desc| Some(desc) == self.peer.as_ref());
        self.heard.push(offer.clone());
        self.mine = Some(answer);
        self.peer = Some(offer);
        // Who offers has had the last answer.
        self.unproven = false;
    }

    /// The other side answers my offer.
    pub fn take_answer(&mut self, answer: Desc) {
        if let Some(offer) = self.offered.take() {
            self.mine = Some(offer);
        }
        self.peer = Some(answer);
        self.settle();
    }

    /// What was agreed before is history.
    pub fn settle(&mut self) {
        self.unproven = false;
        self.listen = self.mine.iter().chain(&self.offered).cloned().collect();
        self.heard = self.peer.iter().cloned().collect();
    }

    /// My offer is refused.
    pub fn take_rejection(&mut self) {
        self.offered = None;
        self.busy = false;
        self.settle();
    }

    pub fn die(&mut self) {
        *self = Self {
            exists: true,
            ..Self::default()
        };
    }

    /// Where I send media from and to, and what, if I may.
    pub fn flow(
        &self,
        stream: usize,
        component: Component,
    ) -> Option<(SocketAddr, SocketAddr, Medium)> {
        let (mine, peer) = (self.mine.as_ref()?, self.peer.as_ref()?);
        if !self.alive || peer.hold == Hold::NoAddress {
            return None;
        }
        let component = match component {
            Component::Rtcp if mine.mux && peer.mux => Component::Rtp,
            component => component,
        };
        let (from, medium) = mine.socket(stream, component)?;
        let (to, _) = peer.socket(stream, component)?;
        Some((from, to, medium))
    }

    /// Whether I am ready for a packet here, from this address.
    pub fn expects(&self, destination: SocketAddr, source: SocketAddr, shape: Shape) -> bool {
        self.alive
            && self
                .listen
                .iter()
                .any(|desc| desc.hold != Hold::NoAddress && desc.names(destination, shape))
            && self.heard.iter().any(|desc| desc.names(source, shape))
    }
}

#[derive(Debug, Default)]
pub struct Dialog {
    pub tag: String,
    pub ends: [End; 2],
}

impl Dialog {
    pub fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }
}

/// What a call is going to be like, drawn at its start.
#[derive(Debug, Clone)]
pub struct Plan {
    pub caller: Side,
    pub provider: usize,
    pub v6: bool,
    pub forks: usize,
    pub double_answer: bool,
    pub challenge: bool,
    pub early: bool,
    pub reject: bool,
    pub delayed: bool,
    pub cancel_after: Option<Duration>,
    pub changes: usize,
    pub streams: usize,
    pub mux: bool,
    /// Provisional responses want a PRACK.
    pub reliable: bool,
}

#[derive(Debug)]
pub struct Call {
    pub plan: Plan,
    pub call_id: String,
    pub from_tag: String,
    pub cseq: [u32; 2],
    /// The TCP connection that carries its SIP, if not UDP does.
    pub link: Option<LinkId>,
    pub first: Option<TxId>,
    pub dialogs: Vec<Dialog>,
    pub cancelled: bool,
    /// Its INVITE has crossed the edge: from then on an attacker may know of it.
    pub known: bool,
    /// The filter cannot have followed: captures were lost, or it restarted.
    pub tainted: bool,
}
