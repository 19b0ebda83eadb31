//! Configurations that load, and what they become. Files that must not load are in `config_errors.rs`.

use std::{net::IpAddr, path::Path};

use sipfilter_daemon::{
    config::{Config, LoadError, Origin, XdpMode},
    engine::settings::{EarlyMedia, MediaSource, Transport},
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
