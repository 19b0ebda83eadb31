//! The files' shape as serde sees it: every key, with its place, before anything is checked.
//!
//! All leaves that need a check of their own are kept as text with its place, so that one pass can report every mistake and
//! show the right form. The names here are the names in the file: `config/README.md` describes each, and a test compares.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// A text and its place.
pub(super) type Text = Spanned<String>;
/// A list of texts and its place.
pub(super) type Texts = Spanned<Vec<Text>>;
/// A list of ports and its place.
pub(super) type Ports = Spanned<Vec<Spanned<u16>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConfig {
    pub interfaces: Option<Texts>,
    pub catalogue: Option<Text>,
    pub enforcement: Option<Text>,
    pub scope: Option<Text>,
    pub egress: Option<Text>,
    pub provisional: Option<bool>,
    pub on_stop: Option<Text>,
    pub strict: RawStrict,
    pub pbx: Option<Spanned<RawPbx>>,
    pub trunk: Vec<Spanned<RawTrunk>>,
    pub provider: Vec<Spanned<RawProvider>>,
    pub limits: RawLimits,
    pub timers: RawTimers,
    pub log: RawLog,
    pub metrics: RawMetrics,
    pub privacy: RawPrivacy,
    pub xdp: RawXdp,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStrict {
    pub allow: Vec<Spanned<RawAllow>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAllow {
    pub protocol: Option<Text>,
    pub ports: Option<Texts>,
    pub from: Option<Texts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPbx {
    pub preset: Option<Text>,
    pub rtp_ports: Option<Text>,
    pub udptl_ports: Option<Text>,
    pub addresses: Option<Texts>,
    pub signalling: RawSignallingPorts,
    pub nat: BTreeMap<Text, Text>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSignallingPorts {
    pub udp: Option<Ports>,
    pub tcp: Option<Ports>,
    pub tls: Option<Ports>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTrunk {
    pub provider: Option<Text>,
    pub signalling: Option<Texts>,
    pub transports: Option<Texts>,
    pub signalling_ports: RawSignallingPorts,
    pub signalling_limits: RawRates,
    pub media: RawMedia,
    pub early_media: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawProvider {
    pub name: Option<Text>,
    pub signalling: Option<Texts>,
    pub transports: Option<Texts>,
    pub signalling_ports: RawSignallingPorts,
    pub signalling_limits: RawRates,
    pub media: RawMedia,
    pub early_media: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMedia {
    pub source: Option<Text>,
    pub ports: Option<Text>,
    pub prefixes: Option<Texts>,
    pub replies: Option<Texts>,
    pub packets_per_second: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLimits {
    pub calls: Option<Spanned<u64>>,
    pub calls_per_provider: Option<Spanned<u64>>,
    pub dialogs_per_call: Option<Spanned<u64>>,
    pub media_per_session: Option<Spanned<u64>>,
    pub pinholes: Option<Spanned<u64>>,
    pub signalling: RawRates,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRates {
    pub requests_per_second: Option<Spanned<u64>>,
    pub messages_per_second: Option<Spanned<u64>>,
    pub segments_per_second: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTimers {
    pub media_idle: Option<Text>,
    pub hold_idle: Option<Text>,
    pub invite: Option<Text>,
    pub ack: Option<Text>,
    pub linger: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLog {
    pub format: Option<Text>,
    pub level: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMetrics {
    pub listen: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPrivacy {
    pub redact: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawXdp {
    pub mode: Option<Text>,
}

/// A file of `providers/`: what a `[[provider]]` says, and where it is known from.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawProfile {
    pub name: Option<Text>,
    pub source: Option<Text>,
    pub verified: Option<Text>,
    pub unpublished: Option<Text>,
    pub names: Option<Texts>,
    pub signalling: Option<Texts>,
    pub transports: Option<Texts>,
    pub signalling_ports: RawSignallingPorts,
    pub signalling_limits: RawRates,
    pub media: RawMedia,
    pub early_media: Option<Text>,
}

/// A file of `pbx/`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPreset {
    pub name: Option<Text>,
    pub source: Option<Text>,
    pub verified: Option<Text>,
    pub rtp_ports: Option<Text>,
    pub udptl_ports: Option<Text>,
    pub signalling: RawSignallingPorts,
}

/// The part that profiles, own providers and trunks share; a trunk's word goes before its provider's.
#[derive(Clone, Copy)]
pub(super) struct RawFacts<'a> {
    pub signalling: &'a Option<Texts>,
    pub transports: &'a Option<Texts>,
    pub signalling_ports: &'a RawSignallingPorts,
    pub signalling_limits: &'a RawRates,
    pub media: &'a RawMedia,
    pub early_media: &'a Option<Text>,
}

macro_rules! facts {
    ($($type:ty),*) => {$(
        impl $type {
            pub(super) fn facts(&self) -> RawFacts<'_> {
                RawFacts {
                    signalling: &self.signalling,
                    transports: &self.transports,
                    signalling_ports: &self.signalling_ports,
                    signalling_limits: &self.signalling_limits,
                    media: &self.media,
                    early_media: &self.early_media,
                }
            }
        }
    )*};
}
facts!(RawTrunk, RawProvider, RawProfile);
