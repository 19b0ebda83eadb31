//! `sipfilterctl apply`, `confirm` and `rollback`: another configuration on trial, and the end of it.
//!
//! The daemon may not write its configuration, so `confirm` does: the file that was there stays beside it as `….previous`. The daemon
//! reads hostile input with fewer rights than whoever confirms: it says what to write, never where.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{CtlError, Outcome, Session, client, client::ClientError, output, reload};
use crate::{config, view};

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration to try; another file than the one that sipfilterd was started with
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Go back by itself after this time, unless `sipfilterctl confirm` keeps it
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    confirm: Duration,
}

/// Arguments of `confirm`.
#[derive(Debug, clap::Args)]
pub struct ConfirmArgs {
    /// The configuration file that sipfilterd was started with
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

/// The JSON answer of `confirm`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// What was applied and stays in force.
    file: String,
    /// The configuration file that says the same now.
    config: String,
    /// Where it says what it said before.
    previous: String,
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let unreadable = |source| CtlError::File {
        path: args.file.clone(),
        source,
    };
    let apply = view::Apply {
        file: fs::canonicalize(&args.file)
            .map_err(unreadable)?
            .display()
            .to_string(),
        text: fs::read_to_string(&args.file).map_err(unreadable)?,
        confirm_within_seconds: args.confirm.as_secs_f64(),
    };
    let answer = client::post_json(session.runtime_dir, "/v1/apply", &apply)?;
    reload::print(&answer, session)
}

pub(super) fn roll_back(session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let answer = client::post(session.runtime_dir, "/v1/rollback")?;
    reload::print(&answer, session)
}

pub(super) fn confirm(args: &ConfirmArgs, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let status: view::Status = client::get(session.runtime_dir, "/v1/status")?;
    // Whatever keeps the file from being written had better show before there is no way back.
    let replacement = Replacement::prepare(&args.config, Path::new(&status.config))?;
    let confirmed: view::Confirmed = match client::post(session.runtime_dir, "/v1/confirm") {
        Ok(confirmed) => confirmed,
        Err(ClientError::Unknown(why)) => return session.refuse(why),
        Err(error) => return Err(error.into()),
    };
    let previous = replacement
        .finish(&confirmed.text)
        .map_err(|source| CtlError::Unwritten {
            file: confirmed.file.clone(),
            config: confirmed.config.clone(),
            source,
        })?;
    let answer = Answer {
        file: confirmed.file,
        config: confirmed.config,
        previous: previous.display().to_string(),
    };
    if session.json {
        output::json(session.out, &answer)?;
    } else {
        writeln!(
            session.out,
            "{} stays in force and is in {} now; what that said before is in {}",
            answer.file, answer.config, answer.previous
        )?;
    }
    Ok(Outcome::Done)
}

/// Room for a configuration, which is hardly ever longer.
const RESERVED: u64 = 64 * 1024;

/// A file that is to take another one's place, with its owner and permissions.
struct Replacement {
    target: PathBuf,
    next: PathBuf,
    file: File,
}

impl Replacement {
    /// `told` is what the daemon says that its file is.
    fn prepare(config: &Path, told: &Path) -> Result<Self, CtlError> {
        let canonical = |path: &Path| {
            fs::canonicalize(path).map_err(|source| CtlError::File {
                path: path.to_owned(),
                source,
            })
        };
        if config != told && canonical(config).ok() != Some(canonical(told)?) {
            return Err(CtlError::OtherConfig {
                given: config.to_owned(),
                told: output::plain(&told.to_string_lossy()),
            });
        }
        // Where it is a link, what it names is replaced.
        let target = canonical(config)?;
        let next = with_suffix(&target, ".next");
        let file = create_like(&next, &target).map_err(|source| CtlError::File {
            path: next.clone(),
            source,
        })?;
        let this = Self { target, next, file };
        match fallocate(&this.file, FallocateFlags::empty(), 0, RESERVED) {
            // Not every file system can.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(this),
            Err(errno) => Err(CtlError::File {
                path: this.next.clone(),
                source: errno.into(),
            }),
        }
    }

    /// Gives where the old text is.
    fn finish(mut self, text: &str) -> io::Result<PathBuf> {
        self.file.write_all(text.as_bytes())?;
        self.file
            .set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))?;
        self.file.sync_all()?;
        let previous = with_suffix(&self.target, ".previous");
        let _ = fs::remove_file(&previous);
        // A second name takes no room; not every file system has them.
        fs::hard_link(&self.target, &previous)
            .or_else(|_| fs::copy(&self.target, &previous).map(drop))?;
        fs::rename(&self.next, &self.target)?;
        Ok(previous)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // It is gone where it took its place.
        let _ = fs::remove_file(&self.next);
    }
}

fn create_like(path: &Path, like: &Path) -> io::Result<File> {
    let found = fs::metadata(like)?;
    let _ = fs::remove_file(path);
    let file = File::create_new(path)?;
    file.set_permissions(found.permissions())?;
    std::os::unix::fs::fchown(&file, Some(found.uid()), Some(found.gid()))?;
    Ok(file)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_does_not_say_which_file_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let [config, link, other] =
            ["sipfilter.toml", "link.toml", "crontab"].map(|name| directory.path().join(name));
        fs::write(&config, "old").expect("a file");
        fs::write(&other, "precious").expect("a file");
        std::os::unix::fs::symlink(&config, &link).expect("a link");

        let refused = Replacement::prepare(&config, &other).map(drop);
        let said = refused.expect_err("another file").to_string();
        assert!(
            said.contains("--config") && said.contains("crontab"),
            "{said}"
        );
        for told in [&config, &link] {
            let replacement = Replacement::prepare(&config, told).expect("the same file");
            replacement.finish("new").expect("room");
        }
        let text = |path: &Path| fs::read_to_string(path).expect("a file");
        assert_eq!((&*text(&config), &*text(&other)), ("new", "precious"));
        let left = fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(
            left, 4,
            "the file, the link, the other one and the previous one"
        );
    }
}
