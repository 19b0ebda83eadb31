//! Whom a simulation protects and whom it trusts: a configuration's settings, with what the command line puts in their place.
//!
//! It checks only what the command line can get wrong; a configuration has been checked when it comes here.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sipfilter_common::settings::MAX_PROTECTED;

use crate::engine::settings::{
    EarlyMedia, Limits, Media, MediaSource, Pbx, Provider, Settings, SignallingPorts,
    SignallingRates, Timers, Transport,
};

/// Ports of the PBX's media where no configuration names them: everything above the SIP ports.
pub const DEFAULT_RTP_PORTS: RangeInclusive<u16> = 5_062..=65_535;
/// Ports of a provider's media where no configuration names them.
pub const DEFAULT_PROVIDER_PORTS: RangeInclusive<u16> = 1_024..=65_535;

/// Who counts as a provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Providers {
    /// Those of the configuration.
    #[default]
    Configured,
    /// Whoever signals from these prefixes, as one provider.
    Prefixes(Vec<IpNet>),
    /// Everybody.
    Any,
}

/// What goes before a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// Protected addresses; empty for the configuration's.
    pub pbx: Vec<IpAddr>,
    /// Local media ports.
    pub rtp_ports: Option<RangeInclusive<u16>>,
    /// Who counts as a provider.
    pub providers: Providers,
}

/// Why there is nothing to simulate with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Nobody to protect.
    #[error(
        "no PBX is named; give its address as the capture shows it with --pbx ADDR, or a configuration that lists it (pbx.addresses) with --config FILE"
    )]
    NoPbx,
    /// Nobody to trust.
    #[error(
        "no provider is named; give its signalling addresses with --provider PREFIX, a configuration with --config FILE, or --any-provider to trust everybody"
    )]
    NoProvider,
    /// More than the policy holds.
    #[error(
        "{count} {family} addresses are given with --pbx, and the policy holds {MAX_PROTECTED} of a family; name those on which the PBX takes calls"
    )]
    TooManyAddresses {
        /// How many.
        count: usize,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// SIP would be taken for media.
    #[error(
        "the RTP ports {min}-{max} hold the SIP port {port}; give a range without it with --rtp-ports FIRST-LAST"
    )]
    SignallingInside {
        /// First port.
        min: u16,
        /// Last port.
        max: u16,
        /// The SIP port.
        port: u16,
    },
}

/// The settings of one run.
///
/// # Errors
/// [`SetupError`] where neither the configuration nor the overrides say enough.
pub fn settings(
    configured: Option<Settings>,
    overrides: &Overrides,
) -> Result<Settings, SetupError> {
    let mut settings = configured.unwrap_or_else(nothing_configured);
    if !overrides.pbx.is_empty() {
        settings.pbx.addresses = overrides.pbx.iter().map(IpAddr::to_canonical).collect();
        settings.pbx.addresses.sort_unstable();
        settings.pbx.addresses.dedup();
        let addresses = &settings.pbx.addresses;
        settings
            .pbx
            .nat
            .retain(|_, public| addresses.contains(public));
    }
    if let Some(ports) = &overrides.rtp_ports {
        settings.pbx.rtp_ports = ports.clone();
    }
    let provider = match &overrides.providers {
        Providers::Configured => None,
        Providers::Prefixes(prefixes) => Some(provider("provider", prefixes.clone())),
        Providers::Any => Some(provider(
            "any",
            vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
        )),
    };
    if let Some(provider) = provider {
        settings.providers = vec![provider];
        // The cap per provider keeps one from shutting out the others; here is only one.
        settings.limits.calls_per_provider = settings.limits.calls;
    }
    check(&settings)?;
    Ok(settings)
}

fn check(settings: &Settings) -> Result<(), SetupError> {
    let pbx = &settings.pbx;
    if pbx.addresses.is_empty() {
        return Err(SetupError::NoPbx);
    }
    if settings.providers.is_empty() {
        return Err(SetupError::NoProvider);
    }
    let four = pbx
        .addresses
        .iter()
        .filter(|address| address.is_ipv4())
        .count();
    for (count, family) in [(four, "IPv4"), (pbx.addresses.len() - four, "IPv6")] {
        if count > MAX_PROTECTED {
            return Err(SetupError::TooManyAddresses { count, family });
        }
    }
    let inside = pbx
        .signalling
        .udp
        .iter()
        .find(|port| pbx.rtp_ports.contains(port));
    match inside {
        Some(&port) => Err(SetupError::SignallingInside {
            min: *pbx.rtp_ports.start(),
            max: *pbx.rtp_ports.end(),
            port,
        }),
        None => Ok(()),
    }
}

fn nothing_configured() -> Settings {
    Settings {
        pbx: Pbx {
            addresses: Vec::new(),
            rtp_ports: DEFAULT_RTP_PORTS,
            udptl_ports: None,
            nat: BTreeMap::new(),
            signalling: SignallingPorts::default(),
        },
        providers: Vec::new(),
        limits: Limits::default(),
        timers: Timers::default(),
        filtering: Default::default(),
    }
}

fn provider(name: &str, signalling: Vec<IpNet>) -> Provider {
    Provider {
        name: name.to_owned(),
        signalling,
        transports: vec![Transport::Udp, Transport::Tcp, Transport::Tls],
        signalling_ports: SignallingPorts::default(),
        media: Media {
            source: MediaSource::Signalled,
            ports: DEFAULT_PROVIDER_PORTS,
            prefixes: Vec::new(),
            replies: Vec::new(),
            packets_per_second: None,
        },
        early_media: EarlyMedia::OnAnswer,
        rates: SignallingRates::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pbx: &[&str], providers: Providers) -> Overrides {
        Overrides {
            pbx: pbx
                .iter()
                .map(|text| text.parse().expect("an address"))
                .collect(),
            rtp_ports: None,
            providers,
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let pbx = ["203.0.113.10"];
        assert_eq!(
            settings(None, &overrides(&[], Providers::Any)),
            Err(SetupError::NoPbx)
        );
        assert_eq!(
            settings(None, &overrides(&pbx, Providers::Configured)),
            Err(SetupError::NoProvider)
        );
        let many: Vec<String> = (1..=17).map(|n| format!("203.0.113.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(
            settings(None, &overrides(&many, Providers::Any)),
            Err(SetupError::TooManyAddresses {
                count: 17,
                family: "IPv4"
            })
        );
        let ports = Overrides {
            rtp_ports: Some(5_000..=6_000),
            ..overrides(&pbx, Providers::Any)
        };
        assert_eq!(
            settings(None, &ports),
            Err(SetupError::SignallingInside {
                min: 5_000,
                max: 6_000,
                port: 5_060
            })
        );
    }

    #[test]
    fn overrides_go_before_the_configuration_and_leave_the_rest() {
        let mut configured =
            settings(None, &overrides(&["192.0.2.1"], Providers::Any)).expect("enough");
        configured.pbx.rtp_ports = 10_000..=20_000;
        configured.limits.calls = 5;
        configured.pbx.nat = [
            ("10.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()),
            ("10.0.0.2".parse().unwrap(), "203.0.113.10".parse().unwrap()),
        ]
        .into();
        let prefixes = vec!["198.51.100.0/24".parse().unwrap()];
        let changed = overrides(&["203.0.113.10"], Providers::Prefixes(prefixes.clone()));
        let settings = settings(Some(configured), &changed).expect("enough");
        assert_eq!(settings.pbx.rtp_ports, 10_000..=20_000);
        assert_eq!(settings.limits.calls_per_provider, 5);
        assert_eq!(settings.providers.len(), 1);
        assert_eq!(settings.providers[0].signalling, prefixes);
        assert_eq!(
            settings.pbx.nat.len(),
            1,
            "a mapping to nowhere is left out"
        );
    }
}
