//! The media ports: this configuration's, the PBX's own, and the kernel's for everybody else.

use std::{fs, ops::RangeInclusive, path::Path};

use super::Findings;
use crate::{config::Config, engine::settings::Settings, shell::ephemeral, view::Check};

/// What Asterisk takes where rtp.conf says nothing.
const ASTERISK: RangeInclusive<u16> = 5000..=31000;

pub(super) fn checks(config: &Config, settings: &Settings, asterisk: &Path) -> Vec<Check> {
    let mut found = Findings::of("media ports");
    match ephemeral::overlap(settings) {
        None => found.ok("ephemeral_ports", "apart from net.ipv4.ip_local_port_range"),
        Some(overlap) => found.warning(
            "ephemeral_ports",
            overlap.to_string(),
            "it does no harm where the PBX is another host than this",
        ),
    }
    let path = asterisk.join("rtp.conf");
    match fs::read_to_string(&path) {
        Ok(text) => rtp_conf(&mut found, &text, &path, &settings.pbx.rtp_ports),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            found.unknown(
                "pbx_range",
                format!("there is no {}", path.display()),
                format!(
                    "compare pbx.rtp_ports {} with the PBX's own setting{}; where it is Asterisk, name its directory with --asterisk DIR",
                    text(&settings.pbx.rtp_ports),
                    match config.preset.as_deref() {
                        Some("freeswitch") => " (rtp-start-port, rtp-end-port in switch.conf.xml)",
                        Some("3cx") => " (the management console's ports)",
                        _ => "",
                    }
                ),
            );
        }
        Err(error) => found.unknown(
            "pbx_range",
            format!("{} cannot be read: {error}", path.display()),
            format!(
                "run doctor as root, or compare rtpstart and rtpend in it with pbx.rtp_ports {}",
                text(&settings.pbx.rtp_ports)
            ),
        ),
    }
    found.checks
}

fn rtp_conf(found: &mut Findings, conf: &str, path: &Path, ours: &RangeInclusive<u16>) {
    let number = |name: &str, otherwise: u16| {
        conf.lines()
            .filter_map(|line| {
                // A comment begins with a semicolon.
                let (key, value) = line.split(';').next()?.split_once('=')?;
                (key.trim() == name).then(|| value.trim_start_matches('>').trim().parse().ok())?
            })
            .next_back()
            .unwrap_or(otherwise)
    };
    let theirs = number("rtpstart", *ASTERISK.start())..=number("rtpend", *ASTERISK.end());
    let path = path.display();
    if theirs == *ours {
        found.ok(
            "pbx_range",
            format!("pbx.rtp_ports {} is what {path} says", text(ours)),
        );
    } else if ours.contains(theirs.start()) && ours.contains(theirs.end()) {
        found.warning(
            "pbx_range",
            format!("{path} says {}, and pbx.rtp_ports {} is wider: whatever else uses the rest is filtered as media", text(&theirs), text(ours)),
            format!("[pbx] rtp_ports = \"{}\"", text(&theirs)),
        );
    } else {
        found.problem(
            "pbx_range",
            format!("{path} says {}, and pbx.rtp_ports is {}: calls on the other ports get no pinhole, and their ports are open to everybody", text(&theirs), text(ours)),
            format!("[pbx] rtp_ports = \"{}\"", text(&theirs)),
        );
    }
}

fn text(range: &RangeInclusive<u16>) -> String {
    format!("{}-{}", range.start(), range.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pbxs_range_is_held_against_the_configured_one() {
        for (conf, outcome) in [
            ("[general]\nrtpstart=10000 ; first\nrtpend => 20000\n", "ok"),
            ("[general]\nrtpstart=10000\nrtpend=15000\n", "warning"),
            ("[general]\nrtpstart=16384\nrtpend=32768\n", "problem"),
            ("[general]\n;rtpstart=10000\n;rtpend=20000\n", "problem"),
        ] {
            let mut found = Findings::of("media ports");
            rtp_conf(
                &mut found,
                conf,
                Path::new("/etc/asterisk/rtp.conf"),
                &(10000..=20000),
            );
            assert_eq!(found.checks[0].outcome, outcome, "{conf}");
        }
    }
}
