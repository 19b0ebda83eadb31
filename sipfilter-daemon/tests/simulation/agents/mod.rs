//! What provider and PBX do: they answer messages and timers as RFC 3261, 3262, 3264 and 3311 say, with the habits that a call's plan draws.
//!
//! Both are the same machine on two sides: `caller`, `callee`, and `change` for what either does once they talk. Here are the transactions
//! beneath. Loss heals by retransmission alone; nobody looks into the other's state.

mod callee;
mod caller;
mod change;

use std::time::Duration;

use crate::{
    call::{Body, CallId, DialogId, End, Final, Form, Method, Msg, Tx, TxId},
    tcp::TcpTimer,
    wire::{Desc, Side},
    world::{Event, World},
};

/// RFC 3261 §17.1.1.1.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// 64*T1: how long anything is repeated.
const GIVE_UP: Duration = Duration::from_secs(32);
/// An UPDATE has no ACK: after this long its answer is taken to have arrived. Less than the filter waits, which is an exception that
/// the design states: an answer that is lost four times in a row may cost the old address its pinhole.
const SETTLED: Duration = Duration::from_secs(6);

pub enum Timer {
    /// A call begins.
    Begin,
    /// A request is repeated if it has no answer: the transaction, since when, the next interval.
    Request(TxId, Duration, Duration),
    /// A final response to an INVITE is repeated if it has no ACK.
    Final(TxId, usize, Duration, Duration),
    /// A reliable provisional response is repeated if it has no PRACK.
    Reliable(TxId, DialogId, Duration, Duration),
    /// The callee of a fork rings, then answers.
    Ring(TxId, DialogId),
    Answer(TxId, DialogId),
    /// The caller gives up.
    Cancel(CallId),
    /// One side of an established dialog does something, with so many changes to go.
    Act(CallId, DialogId, Side, usize),
    /// One side changes something though the call still rings.
    ActEarly(CallId, DialogId, Side),
    /// A TCP connection's own.
    Tcp(TcpTimer),
    /// An answer to an UPDATE has surely arrived.
    Settle(CallId, DialogId, Side, u64),
}

impl World {
    pub fn handle_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Begin => self.begin(),
            Timer::Request(tx, since, interval) => self.repeat_request(tx, since, interval),
            Timer::Final(tx, index, since, interval) => {
                self.repeat_final(tx, index, since, interval);
            }
            Timer::Reliable(tx, dialog, since, interval) => {
                self.repeat_reliable(tx, dialog, since, interval);
            }
            Timer::ActEarly(call, dialog, side) => self.act_early(call, dialog, side),
            Timer::Tcp(timer) => self.handle_tcp_timer(timer),
            Timer::Ring(tx, dialog) => self.ring(tx, dialog),
            Timer::Answer(tx, dialog) => self.pick_up(tx, dialog),
            Timer::Cancel(call) => self.cancel(call),
            Timer::Act(call, dialog, side, left) => self.act(call, dialog, side, left),
            Timer::Settle(call, dialog, side, version) => {
                let end = self.end(call, dialog, side);
                if end
                    .mine
                    .as_ref()
                    .is_some_and(|mine| mine.version == version)
                {
                    end.settle();
                }
            }
        }
    }

    /// A client transaction begins.
    fn request(
        &mut self,
        call: CallId,
        dialog: Option<DialogId>,
        by: Side,
        method: Method,
        body: Body,
    ) -> TxId {
        let id = TxId(self.txs.len());
        let cseq = &mut self.calls[call.0].cseq[by as usize];
        *cseq += 1;
        let cseq = *cseq;
        let branch = format!("z9hG4bK-{}-{}", call.0, id.0);
        let what = (method, cseq);
        self.txs
            .push(Tx::new(call, dialog, by, what, branch, body.clone()));
        if let (Some(dialog), Body::Offer(offer)) = (dialog, body) {
            self.end(call, dialog, by).send_offer(offer);
        }
        self.send_request(id);
        let now = self.now;
        self.after(T1, Event::Timer(Timer::Request(id, now, T1)));
        id
    }

    fn send_request(&mut self, tx: TxId) {
        let Tx { dialog, body, .. } = &self.txs[tx.0];
        let msg = Msg {
            tx,
            form: Form::Request,
            dialog: *dialog,
            sdp: body.sdp().cloned(),
            is_reliable: false,
        };
        self.send_sip(msg);
    }

    /// RFC 3261 §17.1.1.2, §17.1.2.2.
    fn repeat_request(&mut self, id: TxId, since: Duration, interval: Duration) {
        let tx = &self.txs[id.0];
        if tx.done || (tx.method == Method::Invite && tx.answered) {
            return;
        }
        let (call, dialog, by, method) = (tx.call, tx.dialog, tx.by, tx.method);
        if self.now - since >= GIVE_UP {
            self.txs[id.0].done = true;
            match dialog {
                Some(dialog) if method == Method::Prack => self.close(call, dialog, by),
                // RFC 3261 §12.2.1.2: no answer inside a dialog ends it.
                Some(dialog) if method != Method::Bye => self.hang_up(call, dialog, by),
                _ => self.bury(call, by),
            }
            return;
        }
        // RFC 3261 §17.1.1.2, §17.1.2.2: not over what is reliable itself.
        if self.calls[call.0].link.is_none() {
            self.send_request(id);
        }
        let next = match method {
            Method::Invite => interval * 2,
            _ => (interval * 2).min(T2),
        };
        self.after(next, Event::Timer(Timer::Request(id, since, next)));
    }

    /// RFC 3261 §13.3.1.4, §17.2.1.
    fn repeat_final(&mut self, id: TxId, index: usize, since: Duration, interval: Duration) {
        let tx = &self.txs[id.0];
        let answer = &tx.finals[index];
        if answer.acked {
            return;
        }
        let (call, by, status, dialog) = (tx.call, tx.by, answer.status, answer.msg.dialog);
        if self.now - since >= GIVE_UP {
            if let (200, Some(dialog)) = (status, dialog) {
                self.hang_up(call, dialog, by.other());
            }
            return;
        }
        let msg = answer.msg.clone();
        // A 2xx is repeated from end to end, whatever is in between (RFC 3261 §13.3.1.4).
        if status == 200 || self.calls[call.0].link.is_none() {
            self.send_sip(msg);
        }
        let next = (interval * 2).min(T2);
        self.after(next, Event::Timer(Timer::Final(id, index, since, next)));
    }

    pub fn receive(&mut self, msg: Msg) {
        match msg.form {
            Form::Request => self.receive_request(msg),
            Form::Response(status) => self.receive_response(msg, status),
            Form::Ack(status) => self.receive_ack(msg, status),
        }
    }

    fn respond(&mut self, tx: TxId, status: u16, dialog: Option<DialogId>, sdp: Option<Desc>) {
        let msg = Msg {
            tx,
            form: Form::Response(status),
            dialog,
            sdp,
            is_reliable: false,
        };
        let record = &mut self.txs[tx.0];
        if status < 200 {
            record.provisionals.push(msg.clone());
        } else {
            record.finals.push(Final {
                msg: msg.clone(),
                status,
                acked: false,
            });
            if record.method == Method::Invite {
                let index = record.finals.len() - 1;
                let now = self.now;
                self.after(T1, Event::Timer(Timer::Final(tx, index, now, T1)));
            }
        }
        self.send_sip(msg);
    }

    fn acknowledge(&mut self, tx: TxId, status: u16, dialog: Option<DialogId>, sdp: Option<Desc>) {
        let msg = Msg {
            tx,
            form: Form::Ack(status),
            dialog,
            sdp,
            is_reliable: false,
        };
        self.txs[tx.0].acks.push(msg.clone());
        self.send_sip(msg);
    }

    /// A final response again: so is its ACK.
    fn acknowledge_again(&mut self, tx: TxId, dialog: Option<DialogId>, status: u16) {
        let known = self.txs[tx.0]
            .acks
            .iter()
            .find(|ack| ack.form == Form::Ack(status) && ack.dialog == dialog);
        if let Some(msg) = known.cloned() {
            self.send_sip(msg);
        }
    }

    fn last_invite(&self, call: CallId) -> Option<TxId> {
        self.txs
            .iter()
            .rposition(|tx| tx.call == call && tx.method == Method::Invite && tx.dialog.is_none())
            .map(TxId)
    }

    fn end(&mut self, call: CallId, dialog: DialogId, side: Side) -> &mut End {
        self.calls[call.0].dialogs[dialog.0].end(side)
    }

    /// Whoever hangs up does not wait for the answer.
    fn hang_up(&mut self, call: CallId, dialog: DialogId, side: Side) {
        let end = self.end(call, dialog, side);
        if end.exists && !end.alive {
            return;
        }
        self.close(call, dialog, side);
        self.request(call, Some(dialog), side, Method::Bye, Body::Nothing);
    }

    /// Media begins to flow from this side; twice started it flows twice as often, which does no harm.
    fn talk(&mut self, call: CallId, dialog: DialogId, side: Side) {
        self.after(Duration::from_millis(1), Event::Media(call, dialog, side));
    }

    /// One side's part of a dialog is over; the PBX's ports are free at once.
    fn close(&mut self, call: CallId, dialog: DialogId, side: Side) {
        self.end(call, dialog, side).die();
        if side == Side::Pbx {
            self.ports.retain(|_, owner| *owner != (call, dialog));
        }
    }

    /// One side gives the call up before any dialog was confirmed.
    fn bury(&mut self, call: CallId, side: Side) {
        for dialog in 0..self.calls[call.0].dialogs.len() {
            if !self.end(call, DialogId(dialog), side).confirmed {
                self.close(call, DialogId(dialog), side);
            }
        }
    }

    fn receive_request(&mut self, msg: Msg) {
        let id = msg.tx;
        let tx = &mut self.txs[id.0];
        let (call, by, method) = (tx.call, tx.by, tx.method);
        let me = by.other();
        if std::mem::replace(&mut tx.seen, true) {
            // Repeated: so is the latest response.
            let last = tx.finals.last().map(|last| &last.msg);
            if let Some(msg) = last.or(tx.provisionals.last()).cloned() {
                self.send_sip(msg);
            }
            return;
        }
        match (method, tx.dialog) {
            (Method::Invite, None) => self.receive_call(id, msg.sdp.is_some()),
            (Method::Cancel, _) => {
                self.respond(id, 200, None, None);
                self.receive_cancel(call);
            }
            (Method::Bye, Some(dialog)) => {
                self.respond(id, 200, Some(dialog), None);
                self.close(call, dialog, me);
            }
            (Method::Invite | Method::Update, Some(dialog)) => {
                self.receive_change(id, (call, dialog), me, msg.sdp);
            }
            (Method::Prack, Some(dialog)) => self.receive_prack(id, call, dialog, me),
            (Method::Bye | Method::Update | Method::Prack, None) => {}
        }
    }

    fn receive_response(&mut self, msg: Msg, status: u16) {
        let id = msg.tx;
        let tx = &mut self.txs[id.0];
        let (call, by, method) = (tx.call, tx.by, tx.method);
        tx.answered = true;
        let was_done = tx.done;
        tx.done |= status >= 200;
        match (method, tx.dialog) {
            (Method::Invite, None) => self.receive_progress(msg, status, was_done),
            (Method::Invite, Some(dialog)) if status >= 200 => {
                if was_done {
                    self.acknowledge_again(id, msg.dialog, status);
                    return;
                }
                let ack = self.finish_change(id, call, dialog, by, status, msg.sdp);
                self.acknowledge(id, status, Some(dialog), ack);
            }
            (Method::Update, Some(dialog)) if status >= 200 && !was_done => {
                self.finish_change(id, call, dialog, by, status, msg.sdp);
            }
            (Method::Prack, Some(dialog)) if status >= 200 && !was_done => {
                let is_offer = self.txs[id.0].body.offer().is_some();
                if is_offer {
                    self.finish_change(id, call, dialog, by, status, msg.sdp);
                }
                let end = self.end(call, dialog, by);
                end.early = end.alive;
                end.busy &= end.confirmed;
                self.plan_early_change(call, dialog, by);
            }
            _ => {}
        }
    }

    fn receive_ack(&mut self, msg: Msg, status: u16) {
        let id = msg.tx;
        let (call, me) = (self.txs[id.0].call, self.txs[id.0].by.other());
        let Some(answer) = self.txs[id.0]
            .finals
            .iter_mut()
            .find(|answer| answer.status == status && answer.msg.dialog == msg.dialog)
        else {
            return;
        };
        if std::mem::replace(&mut answer.acked, true) {
            return;
        }
        if let (200, Some(dialog)) = (status, msg.dialog) {
            let end = self.end(call, dialog, me);
            if end.alive {
                end.busy = false;
                match msg.sdp {
                    Some(answer) if end.offered.is_some() => end.take_answer(answer),
                    _ if end.unproven => {}
                    _ => end.settle(),
                }
            }
        }
    }

    fn plan_next(&mut self, call: CallId, dialog: DialogId, side: Side, left: usize) {
        let after = Duration::from_millis(self.random.between(300, 8_000));
        self.after(after, Event::Timer(Timer::Act(call, dialog, side, left)));
    }

    /// Where the first offer is answered for good, either side may make another before the call is answered.
    fn plan_early_change(&mut self, call: CallId, dialog: DialogId, side: Side) {
        if self.random.percent(50) {
            let after = Duration::from_millis(self.random.between(10, 2_000));
            self.after(after, Event::Timer(Timer::ActEarly(call, dialog, side)));
        }
    }

    fn act_early(&mut self, call: CallId, dialog: DialogId, side: Side) {
        let plan = self.calls[call.0].plan.clone();
        let end = self.end(call, dialog, side);
        if end.alive && end.early && !end.busy && end.mine.is_some() {
            let offer = self.successor(&plan, (call, dialog), side, None);
            self.tally.early_changes += 1;
            self.request(call, Some(dialog), side, Method::Update, Body::Offer(offer));
        }
    }

    /// One side changes something, or hangs up.
    fn act(&mut self, call: CallId, dialog: DialogId, side: Side, left: usize) {
        let plan = self.calls[call.0].plan.clone();
        let end = self.end(call, dialog, side);
        if !end.alive || !end.confirmed {
            return;
        }
        if end.busy || end.mine.is_none() {
            self.plan_next(call, dialog, side, left);
            return;
        }
        let Some(left) = left.checked_sub(1) else {
            self.hang_up(call, dialog, side);
            return;
        };
        match self.random.below(10) {
            0..=4 => {
                let offer = self.successor(&plan, (call, dialog), side, None);
                self.request(call, Some(dialog), side, Method::Invite, Body::Offer(offer));
            }
            5..=7 => {
                let offer = self.successor(&plan, (call, dialog), side, None);
                self.request(call, Some(dialog), side, Method::Update, Body::Offer(offer));
            }
            _ => {
                self.end(call, dialog, side).busy = true;
                self.request(call, Some(dialog), side, Method::Invite, Body::Nothing);
            }
        }
        self.plan_next(call, dialog, side, left);
    }
}
