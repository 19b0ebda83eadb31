//! Writes what the package brings along with the programs, from what the programs know of themselves: manual pages, completions for
//! bash, zsh and fish, and the configuration file to begin with.
//!
//! `cargo xtask package` runs it. Nothing here is written by hand twice: commands and options come from the programs' own definitions,
//! `sipfilter.toml.5` from `config/README.md`, the configuration from the commented example.

mod commands;
mod first_config;
mod page;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

const REFERENCE: &str = include_str!("../../../config/README.md");
const EXAMPLE: &str = include_str!("../../../config/sipfilter.toml");

fn main() -> Result<()> {
    let directory: PathBuf = std::env::args_os()
        .nth(1)
        .context("the directory to write to is missing")?
        .into();
    let _ = fs::remove_dir_all(&directory);
    let in_directory = |name: &str| -> Result<PathBuf> {
        let path = directory.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    };
    commands::write_pages(&in_directory("man1")?, &in_directory("man8")?)?;
    commands::write_completions(&in_directory("completions")?)?;
    fs::write(
        in_directory("man5")?.join("sipfilter.toml.5"),
        page::configuration(REFERENCE),
    )?;
    fs::write(
        in_directory("etc")?.join("sipfilter.toml"),
        first_config::of_example(EXAMPLE),
    )?;
    Ok(())
}
