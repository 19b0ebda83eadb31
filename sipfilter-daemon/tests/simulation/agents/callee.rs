//! The callee: it rings, answers, refuses, forks, and is cancelled (RFC 3261 §13.3), reliably where both want that (RFC 3262).

use std::time::Duration;

use super::{GIVE_UP, T1, T2, Timer, change::first_layout};
use crate::{
    call::{Body, CallId, Dialog, DialogId, Final, Form, Msg, TxId},
    wire::{Desc, Hold, Side},
    world::{Event, World},
};

impl World {
    pub(super) fn receive_call(&mut self, id: TxId, has_offer: bool) {
        let call = self.txs[id.0].call;
        let (plan, first) = {
            let call = &self.calls[call.0];
            (call.plan.clone(), call.first == Some(id))
        };
        self.respond(id, 100, None, None);
        if plan.challenge && first {
            self.respond(id, 401, None, None);
            return;
        }
        let callee = plan.caller.other();
        self.tally.forked += if plan.forks > 1 { plan.forks as u64 } else { 0 };
        for fork in 0..plan.forks {
            let dialog = DialogId(self.calls[call.0].dialogs.len());
            let tag = format!("callee-{}-{fork}", call.0);
            let mut record = Dialog {
                tag,
                ..Dialog::default()
            };
            record.end(callee).exists = true;
            record.end(callee).alive = true;
            self.calls[call.0].dialogs.push(record);
            let ring = self.random.between(20, 500);
            let answer = ring + self.random.between(100, 5_000);
            if plan.early && (has_offer || plan.reliable) || self.random.percent(50) {
                self.after(
                    Duration::from_millis(ring),
                    Event::Timer(Timer::Ring(id, dialog)),
                );
            }
            self.after(
                Duration::from_millis(answer),
                Event::Timer(Timer::Answer(id, dialog)),
            );
        }
    }

    /// 180, or 183 with the answer.
    pub(super) fn ring(&mut self, id: TxId, dialog: DialogId) {
        let tx = &self.txs[id.0];
        if !tx.finals.is_empty() {
            return;
        }
        let (call, callee, offer) = (tx.call, tx.by.other(), tx.body.offer().cloned());
        let plan = self.calls[call.0].plan.clone();
        match offer {
            Some(offer) if plan.early => {
                let answer = self.first_answer(call, dialog, callee, &offer);
                self.end(call, dialog, callee).answer(offer, answer.clone());
                if plan.reliable {
                    self.respond_reliably(id, dialog, answer);
                } else {
                    self.respond(id, 183, Some(dialog), Some(answer));
                }
                self.talk(call, dialog, callee);
            }
            None if plan.early && plan.reliable => {
                let layout = first_layout(&plan);
                let offer = self.describe(&plan, (call, dialog), callee, Hold::None, &layout);
                self.end(call, dialog, callee).send_offer(offer.clone());
                self.respond_reliably(id, dialog, offer);
            }
            _ => self.respond(id, 180, Some(dialog), None),
        }
    }

    fn first_answer(&mut self, call: CallId, dialog: DialogId, side: Side, offer: &Desc) -> Desc {
        let plan = self.calls[call.0].plan.clone();
        self.describe(&plan, (call, dialog), side, Hold::None, &offer.layout())
    }

    /// A 183 that is repeated until its PRACK arrives, and holds the final response back (RFC 3262 §3).
    fn respond_reliably(&mut self, id: TxId, dialog: DialogId, sdp: Desc) {
        let (call, callee) = (self.txs[id.0].call, self.txs[id.0].by.other());
        self.end(call, dialog, callee).busy = true;
        let msg = Msg {
            tx: id,
            form: Form::Response(183),
            dialog: Some(dialog),
            sdp: Some(sdp),
            is_reliable: true,
        };
        self.txs[id.0].reliables.push(Final {
            msg: msg.clone(),
            status: 183,
            acked: false,
        });
        self.send_sip(msg);
        let now = self.now;
        self.after(T1, Event::Timer(Timer::Reliable(id, dialog, now, T1)));
    }

    pub(super) fn repeat_reliable(
        &mut self,
        id: TxId,
        dialog: DialogId,
        since: Duration,
        interval: Duration,
    ) {
        let (call, callee) = (self.txs[id.0].call, self.txs[id.0].by.other());
        let is_awaited = |known: &&Final| known.msg.dialog == Some(dialog) && !known.acked;
        let Some(msg) = self.txs[id.0]
            .reliables
            .iter()
            .find(is_awaited)
            .map(|known| known.msg.clone())
        else {
            return;
        };
        if !self.end(call, dialog, callee).alive {
            return;
        }
        if self.now - since >= GIVE_UP {
            self.respond(id, 504, None, None);
            self.bury(call, callee);
            return;
        }
        self.send_sip(msg);
        let next = (interval * 2).min(T2);
        self.after(next, Event::Timer(Timer::Reliable(id, dialog, since, next)));
    }

    /// RFC 3262 §3: the 183 has arrived, and with it what it said about media.
    pub(super) fn receive_prack(&mut self, id: TxId, call: CallId, dialog: DialogId, me: Side) {
        let end = self.end(call, dialog, me);
        if !end.alive {
            self.respond(id, 481, Some(dialog), None);
            return;
        }
        if !end.confirmed {
            end.early = true;
            end.busy = false;
        }
        if let Some(invite) = self.last_invite(call) {
            for known in &mut self.txs[invite.0].reliables {
                known.acked |= known.msg.dialog == Some(dialog);
            }
        }
        match self.txs[id.0].body.clone() {
            Body::Nothing => self.respond(id, 200, Some(dialog), None),
            Body::Answer(answer) => {
                let end = self.end(call, dialog, me);
                if end.offered.is_some() {
                    end.take_answer(answer);
                }
                self.respond(id, 200, Some(dialog), None);
                self.talk(call, dialog, me);
            }
            Body::Offer(offer) => self.receive_change(id, (call, dialog), me, Some(offer)),
        }
        self.plan_early_change(call, dialog, me);
    }

    pub(super) fn pick_up(&mut self, id: TxId, dialog: DialogId) {
        let tx = &self.txs[id.0];
        let (call, callee, offer) = (tx.call, tx.by.other(), tx.body.offer().cloned());
        let plan = self.calls[call.0].plan.clone();
        let answers = tx.finals.len();
        let is_second = answers == 1 && tx.finals[0].status == 200 && plan.double_answer;
        if answers > 0 && !is_second || tx.cancelled {
            return;
        }
        let end = self.end(call, dialog, callee);
        if end.alive && end.busy {
            // Not while an offer is out (RFC 3262 §5, RFC 6337 §2.2).
            let later = Event::Timer(Timer::Answer(id, dialog));
            self.after(Duration::from_millis(300), later);
            return;
        }
        if plan.reject && answers == 0 {
            let status = *self.random.pick(&[404, 486, 603, 302]);
            self.respond(id, status, None, None);
            self.bury(call, callee);
            return;
        }
        let known = self.end(call, dialog, callee).mine.clone();
        let sdp = match (known, offer) {
            // What was said reliably need not be said again; many do so all the same (RFC 6337 §3.1.1).
            (Some(answer), _) => (!plan.reliable || self.random.percent(50)).then_some(answer),
            (None, Some(offer)) => {
                let answer = self.first_answer(call, dialog, callee, &offer);
                self.end(call, dialog, callee).answer(offer, answer.clone());
                Some(answer)
            }
            (None, None) => {
                let layout = first_layout(&plan);
                let offer = self.describe(&plan, (call, dialog), callee, Hold::None, &layout);
                self.end(call, dialog, callee).send_offer(offer.clone());
                Some(offer)
            }
        };
        let end = self.end(call, dialog, callee);
        end.confirmed = true;
        end.busy = true;
        // The forking proxy stops the others, unless they answer at the same moment.
        if !plan.double_answer {
            for other in 0..self.calls[call.0].dialogs.len() {
                if other != dialog.0 {
                    self.close(call, DialogId(other), callee);
                }
            }
        }
        self.respond(id, 200, Some(dialog), sdp);
        self.talk(call, dialog, callee);
        self.plan_next(call, dialog, callee, plan.changes);
    }

    pub(super) fn receive_cancel(&mut self, call: CallId) {
        let Some(first) = self.last_invite(call) else {
            return;
        };
        let tx = &mut self.txs[first.0];
        let callee = tx.by.other();
        if tx.seen && tx.finals.is_empty() {
            tx.cancelled = true;
            self.respond(first, 487, None, None);
            self.bury(call, callee);
        }
    }
}
