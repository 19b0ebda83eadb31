//! The caller: it invites, goes by what comes back, acknowledges, tries again with credentials, and gives up (RFC 3261 §13.2, §9.1).

use std::time::Duration;

use super::{T1, Timer, change::first_layout};
use crate::{
    call::{Body, Call, CallId, DialogId, Method, Msg, Plan, Tx, TxId},
    wire::{Hold, Side},
    world::{Event, World},
};

impl World {
    pub(super) fn begin(&mut self) {
        let random = &mut self.random;
        let caller = *random.pick(&[Side::Provider, Side::Pbx]);
        let provider = random.below(4);
        let forks = if random.percent(25) {
            random.between(2, 3) as usize
        } else {
            1
        };
        let plan = Plan {
            caller,
            provider,
            v6: provider == 0 && random.percent(40),
            forks,
            double_answer: random.percent(30),
            challenge: caller == Side::Pbx && random.percent(25),
            early: random.percent(60),
            reject: random.percent(12),
            delayed: forks == 1 && random.percent(15),
            cancel_after: random
                .percent(15)
                .then(|| Duration::from_millis(random.between(100, 4_000))),
            changes: random.below(5),
            streams: random.between(1, 2) as usize,
            mux: random.percent(20),
            reliable: random.percent(40),
        };
        self.tally.calls += 1;
        let number = self.calls.len();
        self.note(|| format!("call {number} begins: {plan:?}"));
        let id = CallId(number);
        let cancel_after = plan.cancel_after;
        let layout = first_layout(&plan);
        let owner = (id, DialogId(0));
        let offer =
            (!plan.delayed).then(|| self.describe(&plan, owner, caller, Hold::None, &layout));
        let link = self
            .random
            .percent(35)
            .then(|| self.choose_link(plan.provider, plan.v6));
        self.calls.push(Call {
            plan,
            call_id: format!("call-{number}@example.com"),
            from_tag: format!("caller-{number}"),
            cseq: [
                self.random.between(1, 50) as u32,
                self.random.between(1, 50) as u32,
            ],
            link,
            first: None,
            dialogs: Vec::new(),
            cancelled: false,
            known: false,
            tainted: link.is_some_and(|link| !self.is_followed(link)),
        });
        let tx = self.request(id, None, caller, Method::Invite, Body::of(offer));
        self.calls[number].first = Some(tx);
        if let Some(after) = cancel_after {
            self.after(after, Event::Timer(Timer::Cancel(id)));
        }
    }

    /// A response to the INVITE that begins a call.
    pub(super) fn receive_progress(&mut self, msg: Msg, status: u16, was_done: bool) {
        let id = msg.tx;
        let (call, me) = (self.txs[id.0].call, self.txs[id.0].by);
        let offer = self.txs[id.0].body.offer().cloned();
        let plan = self.calls[call.0].plan.clone();
        if status >= 300 {
            if was_done {
                self.acknowledge_again(id, None, status);
                return;
            }
            self.acknowledge(id, status, None, None);
            self.bury(call, me);
            if status == 401 && !self.calls[call.0].cancelled {
                let again = self.request(call, None, me, Method::Invite, Body::of(offer));
                self.note(|| format!("call {} tries again as {again:?}", call.0));
            }
            return;
        }
        let Some(dialog) = msg.dialog else {
            return;
        };
        let is_known = self.end(call, dialog, me).exists;
        if is_known && status == 200 && self.end(call, dialog, me).confirmed
            || !self.txs[id.0].acks.is_empty()
                && self.txs[id.0]
                    .acks
                    .iter()
                    .any(|ack| ack.dialog == Some(dialog))
        {
            self.acknowledge_again(id, Some(dialog), status);
            return;
        }
        if !is_known {
            if status < 200 && was_done {
                return;
            }
            let end = self.end(call, dialog, me);
            end.exists = true;
            end.alive = true;
            if let Some(offer) = offer.clone() {
                end.send_offer(offer);
            }
        }
        let end = self.end(call, dialog, me);
        if status < 200 && msg.is_reliable {
            self.receive_reliable(call, dialog, me, msg);
            return;
        }
        if status < 200 {
            if let (Some(answer), Some(_), true) = (msg.sdp, &end.offered, end.alive) {
                end.take_answer(answer);
                self.talk(call, dialog, me);
            }
            return;
        }
        // 200. A second one, or one that crossed a CANCEL, is ended at once.
        let is_late = was_done || self.calls[call.0].cancelled || !self.end(call, dialog, me).alive;
        let answer = match (&offer, msg.sdp) {
            (None, Some(offer)) if self.end(call, dialog, me).mine.is_none() => {
                let layout = offer.layout();
                let answer = self.describe(&plan, (call, dialog), me, Hold::None, &layout);
                self.end(call, dialog, me).answer(offer, answer.clone());
                Some(answer)
            }
            (_, Some(sdp)) => {
                let end = self.end(call, dialog, me);
                // Behind a reliable answer it repeats what was said.
                if end.offered.is_some() && end.mine.is_none() {
                    end.take_answer(sdp);
                }
                None
            }
            (_, None) => None,
        };
        self.acknowledge(id, 200, Some(dialog), answer);
        let end = self.end(call, dialog, me);
        end.confirmed = true;
        end.busy = end.offered.is_some();
        for other in 0..self.calls[call.0].dialogs.len() {
            if other != dialog.0 && !self.end(call, DialogId(other), me).confirmed {
                self.close(call, DialogId(other), me);
            }
        }
        if is_late {
            self.hang_up(call, dialog, me);
            return;
        }
        self.tally.confirmed += 1;
        self.talk(call, dialog, me);
        self.plan_next(call, dialog, me, plan.changes);
    }

    /// RFC 3262 §4. An offer is answered in the PRACK (RFC 3262 §5), and one that is answered may be followed by another.
    fn receive_reliable(&mut self, call: CallId, dialog: DialogId, me: Side, msg: Msg) {
        let plan = self.calls[call.0].plan.clone();
        let end = self.end(call, dialog, me);
        let is_new = end.alive && !end.early && !end.confirmed && end.mine.is_none();
        let (true, Some(sdp)) = (is_new, msg.sdp) else {
            return;
        };
        let body = if end.offered.is_some() {
            end.take_answer(sdp);
            end.busy = true;
            match self.random.percent(25) {
                true => Body::Offer(self.successor(&plan, (call, dialog), me, None)),
                false => Body::Nothing,
            }
        } else {
            let layout = sdp.layout();
            let answer = self.describe(&plan, (call, dialog), me, Hold::None, &layout);
            let end = self.end(call, dialog, me);
            end.answer(sdp, answer.clone());
            end.settle();
            end.busy = true;
            Body::Answer(answer)
        };
        self.talk(call, dialog, me);
        self.request(call, Some(dialog), me, Method::Prack, body);
    }

    pub(super) fn cancel(&mut self, call: CallId) {
        let Some(invite) = self.last_invite(call) else {
            return;
        };
        let tx = &self.txs[invite.0];
        if tx.done {
            return;
        }
        if !tx.answered {
            // RFC 3261 §9.1: not before a response has come.
            self.after(T1, Event::Timer(Timer::Cancel(call)));
            return;
        }
        let (by, branch, cseq) = (tx.by, tx.branch.clone(), tx.cseq);
        self.calls[call.0].cancelled = true;
        let before = self.calls[call.0].cseq;
        // The CANCEL has the INVITE's CSeq number and branch.
        self.calls[call.0].cseq[by as usize] = cseq - 1;
        let id = TxId(self.txs.len());
        let what = (Method::Cancel, cseq);
        self.txs
            .push(Tx::new(call, None, by, what, branch, Body::Nothing));
        self.calls[call.0].cseq = before;
        self.send_request(id);
        let now = self.now;
        self.after(T1, Event::Timer(Timer::Request(id, now, T1)));
    }
}
