//! INVITE transactions as a listener sees them: which request a response answers, and whether it is settled.
//!
//! A transaction is known by its requester's side (where it is kept), its CSeq number and its branch (RFC 3261 §17.1.3). It knows
//! nothing of dialogs and never reads a body.

use super::message::{Branch, Seen};
use crate::engine::Direction;

/// Copies of one INVITE that a forking proxy upstream may send to the same PBX, each with a branch of its own
/// (RFC 3261 §8.2.2.2). More than a handful is a loop.
const MAX_BRANCHES: usize = 8;

/// One value for each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sides<T> {
    local: T,
    remote: T,
}

impl<T> Sides<T> {
    /// The value of the party whose messages go this way.
    pub fn of(&self, side: Direction) -> &T {
        match side {
            Direction::Egress => &self.local,
            Direction::Ingress => &self.remote,
        }
    }

    /// The same, to change it.
    pub fn of_mut(&mut self, side: Direction) -> &mut T {
        match side {
            Direction::Egress => &mut self.local,
            Direction::Ingress => &mut self.remote,
        }
    }
}

/// Whether an INVITE carried the offer, or left it to the other side (RFC 3261 §13.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferIn {
    /// The request had SDP.
    Request,
    /// The response must bring it.
    Response,
}

/// Whether a final response was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Not yet.
    Pending,
    /// Yes: whatever comes now is a retransmission or late.
    Final,
}

/// One INVITE transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// The request's CSeq number.
    pub cseq: u32,
    /// Where the offer stands.
    pub offer_in: OfferIn,
    /// How far it got.
    pub progress: Progress,
    /// The copies that have not failed.
    branches: Vec<Copied>,
    /// Any response was seen.
    responded: bool,
}

/// One copy of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Copied {
    branch: Branch,
    responded: bool,
}

impl Invite {
    /// The transaction that this request begins.
    pub fn new(request: &Seen<'_>) -> Self {
        Self {
            cseq: request.cseq,
            offer_in: if request.sdp.is_some() {
                OfferIn::Request
            } else {
                OfferIn::Response
            },
            progress: Progress::Pending,
            branches: request.branch.map(Copied::new).into_iter().collect(),
            responded: false,
        }
    }

    /// A further copy of the request, or the same one again.
    pub fn add_branch(&mut self, branch: Option<Branch>) {
        if let Some(branch) = branch
            && self.branches.iter().all(|known| known.branch != branch)
            && self.branches.len() < MAX_BRANCHES
        {
            self.branches.push(Copied::new(branch));
        }
    }

    /// Whether the message is this transaction's response. Messages without a branch (RFC 2543) are judged by CSeq alone.
    pub fn is_answered_by(&self, response: &Seen<'_>) -> bool {
        self.cseq == response.cseq && self.has_branch(response.branch)
    }

    fn has_branch(&self, branch: Option<Branch>) -> bool {
        self.branches.is_empty()
            || branch.is_none_or(|branch| self.branches.iter().any(|known| known.branch == branch))
    }

    /// Whoever got this copy is there.
    pub fn note_response(&mut self, branch: Option<Branch>) {
        self.responded = true;
        for copied in &mut self.branches {
            copied.responded |= branch.is_none_or(|branch| copied.branch == branch);
        }
    }

    /// Whether somebody is at work on it: a copy that has not failed was responded to (RFC 3261 §17.1.1.2 "Proceeding").
    pub fn is_proceeding(&self) -> bool {
        match self.branches.as_slice() {
            [] => self.responded,
            copies => copies.iter().any(|copied| copied.responded),
        }
    }

    /// A final error for one copy: forgets that copy, and tells whether it was the last.
    pub fn fail_branch(&mut self, branch: Option<Branch>) -> bool {
        if let Some(branch) = branch {
            self.branches.retain(|known| known.branch != branch);
        } else {
            self.branches.clear();
        }
        self.branches.is_empty()
    }
}

impl Copied {
    fn new(branch: Branch) -> Self {
        Self {
            branch,
            responded: false,
        }
    }
}
