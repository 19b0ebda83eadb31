//! The host's own ephemeral ports: where they overlap the PBX's media ports, answers to the host's own requests look like media
//! without a call.
//!
//! It only warns: on a host that routes to a PBX the overlap does no harm, and which it is cannot be told from here.

use std::{fmt, fs, ops::RangeInclusive};

use crate::engine::settings::Settings;

/// Where the kernel says which ports it gives to sockets that ask for none.
const LOCAL_PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Media ports and ephemeral ports that are the same.
#[derive(Debug, PartialEq, Eq)]
pub struct Overlap {
    media: RangeInclusive<u16>,
    ephemeral: RangeInclusive<u16>,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (media, ephemeral) = (&self.media, &self.ephemeral);
        write!(
            f,
            "media ports {}-{} overlap this host's ephemeral ports {}-{}: answers to this host's own UDP requests from a protected \
             address will be dropped there; keep them apart",
            media.start(),
            media.end(),
            ephemeral.start(),
            ephemeral.end(),
        )?;
        match media.end().checked_add(1) {
            Some(first) if first < *ephemeral.end() => {
                write!(
                    f,
                    ", as with: sysctl net.ipv4.ip_local_port_range=\"{first} {}\"",
                    ephemeral.end()
                )
            }
            _ => Ok(()),
        }
    }
}

/// The overlap of this host's ephemeral ports with the media ports, if there is one.
pub fn overlap(settings: &Settings) -> Option<Overlap> {
    let ephemeral = parse(&fs::read_to_string(LOCAL_PORT_RANGE).ok()?)?;
    [
        Some(&settings.pbx.rtp_ports),
        settings.pbx.udptl_ports.as_ref(),
    ]
    .into_iter()
    .flatten()
    .find_map(|media| between(media, &ephemeral))
}

fn parse(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_whitespace().map(str::parse);
    Some(ports.next()?.ok()?..=ports.next()?.ok()?)
}

fn between(media: &RangeInclusive<u16>, ephemeral: &RangeInclusive<u16>) -> Option<Overlap> {
    let shared = media.start() <= ephemeral.end() && ephemeral.start() <= media.end();
    shared.then(|| Overlap {
        media: media.clone(),
        ephemeral: ephemeral.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_is_found_and_its_remedy_named() {
        #[track_caller]
        fn check(media: RangeInclusive<u16>, proc: &str, expect: Option<&str>) {
            let found = between(&media, &parse(proc).expect("two ports"))
                .map(|overlap| overlap.to_string());
            match (found, expect) {
                (None, None) => {}
                (Some(text), Some(remedy)) => assert!(text.ends_with(remedy), "{text}"),
                (found, expect) => panic!("{media:?} and {proc:?}: {found:?}, expected {expect:?}"),
            }
        }
        check(10_000..=20_000, "32768\t60999\n", None);
        check(
            30_000..=40_000,
            "32768\t60999\n",
            Some("ip_local_port_range=\"40001 60999\""),
        );
        check(
            16_384..=32_768,
            "32768\t60999\n",
            Some("ip_local_port_range=\"32769 60999\""),
        );
        check(50_000..=65_535, "32768\t60999\n", Some("keep them apart"));
    }
}
