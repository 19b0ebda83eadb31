//! A configuration and the catalogue in words and numbers, for tables and for JSON.
//!
//! It prints nothing. The field names are the stable schema of `--json`.

use std::{collections::BTreeMap, path::Path};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Config, Diagnostic, Invalid, LoadError, Origin, Severity,
    catalogue::Catalogue,
    document::Document,
    provider::{Facts, Keyword},
    raw::RawProvider,
    scope::protocol_name,
};
use crate::engine::settings::{
    Allow, Provider, Provisional, Scope, SignallingPorts, SignallingRates,
};

/// A whole configuration as it takes effect.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Summary {
    /// The outer interfaces.
    pub interfaces: Vec<String>,
    /// How the kernel program is attached.
    pub xdp_mode: String,
    /// `enforce` or `observe`.
    pub enforcement: &'static str,
    /// `voice` or `strict`.
    pub scope: &'static str,
    /// `count` or `enforce`.
    pub egress: &'static str,
    /// Whether media may come before the daemon has read of it.
    pub provisional: bool,
    /// What strict scope lets in.
    pub allow: Vec<AllowSummary>,
    /// The PBX preset, if one is used.
    pub preset: Option<String>,
    /// Protected addresses; empty means the interfaces' own.
    pub addresses: Vec<String>,
    /// Local RTP ports.
    pub rtp_ports: String,
    /// Local UDPTL ports.
    pub udptl_ports: Option<String>,
    /// Local SIP ports by transport.
    pub signalling: BTreeMap<&'static str, Vec<u16>>,
    /// Private addresses and the public one of each.
    pub nat: BTreeMap<String, String>,
    /// One for each trunk.
    pub providers: Vec<ProviderSummary>,
    /// Caps by key.
    pub limits: BTreeMap<&'static str, usize>,
    /// Durations by key, as the file writes them.
    pub timers: BTreeMap<&'static str, String>,
    /// What a daemon that is stopped leaves behind.
    pub on_stop: super::OnStop,
    /// The directory whose profiles and presets go before the embedded ones.
    pub catalogue: Option<String>,
    /// Log format and level.
    pub log: super::Log,
    /// Where Prometheus finds the metrics; `null` where they are off.
    pub metrics: Option<String>,
    /// Whom log, control sockets and captures do not name.
    pub privacy: super::Privacy,
}

/// One line of the allow-list of strict scope.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AllowSummary {
    /// `tcp`, `udp`, another name or a number.
    pub protocol: String,
    /// Port ranges; empty for a protocol whose ports are not read.
    pub ports: Vec<String>,
    /// Source prefixes; empty for anywhere.
    pub from: Vec<String>,
}

impl AllowSummary {
    fn new(rule: &Allow) -> Self {
        Self {
            protocol: protocol_name(rule.protocol),
            ports: rule.ports.iter().map(range).collect(),
            from: rule.from.iter().map(ToString::to_string).collect(),
        }
    }
}

/// One provider, of the catalogue or in use.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ProviderSummary {
    /// Its name.
    pub name: String,
    /// `built-in`, `file` or `configuration`.
    pub origin: &'static str,
    /// A trunk uses it.
    pub configured: bool,
    /// It can be used as it stands.
    pub loadable: bool,
    /// What is missing, if it is not.
    pub missing: Option<String>,
    /// Signalling prefixes.
    pub signalling: Vec<String>,
    /// How much SIP one of its addresses may send, by key.
    pub signalling_limits: Option<SignallingLimits>,
    /// `transport:port`, by transport.
    pub transports: Vec<String>,
    /// How the media source follows from SDP.
    pub media_source: Option<&'static str>,
    /// The provider's RTP ports.
    pub media_ports: Option<String>,
    /// The provider's media prefixes.
    pub media_prefixes: Vec<String>,
    /// The provider's ports from which replies may come without a pinhole.
    pub media_replies: Vec<String>,
    /// The most packets per second of one stream, where it is not what was negotiated.
    pub media_packets_per_second: Option<u32>,
    /// When early media is let in.
    pub early_media: Option<&'static str>,
    /// The host names that the provider documents; no address is allowed for being one of theirs.
    pub names: Vec<String>,
    /// Where the facts are from.
    pub source: Option<String>,
    /// When they were last checked.
    pub verified: Option<String>,
}

/// How much SIP one address may send; named as in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SignallingLimits {
    /// Datagrams with requests that can begin something.
    pub requests_per_second: u32,
    /// Other datagrams.
    pub messages_per_second: u32,
    /// TCP segments.
    pub segments_per_second: u32,
}

impl SignallingLimits {
    fn new(rates: &SignallingRates) -> Self {
        Self {
            requests_per_second: rates.requests,
            messages_per_second: rates.messages,
            segments_per_second: rates.segments,
        }
    }
}

impl ProviderSummary {
    fn unknown(name: &str, origin: &Origin, missing: String) -> Self {
        Self {
            name: name.to_owned(),
            origin: origin.as_str(),
            configured: false,
            loadable: false,
            missing: Some(missing),
            signalling: Vec::new(),
            signalling_limits: None,
            transports: Vec::new(),
            media_source: None,
            media_ports: None,
            media_prefixes: Vec::new(),
            media_replies: Vec::new(),
            media_packets_per_second: None,
            early_media: None,
            names: Vec::new(),
            source: None,
            verified: None,
        }
    }

    fn new(provider: &Provider, origin: &Origin, configured: bool) -> Self {
        let ports = by_transport(&provider.signalling_ports);
        Self {
            configured,
            loadable: true,
            missing: None,
            signalling: provider
                .signalling
                .iter()
                .map(ToString::to_string)
                .collect(),
            signalling_limits: Some(SignallingLimits::new(&provider.rates)),
            transports: provider
                .transports
                .iter()
                .flat_map(|transport| {
                    let word = transport.as_word();
                    ports[word].iter().map(move |port| format!("{word}:{port}"))
                })
                .collect(),
            media_source: Some(provider.media.source.as_word()),
            media_ports: Some(range(&provider.media.ports)),
            media_prefixes: provider
                .media
                .prefixes
                .iter()
                .map(ToString::to_string)
                .collect(),
            media_replies: provider.media.replies.iter().map(range).collect(),
            media_packets_per_second: provider.media.packets_per_second,
            early_media: Some(provider.early_media.as_word()),
            ..Self::unknown(&provider.name, origin, String::new())
        }
    }
}

impl Config {
    /// The trunks' providers, in the order of the trunks.
    fn providers_in_use(&self) -> Vec<ProviderSummary> {
        let catalogue = catalogue_of(Some(self));
        let providers = self.settings.providers.iter().zip(&self.origins);
        providers
            .map(|(provider, origin)| {
                let profile = match origin {
                    Origin::Configuration => None,
                    _ => catalogue
                        .provider(&provider.name)
                        .and_then(|(profile, ..)| profile),
                };
                let (names, source, verified) = profile.map_or_else(Default::default, |it| {
                    (it.names, Some(it.source), Some(it.verified))
                });
                ProviderSummary {
                    names,
                    source,
                    verified,
                    ..ProviderSummary::new(provider, origin, true)
                }
            })
            .collect()
    }

    /// What is in effect.
    pub fn summary(&self) -> Summary {
        let pbx = &self.settings.pbx;
        let limits = &self.settings.limits;
        let timers = &self.settings.timers;
        let filtering = &self.settings.filtering;
        let (scope, allow) = match &filtering.scope {
            Scope::Voice => ("voice", Vec::new()),
            Scope::Strict(rules) => ("strict", rules.iter().map(AllowSummary::new).collect()),
        };
        let duration = |value| humantime::format_duration(value).to_string();
        Summary {
            interfaces: self.interfaces.clone(),
            xdp_mode: self.xdp.to_string(),
            enforcement: filtering.enforcement.as_word(),
            scope,
            egress: filtering.egress.as_word(),
            provisional: filtering.provisional == Provisional::On,
            allow,
            preset: self.preset.clone(),
            addresses: pbx.addresses.iter().map(ToString::to_string).collect(),
            rtp_ports: range(&pbx.rtp_ports),
            udptl_ports: pbx.udptl_ports.as_ref().map(range),
            signalling: by_transport(&pbx.signalling),
            nat: pbx
                .nat
                .iter()
                .map(|(private, public)| (private.to_string(), public.to_string()))
                .collect(),
            providers: self.providers_in_use(),
            limits: BTreeMap::from([
                ("calls", limits.calls),
                ("calls_per_provider", limits.calls_per_provider),
                ("dialogs_per_call", limits.dialogs_per_call),
                ("media_per_session", limits.media_per_session),
                ("pinholes", limits.pinholes),
            ]),
            timers: BTreeMap::from([
                ("media_idle", duration(timers.media_idle)),
                ("hold_idle", duration(timers.hold_idle)),
                ("invite", duration(timers.invite)),
                ("ack", duration(timers.ack)),
                ("linger", duration(timers.linger)),
            ]),
            on_stop: self.on_stop,
            catalogue: self
                .catalogue
                .as_ref()
                .map(|directory| directory.display().to_string()),
            log: self.log,
            metrics: self.metrics.map(|address| address.to_string()),
            privacy: self.privacy,
        }
    }
}

/// Every provider that can be named: the catalogue's as they are by themselves, and those of `config` as it uses them.
pub fn providers(config: Option<&Config>) -> Vec<ProviderSummary> {
    let mut summaries: BTreeMap<String, ProviderSummary> = BTreeMap::new();
    let catalogue = catalogue_of(config);
    for name in catalogue.provider_names() {
        summaries.insert(name.to_owned(), of_catalogue(&catalogue, name));
    }
    for summary in config.map(Config::providers_in_use).unwrap_or_default() {
        summaries.insert(summary.name.clone(), summary);
    }
    summaries.into_values().collect()
}

fn catalogue_of(config: Option<&Config>) -> Catalogue {
    let mut catalogue = Catalogue::built_in();
    if let Some(directory) = config.and_then(|config| config.catalogue.as_deref()) {
        // It could be read a moment ago, when the configuration was loaded; if it is gone, the embedded profiles remain.
        let _ = catalogue.add_directory(directory);
    }
    catalogue
}

fn of_catalogue(catalogue: &Catalogue, name: &str) -> ProviderSummary {
    let Some((profile, origin, diagnostics)) = catalogue.provider(name) else {
        return ProviderSummary::unknown(name, &Origin::BuiltIn, "not in the catalogue".to_owned());
    };
    let Some(profile) = profile else {
        let first = Invalid(diagnostics.into_diagnostics()).first_message();
        return ProviderSummary::unknown(name, &origin, first);
    };
    // Finished against an empty file: what is missing is what a trunk that says no more than the name would lack.
    let (mut doc, _) = Document::parse::<RawProvider>(Path::new(name), "");
    let unpublished = profile.unpublished.clone();
    let media = profile.facts.clone();
    let summary = match profile
        .facts
        .finish(&mut doc, 0..0, name, unpublished.as_deref())
    {
        Some(provider) => ProviderSummary::new(&provider, &origin, false),
        None => {
            // Shown with everything but the addresses.
            let missing =
                unpublished.unwrap_or_else(|| Invalid(doc.into_diagnostics()).first_message());
            let (mut rest, _) = Document::parse::<RawProvider>(Path::new(name), "");
            let placeholder = Facts {
                signalling: Some(Vec::new()),
                ..media
            };
            let base = ProviderSummary::unknown(name, &origin, missing.clone());
            placeholder
                .finish(&mut rest, 0..0, name, None)
                .map_or(base, |provider| ProviderSummary {
                    loadable: false,
                    missing: Some(missing),
                    ..ProviderSummary::new(&provider, &origin, false)
                })
        }
    };
    ProviderSummary {
        names: profile.names,
        source: Some(profile.source),
        verified: Some(profile.verified),
        ..summary
    }
}

impl Invalid {
    fn first_message(&self) -> String {
        self.0.first().map_or_else(String::new, |first| {
            format!("{}: {}", first.file.name, first.message)
        })
    }
}

impl LoadError {
    /// The diagnostics, where the file could be read.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid(Invalid(diagnostics)) => diagnostics,
        }
    }
}

/// A diagnostic as programs read it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Diagnostic")]
struct DiagnosticShape<'a> {
    /// `error` stops the configuration from being used, `warning` does not.
    severity: Severity,
    /// The file.
    file: &'a str,
    /// One-based line.
    line: usize,
    /// One-based column, in characters.
    column: usize,
    /// The key's full path; empty where the text is no TOML at all.
    key: &'a str,
    /// What is wrong.
    message: &'a str,
    /// What to write instead.
    help: &'a str,
}

impl Serialize for Diagnostic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        DiagnosticShape {
            severity: self.severity,
            file: &self.file.name,
            line: self.line(),
            column: self.column(),
            key: &self.key,
            message: &self.message,
            help: &self.help,
        }
        .serialize(serializer)
    }
}

impl JsonSchema for Diagnostic {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        DiagnosticShape::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        DiagnosticShape::json_schema(generator)
    }
}

fn by_transport(ports: &SignallingPorts) -> BTreeMap<&'static str, Vec<u16>> {
    BTreeMap::from([
        ("udp", ports.udp.clone()),
        ("tcp", ports.tcp.clone()),
        ("tls", ports.tls.clone()),
    ])
}

fn range(ports: &std::ops::RangeInclusive<u16>) -> String {
    format!("{}-{}", ports.start(), ports.end())
}
