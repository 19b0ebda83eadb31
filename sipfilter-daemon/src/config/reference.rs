//! One written-out example for every key, for messages about a value of the wrong kind.
//!
//! Tests hold the list equal to what serde knows and to the table in `config/README.md`.

/// Key (list indices left out) and how it is written.
pub(super) const EXAMPLES: &[(&str, &str)] = &[
    ("interfaces", "interfaces = [\"eth0\"]"),
    ("catalogue", "catalogue = \"/etc/sipfilter\""),
    ("pbx", "a section of its own, [pbx]"),
    ("pbx.preset", "preset = \"asterisk\""),
    ("pbx.rtp_ports", "rtp_ports = \"10000-20000\""),
    ("pbx.udptl_ports", "udptl_ports = \"4000-4999\""),
    ("pbx.addresses", "addresses = [\"203.0.113.10\"]"),
    (
        "pbx.signalling",
        "signalling = { udp = [5060], tcp = [5060], tls = [5061] }",
    ),
    ("pbx.signalling.udp", "udp = [5060]"),
    ("pbx.signalling.tcp", "tcp = [5060]"),
    ("pbx.signalling.tls", "tls = [5061]"),
    (
        "pbx.nat",
        "a section of its own, [pbx.nat], with lines such as \"192.168.1.10\" = \"203.0.113.10\"",
    ),
    (
        "trunk",
        "a section [[trunk]], in double brackets, for each trunk",
    ),
    ("trunk.provider", "provider = \"vapi-us\""),
    ("trunk.signalling", "signalling = [\"198.51.100.10/32\"]"),
    ("trunk.transports", "transports = [\"udp\", \"tcp\"]"),
    (
        "trunk.signalling_ports",
        "signalling_ports = { udp = [5060], tcp = [5060], tls = [5061] }",
    ),
    ("trunk.signalling_ports.udp", "udp = [5060]"),
    ("trunk.signalling_ports.tcp", "tcp = [5060]"),
    ("trunk.signalling_ports.tls", "tls = [5061]"),
    (
        "trunk.media",
        "media = { source = \"signalled\", ports = \"40000-60000\" }",
    ),
    ("trunk.media.source", "source = \"signalled\""),
    ("trunk.media.ports", "ports = \"40000-60000\""),
    ("trunk.media.prefixes", "prefixes = [\"203.0.113.0/24\"]"),
    ("trunk.early_media", "early_media = \"on-answer\""),
    (
        "provider",
        "a section [[provider]], in double brackets, for each own provider",
    ),
    ("provider.name", "name = \"lab\""),
    ("provider.signalling", "signalling = [\"198.51.100.10/32\"]"),
    ("provider.transports", "transports = [\"udp\", \"tcp\"]"),
    (
        "provider.signalling_ports",
        "signalling_ports = { udp = [5060], tcp = [5060], tls = [5061] }",
    ),
    ("provider.signalling_ports.udp", "udp = [5060]"),
    ("provider.signalling_ports.tcp", "tcp = [5060]"),
    ("provider.signalling_ports.tls", "tls = [5061]"),
    (
        "provider.media",
        "media = { source = \"signalled\", ports = \"40000-60000\" }",
    ),
    ("provider.media.source", "source = \"signalled\""),
    ("provider.media.ports", "ports = \"40000-60000\""),
    ("provider.media.prefixes", "prefixes = [\"203.0.113.0/24\"]"),
    ("provider.early_media", "early_media = \"on-answer\""),
    ("limits", "a section of its own, [limits]"),
    ("limits.calls", "calls = 20000"),
    ("limits.calls_per_provider", "calls_per_provider = 10000"),
    ("limits.dialogs_per_call", "dialogs_per_call = 16"),
    ("limits.media_per_session", "media_per_session = 16"),
    ("limits.pinholes", "pinholes = 65536"),
    ("timers", "a section of its own, [timers]"),
    ("timers.media_idle", "media_idle = \"5m\""),
    ("timers.hold_idle", "hold_idle = \"1h\""),
    ("timers.invite", "invite = \"5m\""),
    ("timers.ack", "ack = \"32s\""),
    ("timers.linger", "linger = \"32s\""),
    ("log", "a section of its own, [log]"),
    ("log.format", "format = \"text\""),
    ("log.level", "level = \"info\""),
    ("xdp", "a section of its own, [xdp]"),
    ("xdp.mode", "mode = \"auto\""),
];

/// How the key at this path is written; an element of a list is shown with its list.
pub(super) fn example(path: &str) -> Option<&'static str> {
    let mut key = String::with_capacity(path.len());
    let mut in_index = false;
    for c in path.chars() {
        match c {
            '[' => in_index = true,
            ']' => in_index = false,
            _ if !in_index => key.push(c),
            _ => {}
        }
    }
    let key = if key.starts_with("pbx.nat.") {
        "pbx.nat"
    } else {
        &key
    };
    EXAMPLES
        .iter()
        .find(|(name, _)| *name == key)
        .map(|(_, example)| *example)
}
