//! Who stands where: addresses of PBX and providers, and the configuration that the filter runs by.
//!
//! Only constants; what the agents do there is theirs to decide.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use sipfilter_daemon::engine::settings::{
    EarlyMedia, Limits, Media, MediaSource, Pbx, Provider, Settings, SignallingPorts,
    SignallingRates, Timers, Transport,
};

use crate::shadow::Rule;

pub const PBX: [&str; 2] = ["192.0.2.10", "2001:db8::10"];

pub fn pbx(v6: bool) -> SocketAddr {
    SocketAddr::new(address(PBX[usize::from(v6)]), 5060)
}

/// Where a provider's SIP comes from.
pub fn signalling(provider: usize, v6: bool) -> SocketAddr {
    if v6 {
        return SocketAddr::new(address("2001:db8:5::5"), 5060);
    }
    let addresses = [
        "198.51.100.5",
        "203.0.113.5",
        "203.0.113.21",
        "203.0.113.37",
    ];
    SocketAddr::new(address(addresses[provider]), 5060)
}

/// Where its media comes from.
pub fn media_address(provider: usize, v6: bool, index: u64) -> IpAddr {
    let nets = ["198.51.100.", "198.51.100.", "203.0.113.", "203.0.113."];
    let base = [64, 128, 64, 128][provider];
    if v6 {
        address(&format!("2001:db8:5::{:x}", 0x100 + index))
    } else {
        address(&format!("{}{}", nets[provider], base + index))
    }
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn settings() -> Settings {
    let provider = |index: usize, signalling: &[&str], source, early_media| Provider {
        name: format!("provider-{index}"),
        signalling: signalling
            .iter()
            .map(|net| net.parse().expect("a prefix"))
            .collect(),
        transports: vec![Transport::Udp, Transport::Tcp],
        signalling_ports: SignallingPorts::default(),
        media: Media {
            source,
            ports: 20_000..=40_000,
            prefixes: rules()[index].prefixes.clone(),
            replies: Vec::new(),
            packets_per_second: None,
        },
        early_media,
        rates: SignallingRates::default(),
    };
    Settings {
        pbx: Pbx {
            addresses: PBX.map(address).to_vec(),
            rtp_ports: 10_000..=19_999,
            udptl_ports: None,
            nat: BTreeMap::new(),
            signalling: SignallingPorts::default(),
        },
        providers: vec![
            provider(
                0,
                &["198.51.100.0/28", "2001:db8:5::/64"],
                MediaSource::Signalled,
                EarlyMedia::OnAnswer,
            ),
            provider(
                1,
                &["203.0.113.0/28"],
                MediaSource::Exact,
                EarlyMedia::OnAnswer,
            ),
            provider(
                2,
                &["203.0.113.16/28"],
                MediaSource::Signalled,
                EarlyMedia::OnOffer,
            ),
            provider(
                3,
                &["203.0.113.32/28"],
                MediaSource::Prefix,
                EarlyMedia::OnAnswer,
            ),
        ],
        limits: Limits::default(),
        timers: Timers::default(),
        filtering: Default::default(),
    }
}

pub fn rules() -> Vec<Rule> {
    let rule = |prefixes: &[&str], by_prefix, on_offer| Rule {
        prefixes: prefixes
            .iter()
            .map(|net| net.parse().expect("a prefix"))
            .collect(),
        by_prefix,
        on_offer,
    };
    vec![
        rule(&[], false, false),
        rule(&[], false, false),
        rule(&["203.0.113.64/26"], false, true),
        rule(&["203.0.113.128/26"], true, false),
    ]
}
