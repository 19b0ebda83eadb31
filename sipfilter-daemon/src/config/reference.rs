//! One written-out example for every key, for messages about a value of the wrong kind.
//!
//! Tests hold the list equal to what serde knows and to the table in `config/README.md`.

/// Key (list indices left out) and how it is written.
pub(super) const EXAMPLES: &[(&str, &str)] = &[
    ("interfaces", "interfaces = [\"eth0\"]"),
    ("catalogue", "catalogue = \"/etc/sipfilter\""),
    ("enforcement", "enforcement = \"observe\""),
    ("on_stop", "on_stop = \"keep\""),
    ("scope", "scope = \"strict\""),
    ("egress", "egress = \"enforce\""),
    ("provisional", "provisional = false"),
    ("strict", "sections of its own, [[strict.allow]]"),
    ("strict.allow", "a section of its own, [[strict.allow]]"),
    ("strict.allow.protocol", "protocol = \"tcp\""),
    ("strict.allow.ports", "ports = [\"22\", \"8000-8100\"]"),
    ("strict.allow.from", "from = [\"192.0.2.0/24\"]"),
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
        "trunk.signalling_limits",
        "signalling_limits = { requests_per_second = 4000, messages_per_second = 16000, segments_per_second = 32000 }",
    ),
    (
        "trunk.signalling_limits.requests_per_second",
        "requests_per_second = 4000",
    ),
    (
        "trunk.signalling_limits.messages_per_second",
        "messages_per_second = 16000",
    ),
    (
        "trunk.signalling_limits.segments_per_second",
        "segments_per_second = 32000",
    ),
    (
        "trunk.media",
        "media = { source = \"signalled\", ports = \"40000-60000\" }",
    ),
    ("trunk.media.source", "source = \"signalled\""),
    ("trunk.media.ports", "ports = \"40000-60000\""),
    ("trunk.media.prefixes", "prefixes = [\"203.0.113.0/24\"]"),
    (
        "trunk.media.replies",
        "replies = [\"3478\", \"10000-50000\"]",
    ),
    ("trunk.media.packets_per_second", "packets_per_second = 400"),
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
        "provider.signalling_limits",
        "signalling_limits = { requests_per_second = 4000, messages_per_second = 16000, segments_per_second = 32000 }",
    ),
    (
        "provider.signalling_limits.requests_per_second",
        "requests_per_second = 4000",
    ),
    (
        "provider.signalling_limits.messages_per_second",
        "messages_per_second = 16000",
    ),
    (
        "provider.signalling_limits.segments_per_second",
        "segments_per_second = 32000",
    ),
    (
        "provider.media",
        "media = { source = \"signalled\", ports = \"40000-60000\" }",
    ),
    ("provider.media.source", "source = \"signalled\""),
    ("provider.media.ports", "ports = \"40000-60000\""),
    ("provider.media.prefixes", "prefixes = [\"203.0.113.0/24\"]"),
    (
        "provider.media.replies",
        "replies = [\"3478\", \"10000-50000\"]",
    ),
    (
        "provider.media.packets_per_second",
        "packets_per_second = 400",
    ),
    ("provider.early_media", "early_media = \"on-answer\""),
    ("limits", "a section of its own, [limits]"),
    ("limits.calls", "calls = 20000"),
    ("limits.calls_per_provider", "calls_per_provider = 10000"),
    ("limits.dialogs_per_call", "dialogs_per_call = 16"),
    ("limits.media_per_session", "media_per_session = 16"),
    ("limits.pinholes", "pinholes = 65536"),
    (
        "limits.signalling",
        "signalling = { requests_per_second = 4000, messages_per_second = 16000, segments_per_second = 32000 }",
    ),
    (
        "limits.signalling.requests_per_second",
        "requests_per_second = 4000",
    ),
    (
        "limits.signalling.messages_per_second",
        "messages_per_second = 16000",
    ),
    (
        "limits.signalling.segments_per_second",
        "segments_per_second = 32000",
    ),
    ("timers", "a section of its own, [timers]"),
    ("timers.media_idle", "media_idle = \"5m\""),
    ("timers.hold_idle", "hold_idle = \"1h\""),
    ("timers.invite", "invite = \"5m\""),
    ("timers.ack", "ack = \"32s\""),
    ("timers.linger", "linger = \"32s\""),
    ("log", "a section of its own, [log]"),
    ("log.format", "format = \"text\""),
    ("log.level", "level = \"info\""),
    ("metrics", "a section of its own, [metrics]"),
    ("metrics.listen", "listen = \"127.0.0.1:9760\""),
    ("privacy", "a section of its own, [privacy]"),
    ("privacy.redact", "redact = \"users\""),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::{
        Deserialize, Deserializer,
        de::{Error as _, Visitor, value::Error},
        forward_to_deserialize_any,
    };

    use super::{super::raw, EXAMPLES, example};

    /// Asks a type which keys it knows, without giving it any.
    struct Ask<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("only structures are asked"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            *self.0 = fields;
            Err(Error::custom("asked"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn keys_of<T: Deserialize<'static>>(prefix: &str) -> BTreeSet<String> {
        let mut fields: &'static [&'static str] = &[];
        assert!(T::deserialize(Ask(&mut fields)).is_err());
        assert!(!fields.is_empty(), "{prefix} has no keys");
        fields
            .iter()
            .map(|field| format!("{prefix}{field}"))
            .collect()
    }

    fn keys_of_the_file() -> BTreeSet<String> {
        [
            keys_of::<raw::RawConfig>(""),
            keys_of::<raw::RawStrict>("strict."),
            keys_of::<raw::RawAllow>("strict.allow."),
            keys_of::<raw::RawPbx>("pbx."),
            keys_of::<raw::RawSignallingPorts>("pbx.signalling."),
            keys_of::<raw::RawTrunk>("trunk."),
            keys_of::<raw::RawSignallingPorts>("trunk.signalling_ports."),
            keys_of::<raw::RawRates>("trunk.signalling_limits."),
            keys_of::<raw::RawMedia>("trunk.media."),
            keys_of::<raw::RawProvider>("provider."),
            keys_of::<raw::RawSignallingPorts>("provider.signalling_ports."),
            keys_of::<raw::RawRates>("provider.signalling_limits."),
            keys_of::<raw::RawMedia>("provider.media."),
            keys_of::<raw::RawLimits>("limits."),
            keys_of::<raw::RawRates>("limits.signalling."),
            keys_of::<raw::RawTimers>("timers."),
            keys_of::<raw::RawLog>("log."),
            keys_of::<raw::RawMetrics>("metrics."),
            keys_of::<raw::RawPrivacy>("privacy."),
            keys_of::<raw::RawXdp>("xdp."),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The first cells of the reference's tables.
    fn documented(section: &str) -> BTreeSet<String> {
        let text = include_str!("../../../config/README.md");
        let (_, section) = text
            .split_once(&format!("\n## {section}\n"))
            .expect("the section is there");
        let section = section.split("\n## ").next().expect("split gives one part");
        section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .map(ToOwned::to_owned)
            .collect()
    }

    #[test]
    fn every_key_is_documented_and_every_documented_key_exists() {
        assert_eq!(documented("The file"), keys_of_the_file());
    }

    #[test]
    fn every_key_has_an_example() {
        let examples: BTreeSet<String> =
            EXAMPLES.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(examples, keys_of_the_file());
    }

    #[test]
    fn a_profile_knows_a_providers_keys_and_the_documented_ones() {
        let mut expected = keys_of::<raw::RawProvider>("");
        expected.extend(documented("The catalogue"));
        assert_eq!(keys_of::<raw::RawProfile>(""), expected);
    }

    #[test]
    fn indices_do_not_hide_an_example() {
        for (path, key) in [
            ("trunk[0].media.ports", "trunk.media.ports"),
            ("interfaces[12]", "interfaces"),
            ("pbx.nat.\"10.0.0.1\"", "pbx.nat"),
        ] {
            assert!(example(path).is_some(), "{path}");
            assert_eq!(example(path), example(key), "{path}");
        }
        assert_eq!(example("nothing"), None);
    }
}
