//! What tells one configuration from another, key by key, for people and programs.
//!
//! It compares what takes effect, not what is written: a key that now says what the default was is no change. It judges nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Config;

/// One key that says something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path, such as `limits.calls` or `provider.example.signalling`.
    pub key: String,
    /// What it said and says no more.
    pub removed: Vec<String>,
    /// What it says now.
    pub added: Vec<String>,
}

impl Change {
    /// Of a list: what has gone and what has come, or both in full where only the order is another.
    pub fn of_lists(key: &str, before: &[String], after: &[String]) -> Option<Self> {
        if before == after {
            return None;
        }
        let without = |list: &[String], other: &[String]| -> Vec<String> {
            let gone = list.iter().filter(|item| !other.contains(item));
            gone.cloned().collect()
        };
        let (mut removed, mut added) = (without(before, after), without(after, before));
        if removed.is_empty() && added.is_empty() {
            (removed, added) = (vec![before.join(", ")], vec![after.join(", ")]);
        }
        Some(Self {
            key: key.to_owned(),
            removed,
            added,
        })
    }
}

/// By key, in alphabetical order.
pub fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let (before, after) = (flat(before), flat(after));
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |list: &BTreeMap<String, Vec<String>>, key| list.get(key).cloned().unwrap_or_default();
    keys.into_iter()
        .filter_map(|key| Change::of_lists(key, &of(&before, key), &of(&after, key)))
        .collect()
}

/// Every key with what it says, by its path.
fn flat(config: &Config) -> BTreeMap<String, Vec<String>> {
    let mut flat = BTreeMap::new();
    // The summary is plain data with names for keys, of which nothing can fail to be written.
    let summary = serde_json::to_value(config.summary()).unwrap_or_default();
    flatten("", &summary, &mut flat);
    flat
}

fn flatten(path: &str, value: &Value, flat: &mut BTreeMap<String, Vec<String>>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(name) = key_of(path, name) {
                    flatten(&name, value, flat);
                }
            }
        }
        Value::Array(items) if path == PROVIDERS => {
            let name = |item: &Value| item.get("name").map(text).unwrap_or_default();
            // Where two providers share a prefix, the first one counts.
            flat.insert("trunk".to_owned(), items.iter().map(name).collect());
            for item in items {
                flatten(&format!("provider.{}", name(item)), item, flat);
            }
        }
        Value::Array(items) => {
            flat.insert(path.to_owned(), items.iter().map(text).collect());
        }
        scalar => {
            flat.insert(path.to_owned(), vec![text(scalar)]);
        }
    }
}

const PROVIDERS: &str = "providers";

/// The configuration's key for a name of the summary; `None` for what only says where facts are from.
fn key_of(path: &str, name: &str) -> Option<String> {
    let (section, name) = match (path, name) {
        ("", "xdp_mode") => ("xdp", "mode"),
        ("", "allow") => ("strict", "allow"),
        ("", "preset" | "addresses" | "rtp_ports" | "udptl_ports" | "signalling" | "nat") => {
            ("pbx", name)
        }
        (
            provider,
            "name" | "configured" | "loadable" | "missing" | "names" | "source" | "verified",
        ) if !provider.is_empty() => {
            return None;
        }
        (section, name) => (section, name),
    };
    let name = match name.strip_prefix("media_") {
        Some(name) if path.starts_with("provider.") => format!("media.{name}"),
        _ => name.to_owned(),
    };
    Some(match section {
        "" => name,
        section => format!("{section}.{name}"),
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => fields
            .values()
            .map(text)
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BASE: &str = r#"
interfaces = ["eth0"]
[pbx]
preset = "asterisk"
addresses = ["203.0.113.10"]
[limits]
calls = 1000
[[provider]]
name = "one"
signalling = ["198.51.100.0/28"]
media = { source = "signalled", ports = "10000-20000" }
[[provider]]
name = "two"
signalling = ["192.0.2.1/32", "192.0.2.2/32"]
media = { source = "signalled", ports = "10000-20000" }
[[trunk]]
provider = "one"
[[trunk]]
provider = "two"
"#;

    #[test]
    fn every_key_that_says_something_else_is_named() {
        let read = |text: &str| Config::parse(Path::new("sipfilter.toml"), text).expect("good");
        let check = |from: &str, to: &str, expect: &[&str]| {
            assert!(BASE.contains(from), "{from}");
            let found = changes(&read(BASE), &read(&BASE.replacen(from, to, 1)));
            let lines: Vec<String> = found
                .iter()
                .map(|change| {
                    let removed = change.removed.iter().map(|word| format!(" -{word}"));
                    let added = change.added.iter().map(|word| format!(" +{word}"));
                    change.key.clone() + &removed.chain(added).collect::<String>()
                })
                .collect();
            assert_eq!(lines, expect);
        };
        check("calls = 1000", "calls = 1_000", &[]);
        check(
            "calls = 1000",
            "calls = 900",
            &[
                "limits.calls -1000 +900",
                "limits.calls_per_provider -1000 +900",
            ],
        );
        check(
            "192.0.2.2/32",
            "192.0.2.3/32",
            &["provider.two.signalling -192.0.2.2/32 +192.0.2.3/32"],
        );
        check(
            "[\"eth0\"]",
            "[\"eth0\", \"eth1\"]\nscope = \"strict\"\non_stop = \"keep\"",
            &[
                "interfaces +eth1",
                "on_stop -detach +keep",
                "scope -voice +strict",
            ],
        );
        check(
            "[limits]",
            "[xdp]\nmode = \"generic\"\n[limits]",
            &["xdp.mode -auto +generic"],
        );
        check(
            "provider = \"one\"\n[[trunk]]\nprovider = \"two\"",
            "provider = \"two\"\n[[trunk]]\nprovider = \"one\"",
            &["trunk -one, two +two, one"],
        );
        check(
            "[[trunk]]\nprovider = \"two\"\n",
            "",
            &[
                "provider.two.early_media -on-answer",
                "provider.two.media.ports -10000-20000",
                "provider.two.media.source -signalled",
                "provider.two.origin -configuration",
                "provider.two.signalling -192.0.2.1/32 -192.0.2.2/32",
                "provider.two.signalling_limits.messages_per_second -16000",
                "provider.two.signalling_limits.requests_per_second -4000",
                "provider.two.signalling_limits.segments_per_second -32000",
                "provider.two.transports -udp:5060 -tcp:5060 -tls:5061",
                "trunk -two",
            ],
        );
    }
}
