//! The systemd unit, looked at by systemd itself: is it well-formed, and how much does it leave open?
//!
//! No systemd has to run for that. What the unit does where one runs, `cargo xtask test-package` tries.

use std::fs;

use anyhow::{Context as _, Result};

use crate::project::Project;

const UNIT: &str = "config/systemd/sipfilterd.service";

/// The most that `systemd-analyze security` may find open, in tenths: 15 is "exposure 1.5", where a service without any care has 9.6.
const CEILING: &str = "15";

/// What stands for the programs, which need not be installed here.
const STAND_IN: &str = "/bin/true";

/// Checks it.
pub fn check(project: &Project) -> Result<()> {
    let path = project.root.join(UNIT);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let copy = project.target.join("unit/sipfilterd.service");
    fs::create_dir_all(project.target.join("unit"))?;
    let with_stand_ins = text
        .replace("/usr/sbin/sipfilterd", STAND_IN)
        .replace("/usr/bin/sipfilterctl", STAND_IN);
    fs::write(&copy, with_stand_ins)?;
    let analyze = || project.shell.cmd("systemd-analyze").arg("--no-pager");
    analyze()
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&copy)
        .run()?;
    let security = analyze().args(["security", "--offline=true", "--threshold", CEILING]);
    Ok(security.arg(&path).ignore_stdout().run()?)
}
