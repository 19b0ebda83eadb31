//! Starts that cannot be: they say why, and the filter that an earlier run left goes on.

use std::{
    fs,
    io::ErrorKind,
    os::unix::net::{UnixListener, UnixStream},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sipfilter_tests::lab::daemon::{Daemon, Mode, find_program};

use super::{NAME, calls, config, hang_up, one_of_each, says, survive};
use crate::Test;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "faults::starts_that_cannot_be_leave_the_filter_alone",
            refused,
        ),
        Test::new("faults::what_lies_in_a_sockets_place_is_left_there", taken),
    ]
}

const SOCKETS: [&str; 2] = ["control.sock", "admin.sock"];

/// What is in the way, a wrapper that puts it there for the daemon alone, and what it must say.
struct Obstacle {
    name: &'static str,
    /// A shell's words before the daemon's, in a mount namespace of its own.
    mounts: &'static str,
    words: &'static [&'static str],
}

const OBSTACLES: [Obstacle; 2] = [
    Obstacle {
        name: "no BPF file system",
        mounts: "mount -t tmpfs none /sys/fs",
        words: &[
            "no BPF file system at /sys/fs/bpf",
            "mount -t bpf bpf /sys/fs/bpf",
        ],
    },
    Obstacle {
        name: "a BPF file system that cannot be written",
        mounts: "mount -o remount,bind,ro /sys/fs/bpf",
        words: &["/sys/fs/bpf", "Read-only file system", "remount"],
    },
];

fn refused() -> Result<()> {
    let mut stage = calls(2, 2)?;
    survive(&mut stage, "refused starts", |network, daemon| {
        daemon.stop(Signal::KILL)?;
        let program = find_program("sipfilterd")?;
        for obstacle in OBSTACLES {
            let Obstacle {
                name,
                mounts,
                words,
                ..
            } = obstacle;
            let inside = format!("{mounts} && exec \"$@\"");
            let wrapper = ["unshare", "--mount", "sh", "-c", &inside, "sh"];
            let (status, log) =
                Daemon::refused_within(network, NAME, &config(network), &wrapper, &program)?;
            ensure!(!status.success(), "{name}: it ended with {status}: {log}");
            says(name, &log, words)?;
            one_of_each(network).context(name)?;
        }
        Daemon::start(network, Mode::Native)
    })?;
    hang_up(&stage)
}

/// Something that is no socket lies where one belongs, or a socket that somebody listens on; one that nobody does is replaced.
fn taken() -> Result<()> {
    let mut stage = calls(2, 2)?;
    survive(&mut stage, "taken sockets", |network, daemon| {
        let runtime = daemon.runtime().to_path_buf();
        daemon.stop(Signal::KILL)?;
        for socket in SOCKETS {
            let path = runtime.join(socket);
            let is_stale = UnixStream::connect(&path)
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
            ensure!(is_stale, "a death leaves no stale {socket}");
            fs::remove_file(&path)?;
            for is_file in [true, false] {
                match is_file {
                    true => fs::write(&path, "precious")?,
                    false => fs::create_dir(&path)?,
                }
                let (status, log) = Daemon::refused(network, NAME, &config(network))?;
                ensure!(!status.success(), "it ended with {status}: {log}");
                says(socket, &log, &[socket, "not a socket", "move it away"])?;
                one_of_each(network)?;
                if is_file {
                    ensure!(
                        fs::read_to_string(&path)? == "precious",
                        "{socket}: the file was changed"
                    );
                    fs::remove_file(&path)?;
                } else {
                    fs::remove_dir(&path)?;
                }
            }
            let listener = UnixListener::bind(&path)?;
            let (status, log) = Daemon::refused(network, NAME, &config(network))?;
            ensure!(!status.success(), "it ended with {status}: {log}");
            says(
                socket,
                &log,
                &[socket, "another program listens", "--runtime-dir"],
            )?;
            one_of_each(network)?;
            listener.set_nonblocking(true)?;
            let knocked = listener.accept();
            ensure!(knocked.is_err(), "the other program was disturbed");
        }
        let daemon = Daemon::start(network, Mode::Native)?;
        let status = daemon.ctl(&["status", "--json"])?;
        ensure!(status["running"] == true, "a stale socket stays: {status}");
        Ok(daemon)
    })?;
    hang_up(&stage)
}
