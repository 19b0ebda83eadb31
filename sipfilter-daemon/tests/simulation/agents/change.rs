//! Descriptions and how they change: new ports, hold, added and removed streams, fax and back, by re-INVITE, UPDATE or PRACK (RFC 3264).
//!
//! Who asks for a change and when is the other files' matter.

use std::{collections::BTreeSet, net::IpAddr};

use super::{SETTLED, Timer};
use crate::{
    call::{CallId, DialogId, Method, Plan, TxId},
    places::{PBX, address, media_address},
    wire::{Desc, Hold, Layout, Medium, Section, Side},
    world::{Event, World},
};

impl World {
    /// A new description for one side of a call, with new ports.
    pub(super) fn describe(
        &mut self,
        plan: &Plan,
        owner: (CallId, DialogId),
        side: Side,
        hold: Hold,
        layout: &Layout,
    ) -> Desc {
        let address: IpAddr = match side {
            Side::Provider => {
                let index = self.random.between(0, 5);
                media_address(plan.provider, plan.v6, index)
            }
            Side::Pbx => address(PBX[usize::from(plan.v6)]),
        };
        let sections = layout
            .iter()
            .map(|&(medium, is_there)| Section {
                medium,
                port: if is_there {
                    self.take_port(owner, side)
                } else {
                    0
                },
            })
            .collect();
        self.version += 1;
        Desc {
            version: self.version,
            address,
            sections,
            mux: plan.mux,
            hold,
        }
    }

    /// The PBX has few ports, so that one that a call leaves is soon another's.
    fn take_port(&mut self, owner: (CallId, DialogId), side: Side) -> u16 {
        if side == Side::Provider {
            return 20_000 + 2 * self.random.between(0, 9_999) as u16;
        }
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
        self.ports.insert(port, owner);
        port
    }

    /// A re-INVITE or an UPDATE, or a PRACK with an offer of its own.
    pub(super) fn receive_change(
        &mut self,
        id: TxId,
        (call, dialog): (CallId, DialogId),
        me: Side,
        offer: Option<Desc>,
    ) {
        let method = self.txs[id.0].method;
        let plan = self.calls[call.0].plan.clone();
        let end = self.end(call, dialog, me);
        let status = match () {
            () if !end.alive => 481,
            () if method == Method::Prack => 200,
            () if end.busy || !(end.confirmed || end.early) => 491,
            () if self.random.percent(15) => 488,
            () => 200,
        };
        if status != 200 {
            self.respond(id, status, Some(dialog), None);
            return;
        }
        let sdp = match offer {
            Some(offer) => {
                let answer = self.successor(&plan, (call, dialog), me, Some(&offer));
                let version = answer.version;
                self.end(call, dialog, me).answer(offer, answer.clone());
                if method != Method::Invite {
                    self.end(call, dialog, me).unproven = true;
                    let timer = Timer::Settle(call, dialog, me, version);
                    self.after(SETTLED, Event::Timer(timer));
                }
                answer
            }
            None => {
                let offer = self.successor(&plan, (call, dialog), me, None);
                self.end(call, dialog, me).send_offer(offer.clone());
                offer
            }
        };
        if method == Method::Invite {
            self.end(call, dialog, me).busy = true;
        }
        self.respond(id, 200, Some(dialog), Some(sdp));
    }

    /// The next description of a side: the old place or a new one; an answer to a hold is the other half of it.
    pub(super) fn successor(
        &mut self,
        plan: &Plan,
        owner: (CallId, DialogId),
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
        let mine = self.end(owner.0, owner.1, side).mine.clone();
        let layout = match (offer, &mine) {
            (Some(offer), _) => self.answering_layout(offer),
            // Without an address on paper nobody could know of a new place.
            (None, Some(mine)) if hold == Hold::NoAddress => mine.layout(),
            (None, Some(mine)) => self.next_layout(mine),
            (None, None) => first_layout(plan),
        };
        let stays = hold == Hold::NoAddress || self.random.percent(50);
        let mine = match mine {
            Some(mine) if stays => mine,
            _ => return self.describe(plan, owner, side, hold, &layout),
        };
        // The same port may change from voice to fax.
        let old = |index: usize| mine.sections.get(index).map_or(0, |section| section.port);
        let mut sections = Vec::new();
        for (index, &(medium, is_there)) in layout.iter().enumerate() {
            let port = match (is_there, old(index)) {
                (false, _) => 0,
                (true, 0) => self.take_port(owner, side),
                (true, port) => port,
            };
            sections.push(Section { medium, port });
        }
        self.version += 1;
        Desc {
            version: self.version,
            sections,
            hold,
            ..mine
        }
    }

    /// An answer has the offer's sections, and may refuse all but the first that are there (RFC 3264 §6).
    fn answering_layout(&mut self, offer: &Desc) -> Layout {
        let mut layout = offer.layout();
        let there = layout.iter_mut().filter(|(_, is_there)| *is_there);
        for (_, is_there) in there.skip(1) {
            *is_there = !self.random.percent(10);
        }
        layout
    }

    /// What an offerer may change of its sections: the first becomes a fax, or gives way to one; a fax ends; another stream comes or goes.
    fn next_layout(&mut self, mine: &Desc) -> Layout {
        let mut layout = mine.layout();
        let fax = layout.iter().position(|&(medium, _)| medium == Medium::Fax);
        match (self.random.below(10), fax) {
            (0..=4, Some(0)) => layout[0] = (Medium::Audio, true),
            (0..=4, Some(fax)) if layout[fax].1 => {
                layout[fax].1 = false;
                layout[0].1 = true;
            }
            // Sections are never taken away, only emptied.
            (0, None) if layout.len() > 1 => {
                let last = layout.len() - 1;
                layout[last].1 = !layout[last].1;
            }
            (0 | 1, None) => layout[0] = (Medium::Fax, true),
            (2, None) => {
                layout[0].1 = false;
                layout.push((Medium::Fax, true));
            }
            (3, None) if layout.len() < 2 => layout.push((Medium::Video, true)),
            _ => {}
        }
        if layout.iter().all(|(_, is_there)| !is_there) {
            layout[0].1 = true;
        }
        layout
    }

    /// Tells what the ACK must carry.
    pub(super) fn finish_change(
        &mut self,
        id: TxId,
        call: CallId,
        dialog: DialogId,
        me: Side,
        status: u16,
        sdp: Option<Desc>,
    ) -> Option<Desc> {
        let plan = self.calls[call.0].plan.clone();
        let is_delayed = self.txs[id.0].body.offer().is_none();
        let end = self.end(call, dialog, me);
        if !end.alive {
            // A delayed offer needs its answer all the same.
            return None;
        }
        end.busy = false;
        match (status, sdp) {
            (200, Some(offer)) if is_delayed => {
                let answer = self.successor(&plan, (call, dialog), me, Some(&offer));
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
            (481 | 408, _) if end.confirmed => {
                self.hang_up(call, dialog, me);
                None
            }
            _ => {
                end.take_rejection();
                None
            }
        }
    }
}

/// What a call begins with.
pub(super) fn first_layout(plan: &Plan) -> Layout {
    [(Medium::Audio, true), (Medium::Video, true)][..plan.streams].to_vec()
}
