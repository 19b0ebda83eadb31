//! Offer and answer in one dialog (RFC 3264, RFC 6337): which descriptions of the two sides belong together right now.
//!
//! It never reads SDP, sees no packet and knows no pinhole: `dialog` feeds it, `plan` reads it. Its invariant: an [`Agreement`] that
//! [`Negotiation::agreements`] yields holds at least one description of each side.

use std::sync::Arc;

use super::{
    message::{Branch, Seen, Verb},
    session::{Digest, LocalSession, RemoteSession},
    transaction::OfferIn,
};
use crate::engine::{Direction, Instant};

/// Alternative descriptions of one side that count at once (several provisional answers to one offer). The oldest goes first.
const MAX_ALTERNATIVES: usize = 4;
/// Offers that may be open at once: each side's INVITE and UPDATE, crossing.
const MAX_OPEN: usize = 4;

/// One description, by whose it is.
#[derive(Debug, Clone)]
pub enum Description {
    /// Seen leaving.
    Local(Arc<LocalSession>),
    /// Seen arriving.
    Remote(Arc<RemoteSession>),
}

impl Description {
    fn digest(&self) -> Digest {
        match self {
            Self::Local(session) => session.digest,
            Self::Remote(session) => session.digest,
        }
    }
}

/// Descriptions of both sides, each of which may be the one in force.
#[derive(Debug, Clone, Default)]
pub struct Agreement {
    /// The PBX's.
    pub local: Vec<Arc<LocalSession>>,
    /// The provider's.
    pub remote: Vec<Arc<RemoteSession>>,
}

impl Agreement {
    /// Adds an alternative; one that is there already changes nothing.
    fn add(&mut self, description: Description) {
        match description {
            Description::Local(session) => {
                add(&mut self.local, session, |known, new| {
                    known.digest == new.digest
                });
            }
            Description::Remote(session) => {
                add(&mut self.remote, session, |known, new| {
                    known.digest == new.digest
                });
            }
        }
    }

    fn is_complete(&self) -> bool {
        !self.local.is_empty() && !self.remote.is_empty()
    }

    fn is_same(&self, other: &Self) -> bool {
        let local = self.local.iter().map(|session| session.digest);
        let remote = self.remote.iter().map(|session| session.digest);
        local.eq(other.local.iter().map(|session| session.digest))
            && remote.eq(other.remote.iter().map(|session| session.digest))
    }

    fn has(&self, side: Direction, digest: Digest) -> bool {
        match side {
            Direction::Egress => self.local.iter().any(|known| known.digest == digest),
            Direction::Ingress => self.remote.iter().any(|known| known.digest == digest),
        }
    }
}

fn add<T>(alternatives: &mut Vec<Arc<T>>, new: Arc<T>, same: impl Fn(&T, &T) -> bool) {
    if alternatives.iter().any(|known| same(known, &new)) {
        return;
    }
    if alternatives.len() == MAX_ALTERNATIVES {
        alternatives.remove(0);
    }
    // Hardly any offer has more than one answer: no room in advance.
    alternatives.reserve_exact(1);
    alternatives.push(new);
}

/// The message that carries an offer, which says where its answer will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carrier {
    /// Who sent the request.
    pub requester: Direction,
    /// Its method.
    pub verb: Verb,
    /// Its CSeq number.
    pub cseq: u32,
    /// Its branch. INVITE transactions are matched by their own record, which may know several.
    pub branch: Option<Branch>,
    /// Request, or (INVITE only) response.
    pub offer_in: OfferIn,
}

impl Carrier {
    /// The transaction that this message belongs to.
    pub fn of(seen: &Seen<'_>, offer_in: OfferIn) -> Self {
        Self {
            requester: seen.requester(),
            verb: seen.verb,
            cseq: seen.cseq,
            branch: seen.branch,
            offer_in,
        }
    }

    fn offerer(&self) -> Direction {
        match self.offer_in {
            OfferIn::Request => self.requester,
            OfferIn::Response => self.requester.opposite(),
        }
    }

    /// Whether both mean the same transaction and place.
    fn is_same(&self, other: &Self) -> bool {
        let same_branch = self.verb == Verb::Invite
            || self.branch.is_none()
            || other.branch.is_none()
            || self.branch == other.branch;
        self.requester == other.requester
            && self.verb == other.verb
            && self.cseq == other.cseq
            && self.offer_in == other.offer_in
            && same_branch
    }
}

/// An offer that is out, and the provisional answers to it so far.
#[derive(Debug, Clone)]
pub struct Exchange {
    carrier: Carrier,
    sides: Agreement,
}

impl Exchange {
    /// An offer, just sent.
    pub fn new(carrier: Carrier, offer: Description) -> Self {
        let mut sides = Agreement::default();
        sides.add(offer);
        Self { carrier, sides }
    }

    /// What has been said so far.
    pub fn sides(&self) -> &Agreement {
        &self.sides
    }

    /// The PBX's offer, while nobody has answered it.
    pub fn unanswered_local(&self) -> Option<&LocalSession> {
        match (self.carrier.offerer(), self.sides.remote.is_empty()) {
            (Direction::Egress, true) => self.sides.local.first().map(Arc::as_ref),
            _ => None,
        }
    }

    fn is_answer_side(&self, answer: &Description) -> bool {
        matches!(
            (self.carrier.offerer(), answer),
            (Direction::Egress, Description::Remote(_))
                | (Direction::Ingress, Description::Local(_))
        )
    }

    /// The offer with this answer alone.
    fn answered(mut self, answer: Description) -> Agreement {
        match answer {
            Description::Local(_) => self.sides.local.clear(),
            Description::Remote(_) => self.sides.remote.clear(),
        }
        self.sides.add(answer);
        self.sides
    }
}

/// Whether an answer may still be followed by another (RFC 3261 §13.2.1: the first reliable one counts).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finality {
    /// In a 1xx.
    Provisional,
    /// In a 2xx, a PRACK or an ACK.
    Final,
}

/// What both sides stand on.
#[derive(Debug, Clone, Default)]
enum Standing {
    /// No answer yet to any offer.
    #[default]
    Nothing,
    /// The last answer is in force.
    Agreed(Agreement),
    /// The last answer is in force for who sent it, but the other side acts on it only once it has arrived: until then, media
    /// comes as agreed before.
    Settling {
        agreed: Agreement,
        before: Vec<Agreement>,
        /// Whose offer was answered: what proves that the answer has arrived.
        carrier: Carrier,
        until: Instant,
    },
}

/// The negotiation of one dialog.
#[derive(Debug, Clone, Default)]
pub struct Negotiation {
    standing: Standing,
    open: Vec<Exchange>,
    /// How often it has come to an answer, or to the end of what was before one.
    turn: u32,
}

impl Negotiation {
    /// A negotiation that begins with an offer.
    pub fn with_offer(exchange: Exchange) -> Self {
        Self {
            standing: Standing::Nothing,
            open: vec![exchange],
            turn: 0,
        }
    }

    /// An offer is out. The same carrier's earlier offer is replaced; others stay until each is answered or rejected (glare).
    pub fn offer(&mut self, exchange: Exchange) {
        // Nobody makes an offer who still waits for an answer (RFC 3264 §4).
        if let Standing::Settling { carrier, .. } = &self.standing
            && carrier.offerer() == exchange.carrier.offerer()
        {
            self.finish();
        }
        if let Some(known) = self
            .open
            .iter_mut()
            .find(|known| known.carrier.is_same(&exchange.carrier))
        {
            if known.offer_digest() != exchange.offer_digest() {
                *known = exchange;
            }
            return;
        }
        if self.open.len() == MAX_OPEN {
            self.open.remove(0);
        }
        self.open.reserve_exact(1);
        self.open.push(exchange);
    }

    /// Whether an offer by this carrier waits for its answer.
    pub fn is_open(&self, carrier: &Carrier) -> bool {
        self.position(carrier).is_some()
    }

    /// Whether this side's description is one of those in force.
    pub fn has(&self, side: Direction, digest: Digest) -> bool {
        self.agreed()
            .into_iter()
            .chain(self.open.iter().map(|exchange| &exchange.sides))
            .any(|sides| sides.has(side, digest))
    }

    /// The answer to the offer that this carrier brought: of the other side, since the carrier of a message names its requester by
    /// the side that it came from. `until` bounds how long what was before may still be heard.
    pub fn answer(
        &mut self,
        carrier: &Carrier,
        answer: Description,
        finality: Finality,
        until: Instant,
    ) {
        let Some(index) = self.position(carrier) else {
            self.add_late(answer);
            return;
        };
        match finality {
            Finality::Provisional => {
                if let Some(exchange) = self.open.get_mut(index) {
                    debug_assert!(exchange.is_answer_side(&answer));
                    self.turn = self.turn.wrapping_add(1);
                    exchange.sides.add(answer);
                }
            }
            Finality::Final => {
                let exchange = self.open.remove(index);
                debug_assert!(exchange.is_answer_side(&answer));
                let provisional = exchange.sides.clone();
                self.agree(
                    *carrier,
                    exchange.answered(answer),
                    Some(provisional),
                    until,
                );
            }
        }
    }

    /// The transaction succeeded and its last message brought no SDP: the provisional answers stand.
    pub fn settle(&mut self, carrier: &Carrier, until: Instant) {
        let Some(index) = self.position(carrier) else {
            return;
        };
        let complete = self
            .open
            .get(index)
            .is_some_and(|exchange| exchange.sides.is_complete());
        // A first offer without any answer was answered in a message that we did not see; it stays until the call tells more.
        if complete {
            let exchange = self.open.remove(index);
            self.agree(*carrier, exchange.sides, None, until);
        } else if self.agreed().is_some() {
            self.open.remove(index);
        }
    }

    /// The transaction failed: as if it had never been (RFC 3261 §14.1, RFC 3311 §5.2).
    pub fn reject(&mut self, carrier: &Carrier) {
        if let Some(index) = self.position(carrier) {
            self.open.remove(index);
        }
    }

    /// The ACK to this INVITE's 2xx is seen: who sent it has the answer that stood there. Of an answer to an UPDATE or PRACK it says
    /// nothing, since nobody waits for that one before the ACK.
    pub fn acknowledge(&mut self, requester: Direction, cseq: u32) {
        if let Standing::Settling { carrier, .. } = &self.standing
            && (carrier.verb, carrier.offer_in) == (Verb::Invite, OfferIn::Request)
            && (carrier.requester, carrier.cseq) == (requester, cseq)
        {
            self.finish();
        }
    }

    /// Both sides have the last answer: what was before is over.
    pub fn finish(&mut self) {
        self.standing = match std::mem::take(&mut self.standing) {
            Standing::Settling { agreed, .. } => {
                self.turn = self.turn.wrapping_add(1);
                Standing::Agreed(agreed)
            }
            standing => standing,
        };
    }

    /// A number that changes whenever who sends may have changed: with each answer, and once what was before it is over.
    pub fn turn(&self) -> u32 {
        self.turn
    }

    /// When [`Self::finish`] is due by itself.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.standing {
            Standing::Settling { until, .. } => Some(*until),
            Standing::Nothing | Standing::Agreed(_) => None,
        }
    }

    /// What the last answer made, if there was one.
    pub fn agreed(&self) -> Option<&Agreement> {
        match &self.standing {
            Standing::Nothing => None,
            Standing::Agreed(agreed) | Standing::Settling { agreed, .. } => Some(agreed),
        }
    }

    /// Everything that may be in force: what was agreed, what is being left behind, and provisional answers.
    pub fn agreements(&self) -> impl Iterator<Item = &Agreement> {
        let before = match &self.standing {
            Standing::Settling { before, .. } => before.as_slice(),
            Standing::Nothing | Standing::Agreed(_) => &[],
        };
        self.agreed()
            .into_iter()
            .chain(before)
            .chain(self.open.iter().map(|exchange| &exchange.sides))
            .filter(|sides| sides.is_complete())
    }

    /// The offers that are out.
    pub fn open(&self) -> &[Exchange] {
        &self.open
    }

    /// The latest description of the PBX, answered or not: what `hold` refers to.
    pub fn last_local(&self) -> Option<&LocalSession> {
        self.agreements()
            .find_map(|sides| sides.local.last())
            .map(Arc::as_ref)
    }

    /// The latest description of the provider.
    pub fn last_remote(&self) -> Option<&RemoteSession> {
        self.agreements()
            .find_map(|sides| sides.remote.last())
            .map(Arc::as_ref)
    }

    fn position(&self, carrier: &Carrier) -> Option<usize> {
        self.open
            .iter()
            .position(|exchange| exchange.carrier.is_same(carrier))
    }

    fn agree(
        &mut self,
        carrier: Carrier,
        agreed: Agreement,
        provisional: Option<Agreement>,
        until: Instant,
    ) {
        self.turn = self.turn.wrapping_add(1);
        let mut before: Vec<Agreement> = Vec::new();
        match std::mem::take(&mut self.standing) {
            Standing::Nothing => {}
            Standing::Agreed(old) | Standing::Settling { agreed: old, .. } => before.push(old),
        }
        before.extend(provisional);
        // An earlier offer that already has provisional answers is superseded: offers and answers are strictly in sequence
        // within a dialog (RFC 3264 §4), so the one that was answered last is the newest.
        let (superseded, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|exchange| exchange.sides.is_complete());
        self.open = open;
        let superseded: Vec<Exchange> = superseded;
        before.extend(superseded.into_iter().map(|exchange| exchange.sides));
        before.retain(|old| old.is_complete() && !old.is_same(&agreed));
        self.standing = if before.is_empty() {
            Standing::Agreed(agreed)
        } else {
            Standing::Settling {
                agreed,
                before,
                carrier,
                until,
            }
        };
    }

    /// SDP in a response whose offer is already settled. It should only repeat what was said (RFC 6337 §3.1.1); who means
    /// something else by it is heard, but loses nothing of what was agreed.
    fn add_late(&mut self, description: Description) {
        let side = match description {
            Description::Local(_) => Direction::Egress,
            Description::Remote(_) => Direction::Ingress,
        };
        if self.has(side, description.digest()) {
            return;
        }
        match &mut self.standing {
            Standing::Nothing => {}
            Standing::Agreed(agreed) | Standing::Settling { agreed, .. } => agreed.add(description),
        }
    }
}

impl Exchange {
    fn offer_digest(&self) -> Option<Digest> {
        match self.carrier.offerer() {
            Direction::Egress => self.sides.local.first().map(|session| session.digest),
            Direction::Ingress => self.sides.remote.first().map(|session| session.digest),
        }
    }
}
