//! What provider and PBX do: they answer messages and timers as RFC 3261, 3264 and 3311 say, with the habits that a call's plan draws.
//!
//! Both are the same machine on two sides. Loss heals by retransmission alone; nobody looks into the other's state.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use crate::{
    call::{Call, CallId, Dialog, DialogId, End, Final, Form, Method, Msg, Plan, Tx, TxId},
    wire::{Desc, Hold, Side},
    world::{Event, PBX, World, address, media_address},
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
    /// The callee of a fork rings, then answers.
    Ring(TxId, DialogId),
    Answer(TxId, DialogId),
    /// The caller gives up.
    Cancel(CallId),
    /// One side of an established dialog does something, with so many changes to go.
    Act(CallId, DialogId, Side, usize),
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

    fn begin(&mut self) {
        let random = &mut self.random;
        let caller = *random.pick(&[Side::Provider, Side::Pbx]);
        let provider = random.below(4);
        let forks = if caller == Side::Pbx && random.percent(25) {
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
        };
        self.tally.calls += 1;
        let number = self.calls.len();
        self.note(|| format!("call {number} begins: {plan:?}"));
        let id = CallId(number);
        let cancel_after = plan.cancel_after;
        let offer =
            (!plan.delayed).then(|| self.describe(&plan, id, DialogId(0), caller, Hold::None));
        self.calls.push(Call {
            plan,
            call_id: format!("call-{number}@example.com"),
            from_tag: format!("caller-{number}"),
            cseq: [
                self.random.between(1, 50) as u32,
                self.random.between(1, 50) as u32,
            ],
            first: None,
            dialogs: Vec::new(),
            cancelled: false,
            known: false,
            tainted: false,
        });
        let tx = self.request(id, None, caller, Method::Invite, offer);
        self.calls[number].first = Some(tx);
        if let Some(after) = cancel_after {
            self.after(after, Event::Timer(Timer::Cancel(id)));
        }
    }

    /// A new description for one side of a call, with new ports.
    fn describe(
        &mut self,
        plan: &Plan,
        call: CallId,
        dialog: DialogId,
        side: Side,
        hold: Hold,
    ) -> Desc {
        self.version += 1;
        let mut ports = Vec::new();
        let address: IpAddr = match side {
            Side::Provider => {
                let index = self.random.between(0, 5);
                for _ in 0..plan.streams {
                    ports.push(20_000 + 2 * self.random.between(0, 9_999) as u16);
                }
                media_address(plan.provider, plan.v6, index)
            }
            Side::Pbx => {
                for _ in 0..plan.streams {
                    ports.push(self.take_port(call, dialog));
                }
                address(PBX[usize::from(plan.v6)])
            }
        };
        Desc {
            version: self.version,
            address,
            ports,
            mux: plan.mux,
            hold,
        }
    }

    /// The PBX has few ports, so that one that a call leaves is soon another's.
    fn take_port(&mut self, call: CallId, dialog: DialogId) -> u16 {
        let used: BTreeSet<u16> = self.ports.keys().copied().collect();
        let free: Vec<u16> = (0..60)
            .map(|index| 10_000 + 2 * index)
            .filter(|port| !used.contains(port))
            .collect();
        let port = match free.as_slice() {
            [] => 19_000 + 2 * self.random.below(400) as u16,
            // The lowest ones are the likeliest to have been used a moment ago.
            free => free[self.random.below(free.len().min(4))],
        };
        self.ports.insert(port, (call, dialog));
        port
    }

    fn end(&mut self, call: CallId, dialog: DialogId, side: Side) -> &mut End {
        self.calls[call.0].dialogs[dialog.0].end(side)
    }

    /// A client transaction begins.
    fn request(
        &mut self,
        call: CallId,
        dialog: Option<DialogId>,
        by: Side,
        method: Method,
        offer: Option<Desc>,
    ) -> TxId {
        let id = TxId(self.txs.len());
        let cseq = &mut self.calls[call.0].cseq[by as usize];
        *cseq += 1;
        let cseq = *cseq;
        self.txs.push(Tx {
            call,
            dialog,
            by,
            method,
            cseq,
            branch: format!("z9hG4bK-{}-{}", call.0, id.0),
            offer: offer.clone(),
            answered: false,
            done: false,
            acks: Vec::new(),
            seen: false,
            provisionals: Vec::new(),
            finals: Vec::new(),
            cancelled: false,
        });
        if let (Some(dialog), Some(offer)) = (dialog, offer) {
            self.end(call, dialog, by).send_offer(offer);
        }
        self.send_request(id);
        let now = self.now;
        self.after(T1, Event::Timer(Timer::Request(id, now, T1)));
        id
    }

    fn send_request(&mut self, tx: TxId) {
        let Tx { dialog, offer, .. } = &self.txs[tx.0];
        let msg = Msg {
            tx,
            form: Form::Request,
            dialog: *dialog,
            sdp: offer.clone(),
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
                // RFC 3261 §12.2.1.2: no answer inside a dialog ends it.
                Some(dialog) if method != Method::Bye => self.hang_up(call, dialog, by),
                _ => self.bury(call, by),
            }
            return;
        }
        self.send_request(id);
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
        self.send_sip(msg);
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
                self.receive_change(id, call, dialog, me, msg.sdp);
            }
            (Method::Bye | Method::Update, None) => {}
        }
    }

    fn receive_call(&mut self, id: TxId, has_offer: bool) {
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
            if plan.early && has_offer || self.random.percent(50) {
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
    fn ring(&mut self, id: TxId, dialog: DialogId) {
        let tx = &self.txs[id.0];
        if !tx.finals.is_empty() {
            return;
        }
        let (call, callee, offer) = (tx.call, tx.by.other(), tx.offer.clone());
        let plan = self.calls[call.0].plan.clone();
        match offer {
            Some(offer) if plan.early => {
                let answer = self.describe(&plan, call, dialog, callee, Hold::None);
                self.end(call, dialog, callee).answer(offer, answer.clone());
                self.respond(id, 183, Some(dialog), Some(answer));
                self.talk(call, dialog, callee);
            }
            _ => self.respond(id, 180, Some(dialog), None),
        }
    }

    fn pick_up(&mut self, id: TxId, dialog: DialogId) {
        let tx = &self.txs[id.0];
        let (call, callee, offer) = (tx.call, tx.by.other(), tx.offer.clone());
        let plan = self.calls[call.0].plan.clone();
        let answers = tx.finals.len();
        let is_second = answers == 1 && tx.finals[0].status == 200 && plan.double_answer;
        if answers > 0 && !is_second || tx.cancelled {
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
            (Some(answer), _) => answer,
            (None, Some(offer)) => {
                let answer = self.describe(&plan, call, dialog, callee, Hold::None);
                self.end(call, dialog, callee).answer(offer, answer.clone());
                answer
            }
            (None, None) => {
                let offer = self.describe(&plan, call, dialog, callee, Hold::None);
                self.end(call, dialog, callee).send_offer(offer.clone());
                offer
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
        self.respond(id, 200, Some(dialog), Some(sdp));
        self.talk(call, dialog, callee);
        self.plan_next(call, dialog, callee, plan.changes);
    }

    fn receive_cancel(&mut self, call: CallId) {
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

    fn last_invite(&self, call: CallId) -> Option<TxId> {
        self.txs
            .iter()
            .rposition(|tx| tx.call == call && tx.method == Method::Invite && tx.dialog.is_none())
            .map(TxId)
    }

    /// A re-INVITE or an UPDATE.
    fn receive_change(
        &mut self,
        id: TxId,
        call: CallId,
        dialog: DialogId,
        me: Side,
        offer: Option<Desc>,
    ) {
        let is_invite = self.txs[id.0].method == Method::Invite;
        let plan = self.calls[call.0].plan.clone();
        let end = self.end(call, dialog, me);
        let status = match () {
            () if !end.alive => 481,
            () if end.busy => 491,
            () if self.random.percent(15) => 488,
            () => 200,
        };
        if status != 200 {
            self.respond(id, status, Some(dialog), None);
            return;
        }
        let sdp = match offer {
            Some(offer) => {
                let answer = self.successor(&plan, call, dialog, me, Some(&offer));
                let version = answer.version;
                let end = self.end(call, dialog, me);
                end.answer(offer, answer.clone());
                if !is_invite {
                    let timer = Timer::Settle(call, dialog, me, version);
                    self.after(SETTLED, Event::Timer(timer));
                }
                answer
            }
            None => {
                let offer = self.successor(&plan, call, dialog, me, None);
                self.end(call, dialog, me).send_offer(offer.clone());
                offer
            }
        };
        if is_invite {
            self.end(call, dialog, me).busy = true;
        }
        self.respond(id, 200, Some(dialog), Some(sdp));
    }

    /// The next description of a side: the old place or a new one; an answer to a hold is the other half of it.
    fn successor(
        &mut self,
        plan: &Plan,
        call: CallId,
        dialog: DialogId,
        side: Side,
        offer: Option<&Desc>,
    ) -> Desc {
        let hold = match offer {
            Some(offer) if offer.hold != Hold::None => Hold::Inactive,
            Some(_) => Hold::None,
            None => *self.random.pick(&[
                Hold::None,
                Hold::None,
                Hold::None,
                Hold::SendOnly,
                Hold::Inactive,
                Hold::NoAddress,
            ]),
        };
        let mine = self.end(call, dialog, side).mine.clone();
        match mine {
            // Without an address on paper nobody could know of a new one.
            Some(mine) if hold == Hold::NoAddress || self.random.percent(50) => {
                self.version += 1;
                Desc {
                    version: self.version,
                    hold,
                    ..mine
                }
            }
            _ => self.describe(plan, call, dialog, side, hold),
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
            _ => {}
        }
    }

    /// Tells what the ACK must carry.
    fn finish_change(
        &mut self,
        id: TxId,
        call: CallId,
        dialog: DialogId,
        me: Side,
        status: u16,
        sdp: Option<Desc>,
    ) -> Option<Desc> {
        let plan = self.calls[call.0].plan.clone();
        let is_delayed = self.txs[id.0].offer.is_none();
        let end = self.end(call, dialog, me);
        if !end.alive {
            // A delayed offer needs its answer all the same.
            return None;
        }
        end.busy = false;
        match (status, sdp) {
            (200, Some(offer)) if is_delayed => {
                let answer = self.successor(&plan, call, dialog, me, Some(&offer));
                let end = self.end(call, dialog, me);
                end.answer(offer, answer.clone());
                end.settle();
                Some(answer)
            }
            (200, Some(answer)) => {
                end.take_answer(answer);
                None
            }
            (200, None) => None,
            (481 | 408, _) => {
                self.hang_up(call, dialog, me);
                None
            }
            _ => {
                end.take_rejection();
                None
            }
        }
    }

    fn acknowledge(&mut self, tx: TxId, status: u16, dialog: Option<DialogId>, sdp: Option<Desc>) {
        let msg = Msg {
            tx,
            form: Form::Ack(status),
            dialog,
            sdp,
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

    /// A response to the INVITE that begins a call.
    fn receive_progress(&mut self, msg: Msg, status: u16, was_done: bool) {
        let id = msg.tx;
        let (call, me) = (self.txs[id.0].call, self.txs[id.0].by);
        let offer = self.txs[id.0].offer.clone();
        let plan = self.calls[call.0].plan.clone();
        if status >= 300 {
            if was_done {
                self.acknowledge_again(id, None, status);
                return;
            }
            self.acknowledge(id, status, None, None);
            self.bury(call, me);
            if status == 401 && !self.calls[call.0].cancelled {
                let again = self.request(call, None, me, Method::Invite, offer);
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
            (None, Some(offer)) => {
                let answer = self.describe(&plan, call, dialog, me, Hold::None);
                self.end(call, dialog, me).answer(offer, answer.clone());
                Some(answer)
            }
            (Some(_), Some(sdp)) => {
                let end = self.end(call, dialog, me);
                if end.offered.is_some() {
                    end.take_answer(sdp);
                }
                None
            }
            (_, None) => None,
        };
        self.acknowledge(id, 200, Some(dialog), answer);
        let end = self.end(call, dialog, me);
        end.confirmed = true;
        end.busy = false;
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
                    _ => end.settle(),
                }
            }
        }
    }

    fn cancel(&mut self, call: CallId) {
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
        self.txs.push(Tx {
            call,
            dialog: None,
            by,
            method: Method::Cancel,
            cseq,
            branch,
            offer: None,
            answered: false,
            done: false,
            acks: Vec::new(),
            seen: false,
            provisionals: Vec::new(),
            finals: Vec::new(),
            cancelled: false,
        });
        self.calls[call.0].cseq = before;
        self.send_request(id);
        let now = self.now;
        self.after(T1, Event::Timer(Timer::Request(id, now, T1)));
    }

    fn plan_next(&mut self, call: CallId, dialog: DialogId, side: Side, left: usize) {
        let after = Duration::from_millis(self.random.between(300, 8_000));
        self.after(after, Event::Timer(Timer::Act(call, dialog, side, left)));
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
                let offer = self.successor(&plan, call, dialog, side, None);
                self.request(call, Some(dialog), side, Method::Invite, Some(offer));
            }
            5..=7 => {
                let offer = self.successor(&plan, call, dialog, side, None);
                self.request(call, Some(dialog), side, Method::Update, Some(offer));
            }
            _ => {
                self.end(call, dialog, side).busy = true;
                self.request(call, Some(dialog), side, Method::Invite, None);
            }
        }
        self.plan_next(call, dialog, side, left);
    }

    /// Whoever hangs up does not wait for the answer.
    fn hang_up(&mut self, call: CallId, dialog: DialogId, side: Side) {
        let end = self.end(call, dialog, side);
        if end.exists && !end.alive {
            return;
        }
        self.close(call, dialog, side);
        self.request(call, Some(dialog), side, Method::Bye, None);
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
}
