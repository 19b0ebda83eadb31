//! The command line of `sipfilterd`, from which its manual page and its completions are made, too.

use std::path::PathBuf;

use clap::Parser;

use crate::{config, shell::runtime_dir};

/// Lets through the signalling of your providers and the media of live calls, and drops everything else that is aimed at the PBX's
/// voice ports.
#[derive(Debug, Parser)]
#[command(name = "sipfilterd", version, about)]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// Where the control socket and the lock are; each daemon needs its own
    #[arg(long, value_name = "DIR", default_value = runtime_dir::DEFAULT)]
    pub runtime_dir: PathBuf,
}
