//! How much work the programs are to the kernel's verifier, and how much it may become.
//!
//! The verifier gives up at a million instructions; a program that comes near it is refused by the next kernel. The figures stand in
//! `fixtures/verifier_budget.toml`, by kernel, because every kernel counts differently.

use std::{collections::BTreeMap, io::Write as _};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use sipfilter_common::abi::program;
use sipfilter_daemon::shell::{datapath::Datapath, policy::KernelPolicy};

static FIGURES: &str = include_str!("../../fixtures/verifier_budget.toml");

/// What the file says.
#[derive(Debug, Deserialize)]
struct Budget {
    margin_percent: u64,
    ceiling: u64,
    #[serde(default)]
    program: Vec<Figure>,
}

/// What one program took on one kernel.
#[derive(Debug, Deserialize)]
struct Figure {
    kernel: String,
    name: String,
    instructions: u64,
}

/// Loads both programs for each policy and compares the most that the verifier processed with the figures.
///
/// # Errors
/// Where it is too much, with what to do about it.
pub fn check(policies: impl IntoIterator<Item = KernelPolicy>) -> Result<()> {
    let mut most: BTreeMap<&str, u64> = BTreeMap::new();
    for policy in policies {
        let mut datapath = Datapath::load(&policy, 64, None)?;
        let infos = [
            (program::INGRESS, datapath.ingress()?.info()),
            (program::EGRESS, datapath.egress()?.info()),
        ];
        for (name, info) in infos {
            let count = info?
                .verified_instruction_count()
                .context("the kernel does not tell, as it has since Linux 5.16")?;
            let entry = most.entry(name).or_default();
            *entry = u64::from(count).max(*entry);
        }
    }
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let series = release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    // Past the test harness, which keeps what a test prints to itself: every kernel's figures are to be read in its log.
    writeln!(std::io::stderr())?;
    for (name, instructions) in &most {
        writeln!(
            std::io::stderr(),
            "VERIFIER kernel = \"{series}\", name = \"{name}\", instructions = {instructions}"
        )?;
    }
    let complaints = compare(FIGURES, &series, &most)?;
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

fn compare(figures: &str, series: &str, most: &BTreeMap<&str, u64>) -> Result<Vec<String>> {
    let budget: Budget = toml::from_str(figures)?;
    let mut complaints = Vec::new();
    for (&name, &instructions) in most {
        let known = budget
            .program
            .iter()
            .find(|figure| figure.kernel == series && figure.name == name);
        let (limit, why) = match known {
            Some(Figure {
                instructions: known,
                ..
            }) => (
                known + known * budget.margin_percent / 100,
                format!("{} % above {known}", budget.margin_percent),
            ),
            None => (
                budget.ceiling,
                "the ceiling of kernels without a figure".to_owned(),
            ),
        };
        if instructions > limit {
            complaints.push(format!(
                "{name}: the verifier of Linux {series} processed {instructions} instructions, more than {limit} ({why}); \
                 find what it goes through again and again, or write the new figure to tests/fixtures/verifier_budget.toml"
            ));
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_past_the_margin_is_refused_and_so_is_a_new_kernels_past_the_ceiling() {
        let figures = "margin_percent = 25\nceiling = 1000\n\
                       [[program]]\nkernel = \"6.1\"\nname = \"p\"\ninstructions = 400\n";
        for (series, instructions, complaints) in [
            ("6.1", 500, 0),
            ("6.1", 501, 1),
            ("6.12", 1_000, 0),
            ("6.12", 1_001, 1),
        ] {
            let most = BTreeMap::from([("p", instructions)]);
            let found = compare(figures, series, &most).expect("a file of this form");
            assert_eq!(
                found.len(),
                complaints,
                "{series} {instructions}: {found:?}"
            );
        }
    }

    #[test]
    fn the_committed_figures_can_be_read() {
        compare(FIGURES, "0.0", &BTreeMap::new()).expect("a file of this form");
    }
}
