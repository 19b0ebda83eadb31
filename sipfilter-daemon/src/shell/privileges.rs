//! What the process may do: checked before anything is touched, so that a missing privilege is named instead of guessed from an
//! error number.

use rustix::thread::{CapabilitySet, capabilities};

/// What loading and attaching takes, each under its name. CAP_SYS_ADMIN stands for all but CAP_NET_ADMIN.
const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
];

/// Capabilities that are missing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("missing {}: run sipfilterd as root, or give it these capabilities (in a systemd unit: AmbientCapabilities=)", .0.join(", "))]
pub struct MissingPrivileges(Vec<&'static str>);

/// Whether this process can load and attach the programs.
///
/// # Errors
/// [`MissingPrivileges`]. A kernel that does not tell is asked by trying.
pub fn check() -> Result<(), MissingPrivileges> {
    match capabilities(None) {
        Ok(sets) => missing(sets.effective),
        Err(_) => Ok(()),
    }
}

fn missing(effective: CapabilitySet) -> Result<(), MissingPrivileges> {
    let has = |needed: CapabilitySet| {
        effective.contains(needed)
            || (needed != CapabilitySet::NET_ADMIN && effective.contains(CapabilitySet::SYS_ADMIN))
    };
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(needed, _)| !has(*needed))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(MissingPrivileges(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        #[track_caller]
        fn check(effective: CapabilitySet, expect: &[&'static str]) {
            let found = missing(effective)
                .err()
                .map_or_else(Vec::new, |error| error.0);
            assert_eq!(found, expect, "{effective:?}");
        }
        check(CapabilitySet::all(), &[]);
        check(
            CapabilitySet::empty(),
            &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"],
        );
        check(CapabilitySet::SYS_ADMIN, &["CAP_NET_ADMIN"]);
        check(
            CapabilitySet::BPF | CapabilitySet::NET_ADMIN,
            &["CAP_PERFMON"],
        );
        check(
            CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON,
            &[],
        );
    }
}
