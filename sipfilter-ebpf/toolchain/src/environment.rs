//! Keeps an outer cargo's settings away from the inner one.
//!
//! A build script and `cargo xtask` both run inside a cargo that has exported its own compiler, flags, target directory and
//! library path. Any of them would make the inner build use the wrong compiler, or wait for the outer one's lock for ever.

use std::env;
use std::ffi::OsStr;
use std::process::Command;

/// Variables of a user's own cargo configuration; they concern the registry and the network, not the build that runs around us.
const KEPT: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_TERM_",
];

const REMOVED: [&str; 20] = [
    "CARGO",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    "DEBUG",
    "HOST",
    // The outer cargo points it into the outer toolchain, whose libraries are not the inner compiler's.
    "LD_LIBRARY_PATH",
    "NUM_JOBS",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "TARGET",
];

pub(crate) fn clean(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if is_foreign(&name) {
            command.env_remove(name);
        }
    }
}

fn is_foreign(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    REMOVED.contains(&name)
        || (name.starts_with("CARGO_") && !KEPT.iter().any(|kept| name.starts_with(kept)))
        || name.starts_with("DEP_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_outer_build_exports_is_removed() {
        fn check(name: &str, expect: bool) {
            assert_eq!(is_foreign(OsStr::new(name)), expect, "{name}");
        }

        for name in [
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET_DIR",
            "CARGO_MANIFEST_DIR",
            "CARGO_MAKEFLAGS",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
            "OUT_DIR",
        ] {
            check(name, true);
        }
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_MINE_INDEX",
            "RUSTUP_HOME",
            "PATH",
            "HOME",
            "CI",
        ] {
            check(name, false);
        }
    }
}
