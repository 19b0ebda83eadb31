//! What may pass, by what has crossed the edge: the upper bound of the design's promises 1 and 3.
//!
//! It reads the structured messages as they cross, never their text, and knows nothing of the engine. The lower bound (promise 2) is
//! asked of the agents themselves, who know what they have agreed on.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use crate::{
    call::{Call, CallId, DialogId, Form, Method, Msg, Tx},
    wire::{Desc, Shape, Side},
};

/// How long after it was replaced a description may still let media in: as long as the answer that replaced it may be repeated
/// (RFC 3261 §13.3.1.4: 64*T1), and some.
const GRACE: Duration = Duration::from_secs(40);

/// What the configuration says of a provider, as far as it widens or narrows what SDP may open.
#[derive(Debug, Clone)]
pub struct Rule {
    pub prefixes: Vec<IpNet>,
    /// Sources are the prefixes, whatever the SDP says.
    pub by_prefix: bool,
    /// The prefixes may send once the PBX's offer is out.
    pub on_offer: bool,
}

#[derive(Debug, Default)]
pub struct Shadow {
    calls: Vec<Shade>,
}

#[derive(Debug, Default)]
struct Shade {
    descriptions: Vec<Described>,
    over: bool,
    dialogs_over: Vec<DialogId>,
}

#[derive(Debug)]
struct Described {
    side: Side,
    /// `None`: the first INVITE's offer, which every dialog shares.
    dialog: Option<DialogId>,
    desc: Desc,
    replaced: Option<Duration>,
}

impl Shadow {
    /// A genuine message crosses the edge.
    pub fn cross(&mut self, now: Duration, tx: &Tx, msg: &Msg) {
        let CallId(number) = tx.call;
        if self.calls.len() <= number {
            self.calls.resize_with(number + 1, Shade::default);
        }
        let shade = &mut self.calls[number];
        let sender = match msg.form {
            Form::Request | Form::Ack(_) => tx.by,
            Form::Response(_) => tx.by.other(),
        };
        let is_first = tx.dialog.is_none() && tx.method == Method::Invite;
        if let Some(desc) = &msg.sdp {
            let dialog = if is_first && msg.form == Form::Request {
                None
            } else {
                msg.dialog
            };
            let is_known = |known: &Described| {
                known.side == sender && known.dialog == dialog && known.desc == *desc
            };
            if !shade.descriptions.iter().any(is_known) {
                shade.descriptions.push(Described {
                    side: sender,
                    dialog,
                    desc: desc.clone(),
                    replaced: None,
                });
            }
        }
        match (tx.method, msg.form) {
            (Method::Bye, Form::Request) => shade.dialogs_over.extend(tx.dialog),
            (Method::Invite, Form::Response(status)) if is_first && status >= 300 => {
                shade.over |= status != 401;
            }
            (Method::Invite, Form::Response(200)) if is_first => {
                // The other dialogs of a fork have lost.
                for known in &mut shade.descriptions {
                    if known.dialog.is_some() && known.dialog != msg.dialog {
                        known.replaced.get_or_insert(now);
                    }
                }
                for known in &mut shade.descriptions {
                    if known.dialog == msg.dialog && Some(&known.desc) == msg.sdp.as_ref() {
                        known.replaced = None;
                    }
                }
            }
            (Method::Invite | Method::Update | Method::Prack, Form::Response(status))
                if !is_first =>
            {
                match (tx.body.offer(), &msg.sdp) {
                    (Some(offer), _) if status >= 300 => shade.refuse(now, offer),
                    (Some(offer), Some(answer)) => {
                        shade.settle(now, msg.dialog, [offer, answer]);
                    }
                    _ => {}
                }
            }
            (Method::Invite, Form::Ack(200)) if !is_first => {
                let offer = tx
                    .finals
                    .iter()
                    .find(|answer| answer.status == 200)
                    .and_then(|answer| answer.msg.sdp.as_ref());
                if let (None, Some(answer), Some(offer)) = (tx.body.offer(), &msg.sdp, offer) {
                    shade.settle(now, msg.dialog, [offer, answer]);
                }
            }
            _ => {}
        }
    }

    /// Whether a packet that came in had any call to ask for it.
    pub fn permits(
        &self,
        now: Duration,
        calls: &[Call],
        rules: &[Rule],
        source: SocketAddr,
        destination: SocketAddr,
        shape: Shape,
    ) -> bool {
        self.calls.iter().zip(calls).any(|(shade, call)| {
            let rule = &rules[call.plan.provider];
            let live = |side: Side| {
                shade.descriptions.iter().filter(move |known| {
                    known.side == side && (call.tainted || shade.is_live(known, now))
                })
            };
            if !(20_000..=40_000).contains(&source.port()) {
                return false;
            }
            let listed = rule.prefixes.iter().any(|net| net.contains(&source.ip()));
            if !rule.prefixes.is_empty() && !listed {
                return false;
            }
            let asked = live(Side::Pbx).any(|known| known.desc.names(destination, shape));
            let described = live(Side::Provider)
                .any(|known| rule.by_prefix || known.desc.address == source.ip());
            // After a restart, the PBX's re-offer is the first that is heard of a call.
            let early = rule.on_offer && (call.plan.caller == Side::Pbx || call.tainted);
            asked && (described || early)
        })
    }
}

impl Shade {
    fn is_live(&self, known: &Described, now: Duration) -> bool {
        !self.over
            && !known
                .dialog
                .is_some_and(|dialog| self.dialogs_over.contains(&dialog))
            && known.replaced.is_none_or(|at| now <= at + GRACE)
            // The first offer lives as long as some dialog does.
            && (known.dialog.is_some() || self.dialogs_over.is_empty() || self.has_other_dialog())
    }

    fn has_other_dialog(&self) -> bool {
        self.descriptions.iter().any(|known| {
            known
                .dialog
                .is_some_and(|dialog| !self.dialogs_over.contains(&dialog))
        })
    }

    fn settle(&mut self, now: Duration, dialog: Option<DialogId>, pair: [&Desc; 2]) {
        // The first offer is every dialog's.
        let is_alone = self.descriptions.iter().all(|known| {
            known
                .dialog
                .is_none_or(|of| Some(of) == dialog || self.dialogs_over.contains(&of))
        });
        for known in &mut self.descriptions {
            let concerned = known.dialog == dialog || is_alone && known.dialog.is_none();
            if concerned && !pair.contains(&&known.desc) {
                known.replaced.get_or_insert(now);
            }
        }
    }

    fn refuse(&mut self, now: Duration, offer: &Desc) {
        for known in &mut self.descriptions {
            if known.desc == *offer {
                known.replaced.get_or_insert(now);
            }
        }
    }
}
