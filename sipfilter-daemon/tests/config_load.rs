//! Configurations that load, and what they become. Files that must not load are in `config_errors`.

use std::{net::IpAddr, path::Path};

use sipfilter_common::settings::MAX_PROTECTED;
use sipfilter_daemon::{
    config::{Config, LoadError, Origin, XdpMode},
    engine::settings::{EarlyMedia, MediaSource, SignallingRates, Transport},
};

fn load(text: &str) -> Config {
    match Config::parse(Path::new("sipfilter.toml"), text) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    }
}

const WHOLE: &str = r#"
interfaces = ["eth0"]

[pbx]
preset = "asterisk"            # or rtp_ports = "10000-20000"
addresses = ["203.0.113.10"]   # default: the interface's own

[[trunk]]
provider = "vapi-us"
"#;

const OWN_PROVIDER: &str = r#"
[[trunk]]
provider = "lab"

[[provider]]
name = "lab"
signalling = ["198.51.100.10/32"]
transports = ["udp", "tcp"]
media = { source = "signalled", ports = "40000-60000" }
"#;

#[test]
fn the_whole_vapi_file_becomes_settings() {
    let config = load(WHOLE);
    assert_eq!(config.interfaces, ["eth0"]);
    assert_eq!(config.preset.as_deref(), Some("asterisk"));
    assert_eq!(config.xdp, XdpMode::Auto);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let pbx = &config.settings.pbx;
    assert_eq!(pbx.rtp_ports, 10_000..=20_000);
    assert_eq!(pbx.udptl_ports, Some(4_000..=4_999));
    assert_eq!(pbx.addresses, ["203.0.113.10".parse::<IpAddr>().unwrap()]);
    assert_eq!(pbx.signalling.udp, [5060]);
    let [vapi] = config.settings.providers.as_slice() else {
        panic!("one provider");
    };
    assert_eq!(vapi.name, "vapi-us");
    assert_eq!(vapi.signalling.len(), 2);
    assert_eq!(vapi.media.ports, 40_000..=60_000);
    assert_eq!(vapi.media.source, MediaSource::Signalled);
    assert_eq!(vapi.early_media, EarlyMedia::OnAnswer);
    assert_eq!(config.origins, [Origin::BuiltIn]);
}

#[test]
fn an_own_provider_stands_beside_the_catalogue() {
    let config = load(&format!("{WHOLE}{OWN_PROVIDER}"));
    let [_, lab] = config.settings.providers.as_slice() else {
        panic!("two providers");
    };
    assert_eq!(lab.name, "lab");
    assert_eq!(lab.signalling, ["198.51.100.10/32".parse().unwrap()]);
    assert_eq!(lab.transports, [Transport::Udp, Transport::Tcp]);
    assert_eq!(config.origins[1], Origin::Configuration);
}

#[test]
fn how_much_may_be_signalled_is_the_trunks_word_then_the_providers_then_everybodys() {
    let config = load(&format!(
        "{WHOLE}signalling_limits = {{ requests_per_second = 100 }}{OWN_PROVIDER}\
         signalling_limits = {{ requests_per_second = 10, messages_per_second = 2000 }}\n\
         [limits.signalling]\nsegments_per_second = 1000000\nmessages_per_second = 3000\n"
    ));
    let rates: Vec<_> = config
        .settings
        .providers
        .iter()
        .map(|provider| provider.rates)
        .map(|rates| (rates.requests, rates.messages, rates.segments))
        .collect();
    assert_eq!(rates, [(100, 3_000, 1_000_000), (10, 2_000, 1_000_000)]);
    let shown = config.summary().providers[1].signalling_limits;
    assert_eq!(shown.map(|limits| limits.requests_per_second), Some(10));
    assert_eq!(
        load(WHOLE).settings.providers[0].rates,
        SignallingRates::default()
    );
}

#[test]
fn the_shipped_example_loads_without_a_warning() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/sipfilter.toml");
    let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.settings, load(WHOLE).settings);
}

#[test]
fn an_absent_file_is_a_failure_to_read() {
    let error = Config::load(Path::new("/nonexistent/sipfilter.toml"));
    assert!(matches!(error, Err(LoadError::Read { .. })), "{error:?}");
}

#[test]
fn a_trunk_goes_before_its_provider_key_by_key() {
    let config = load(
        r#"
interfaces = ["eth0"]
[pbx]
preset = "freeswitch"
rtp_ports = "20000-20100"
signalling = { tcp = [] }
[[trunk]]
provider = "livekit"
signalling = ["198.51.100.10", "2001:db8::/64"]
media = { prefixes = ["203.0.113.0/24"] }
signalling_ports = { udp = [5070] }
early_media = "on-offer"
"#,
    );
    let pbx = &config.settings.pbx;
    assert_eq!(
        pbx.rtp_ports,
        20_000..=20_100,
        "rtp_ports goes before the preset"
    );
    assert_eq!(
        pbx.signalling.udp,
        [5060, 5080],
        "an unnamed transport keeps the preset's"
    );
    assert!(
        pbx.signalling.tcp.is_empty(),
        "an empty list switches it off"
    );
    let [livekit] = config.settings.providers.as_slice() else {
        panic!("one provider");
    };
    assert_eq!(
        livekit.signalling,
        ["198.51.100.10/32", "2001:db8::/64"].map(|net| net.parse().unwrap())
    );
    assert_eq!(livekit.media.ports, 10_000..=20_000, "the profile's");
    assert_eq!(
        livekit.media.prefixes,
        ["203.0.113.0/24".parse().unwrap()],
        "the trunk's"
    );
    assert_eq!(livekit.signalling_ports.udp, [5070]);
    assert_eq!(livekit.signalling_ports.tls, [5061]);
    assert_eq!(livekit.early_media, EarlyMedia::OnOffer);
}

#[test]
fn addresses_come_from_the_file_or_else_from_the_interfaces() {
    let listed = load(WHOLE)
        .resolve(|_| -> Result<Vec<IpAddr>, String> { panic!("nobody needs to be asked") })
        .expect("it resolves");
    assert_eq!(
        listed.pbx.addresses,
        ["203.0.113.10".parse::<IpAddr>().unwrap()]
    );

    let many: Vec<String> = (1..=17).map(|last| format!("192.0.2.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    /// NAT section, the interface's addresses, and the protected addresses or the beginning of the refusal.
    type Case<'a> = (&'a str, &'a [&'a str], Result<&'a [&'a str], &'a str>);
    let cases: [Case<'_>; 5] = [
        (
            "",
            &["203.0.113.10", "fe80::1", "2001:db8::1", "203.0.113.10"],
            Ok(&["203.0.113.10", "2001:db8::1"]),
        ),
        (
            "",
            &["fe80::1"],
            Err("eth0 has no address of its own to protect"),
        ),
        (
            "",
            &many,
            Err("eth0 has 17 IPv4 addresses, and at most 16 fit"),
        ),
        (
            "[pbx.nat]\n\"10.0.0.1\" = \"203.0.113.10\"\n",
            &["203.0.113.10"],
            Ok(&["203.0.113.10"]),
        ),
        (
            "[pbx.nat]\n\"10.0.0.1\" = \"203.0.113.11\"\n",
            &["203.0.113.10"],
            Err("pbx.nat maps 10.0.0.1 to 203.0.113.11, which is not an address of eth0"),
        ),
    ];
    for (nat, own, expect) in cases {
        let config = load(&format!(
            "interfaces = [\"eth0\"]\n[pbx]\npreset = \"asterisk\"\n{nat}[[trunk]]\nprovider = \"vapi-us\"\n"
        ));
        let resolved = config.resolve(|interface| {
            assert_eq!(interface, "eth0");
            Ok::<Vec<IpAddr>, String>(own.iter().map(|address| address.parse().unwrap()).collect())
        });
        match (resolved, expect) {
            (Ok(settings), Ok(expect)) => {
                let expect: Vec<IpAddr> = expect.iter().map(|it| it.parse().unwrap()).collect();
                assert_eq!(settings.pbx.addresses, expect);
            }
            (Err(error), Err(expect)) => {
                assert!(error.to_string().starts_with(expect), "{error}");
            }
            (found, expect) => panic!("{nat} {own:?}: {found:?}, not {expect:?}"),
        }
    }

    let absent = load(&WHOLE.replace("addresses = ", "# addresses = "))
        .resolve(|_| Err::<Vec<IpAddr>, _>("no such device"))
        .expect_err("the interface is missing");
    assert!(
        absent.to_string().starts_with(
            "cannot tell the addresses of interface eth0: no such device; is it there"
        ),
        "{absent}"
    );
}

#[test]
fn addresses_that_are_protected_already_stay_so_while_there_is_room() {
    let config = load(
        "interfaces = [\"eth0\"]\n[pbx]\npreset = \"asterisk\"\n[[trunk]]\nprovider = \"vapi-us\"\n",
    );
    let addresses = |hosts: std::ops::Range<u8>| -> Vec<IpAddr> {
        hosts.map(|host| [203, 0, 113, host].into()).collect()
    };
    let most = MAX_PROTECTED as u8;
    for (own, protected, expect) in [
        (1..2, 1..2, 1..2),
        (2..3, 1..2, 1..3),
        (1..2, 1..1 + most, 1..1 + most),
        (0..1, 1..1 + most, 0..1),
        (0..0, 1..2, 1..2),
    ] {
        let settings = config
            .resolve_beside(&addresses(protected), |_| {
                Ok::<_, String>(addresses(own.clone()))
            })
            .expect("an address");
        assert_eq!(settings.pbx.addresses, addresses(expect));
    }
    assert!(
        config
            .resolve_beside(&addresses(0..1), |_| Ok::<_, String>(addresses(
                0..1 + most
            )))
            .is_err()
    );
    let named = load(WHOLE);
    let settings = named.resolve_beside(&addresses(0..1), |_| Ok::<_, String>(addresses(1..2)));
    let alone = named.resolve(|_| Ok::<_, String>(Vec::new()));
    assert_eq!(settings.expect("addresses"), alone.expect("addresses"));
}
