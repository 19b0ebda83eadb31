//! What the engine counts, under names that never change.
//!
//! It counts; it rates, exposes and resets nothing.

use std::collections::BTreeMap;

use super::{EndReason, Refusal, reassemble::counts::Counts};

impl Refusal {
    /// Every refusal, in the order of its declaration.
    pub const ALL: [Self; 18] = [
        Self::MalformedSip,
        Self::MalformedSdp,
        Self::ForeignLocalAddress,
        Self::ForeignLocalPort,
        Self::ForeignRemoteMedia,
        Self::WrongDialog,
        Self::UnknownDialog,
        Self::UnknownPeer,
        Self::Tls,
        Self::HostName,
        Self::Truncated,
        Self::TooManyCalls,
        Self::TooManyCallsOfProvider,
        Self::TooManyDialogs,
        Self::TooManyMedia,
        Self::TooManySources,
        Self::TooManyPinholes,
        Self::ActionFailed,
    ];

    /// A stable name: a metric's label, and what a report prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::MalformedSip => "malformed_sip",
            Self::MalformedSdp => "malformed_sdp",
            Self::ForeignLocalAddress => "foreign_local_address",
            Self::ForeignLocalPort => "foreign_local_port",
            Self::ForeignRemoteMedia => "foreign_remote_media",
            Self::WrongDialog => "wrong_dialog",
            Self::UnknownDialog => "unknown_dialog",
            Self::UnknownPeer => "unknown_peer",
            Self::Tls => "tls",
            Self::HostName => "host_name",
            Self::Truncated => "truncated",
            Self::TooManyCalls => "too_many_calls",
            Self::TooManyCallsOfProvider => "too_many_calls_of_provider",
            Self::TooManyDialogs => "too_many_dialogs",
            Self::TooManyMedia => "too_many_media",
            Self::TooManySources => "too_many_sources",
            Self::TooManyPinholes => "too_many_pinholes",
            Self::ActionFailed => "action_failed",
        }
    }
}

impl EndReason {
    /// Every name that [`Self::name`] gives.
    pub const NAMES: [&'static str; 10] = [
        "bye_local",
        "bye_remote",
        "cancelled",
        "rejected",
        "no_answer",
        "shed",
        "no_ack",
        "idle",
        "operator",
        "provider_removed",
    ];

    /// A stable name: a metric's label, and what a report prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bye(super::Direction::Egress) => "bye_local",
            Self::Bye(super::Direction::Ingress) => "bye_remote",
            Self::Cancelled => "cancelled",
            Self::Rejected(_) => "rejected",
            Self::NoAnswer => "no_answer",
            Self::Shed => "shed",
            Self::NoAck => "no_ack",
            Self::Idle => "idle",
            Self::Operator => "operator",
            Self::ProviderRemoved => "provider_removed",
        }
    }
}

/// The engine's counters since its start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// SIP messages read that came in.
    pub messages_in: u64,
    /// SIP messages read that went out.
    pub messages_out: u64,
    /// Keep-alives in place of messages.
    pub keep_alives: u64,
    /// Copies of signalling that were lost before the engine saw them.
    pub capture_lost: u64,
    /// Calls seen.
    pub calls: u64,
    /// Calls that a 2xx confirmed.
    pub calls_confirmed: u64,
    /// Pinholes opened.
    pub pinholes_opened: u64,
    /// Pinholes changed while open.
    pub pinholes_updated: u64,
    /// Pinholes closed.
    pub pinholes_closed: u64,
    /// What reassembly of fragments and streams counted.
    pub reassembly: Counts,
    refusals: BTreeMap<Refusal, u64>,
    ends: BTreeMap<&'static str, u64>,
}

/// One counter's reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The counter's name.
    pub name: &'static str,
    /// Its label, if it has one: the label's name and value.
    pub label: Option<(&'static str, &'static str)>,
    /// Its value.
    pub value: u64,
}

impl Counters {
    /// How often something was refused.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refusals.get(&refusal).copied().unwrap_or(0)
    }

    /// How many calls ended so ([`EndReason::name`]).
    pub fn ended(&self, name: &str) -> u64 {
        self.ends.get(name).copied().unwrap_or(0)
    }

    /// Every counter, those at zero included, always in the same order.
    pub fn readings(&self) -> impl Iterator<Item = Reading> {
        let plain = [
            ("messages_in", self.messages_in),
            ("messages_out", self.messages_out),
            ("keep_alives", self.keep_alives),
            ("capture_lost", self.capture_lost),
            ("calls", self.calls),
            ("calls_confirmed", self.calls_confirmed),
            ("pinholes_opened", self.pinholes_opened),
            ("pinholes_updated", self.pinholes_updated),
            ("pinholes_closed", self.pinholes_closed),
        ]
        .map(|(name, value)| Reading {
            name,
            label: None,
            value,
        });
        let refusals = Refusal::ALL.map(|refusal| Reading {
            name: "refusals",
            label: Some(("refusal", refusal.name())),
            value: self.refused(refusal),
        });
        let ends = EndReason::NAMES.map(|reason| Reading {
            name: "calls_ended",
            label: Some(("reason", reason)),
            value: self.ended(reason),
        });
        let reassembly = self.reassembly.readings().map(|(count, value)| Reading {
            name: "reassembly",
            label: Some(("event", count.name())),
            value,
        });
        plain
            .into_iter()
            .chain(refusals)
            .chain(ends)
            .chain(reassembly)
    }

    pub(super) fn count_refusal(&mut self, refusal: Refusal) {
        *self.refusals.entry(refusal).or_default() += 1;
    }

    pub(super) fn count_end(&mut self, reason: EndReason) {
        *self.ends.entry(reason.name()).or_default() += 1;
    }
}
