//! Manual pages and completions from the command lines' definitions.

use std::{fs, path::Path};

use anyhow::Result;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use roff::{Roff, roman};
use sipfilter_daemon::{arguments::Arguments, ctl::Cli};

/// What the daemon's page says besides its options: section and paragraphs.
const DAEMON: [(&str, &[&str]); 5] = [
    (
        "SIGNALS",
        &[
            "SIGTERM, SIGINT: end, and take the filter off or leave it attached, as `on_stop` says in the configuration.",
            "SIGUSR2: end and leave the filter attached for the next start, as in a restart or an upgrade: calls in progress go on.",
            "SIGHUP: read the configuration again, as `sipfilterctl reload` does.",
        ],
    ),
    (
        "PRIVILEGES",
        &[
            "It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. The service runs it as the user sipfilter with these three and nothing \
             else; members of the group sipfilter may ask it by sipfilterctl(1).",
        ],
    ),
    (
        "EXIT STATUS",
        &[
            "0: it was asked to end. 1: something went wrong that another attempt may mend, for instance an interface that does not \
             exist. 2: a wrong configuration or command line.",
        ],
    ),
    (
        "FILES",
        &[
            "/etc/sipfilter/sipfilter.toml: the configuration, see sipfilter.toml(5).",
            "/run/sipfilter/control.sock: what can be read, HTTP and JSON; for the group sipfilter.",
            "/run/sipfilter/admin.sock: what changes something; for the service's user and root alone.",
            "/sys/fs/bpf/sipfilter: what the kernel holds, pinned.",
            "/usr/share/sipfilter: providers and PBX presets as they are built in, to be copied for the key `catalogue`; alerts for \
             Prometheus and a dashboard for Grafana.",
        ],
    ),
    ("SEE ALSO", &["sipfilterctl(1), sipfilter.toml(5)"]),
];

const CONTROL: [(&str, &[&str]); 1] = [("SEE ALSO", &["sipfilterd(8), sipfilter.toml(5)"])];

/// `sipfilterctl` and each of its commands, and `sipfilterd`.
pub fn write_pages(section_1: &Path, section_8: &Path) -> Result<()> {
    let mut control = Cli::command().disable_help_subcommand(true);
    control.build();
    write_tree(&control, section_1)?;
    write_page(Arguments::command(), "8", &DAEMON, section_8)
}

fn write_tree(command: &Command, directory: &Path) -> Result<()> {
    for command in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write_tree(command, directory)?;
    }
    write_page(command.clone(), "1", &CONTROL, directory)
}

fn write_page(
    command: Command,
    section: &str,
    more: &[(&str, &[&str])],
    directory: &Path,
) -> Result<()> {
    let page = Man::new(command)
        .section(section)
        // A date would make each day's package another one.
        .date("")
        .manual("sipfilter");
    let mut text = Vec::new();
    page.render(&mut text)?;
    let mut roff = Roff::new();
    for (title, paragraphs) in more {
        roff.control("SH", [*title]);
        for paragraph in *paragraphs {
            roff.control("PP", []);
            roff.text([roman(*paragraph)]);
        }
    }
    roff.to_writer(&mut text)?;
    Ok(fs::write(directory.join(page.get_filename()), text)?)
}

/// Both programs' completions, under the names that the shells look for.
pub fn write_completions(directory: &Path) -> Result<()> {
    for mut command in [Arguments::command(), Cli::command()] {
        let name = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut command, &name, directory)?;
        }
    }
    Ok(())
}
