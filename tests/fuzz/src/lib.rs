//! What the fuzz targets do with their input, apart from who calls them: libFuzzer, the replay of the corpus, or random bytes.
//!
//! Every target is a function of bytes that panics when a promise is broken: no input crashes the parsers, the engine or the
//! packet policy, and what they say of it holds together. Nothing here does I/O except the replay of files.

pub mod engine;
pub mod fragments;
pub mod message;
mod packet;
pub mod policy;
pub mod sdp;
pub mod segments;
pub mod stream;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// A target: its name, which is its corpus directory's, and what it does with one input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 7] = [
    ("message", message::run),
    ("sdp", sdp::run),
    ("stream", stream::run),
    ("engine", engine::run),
    ("policy", policy::run),
    ("fragments", fragments::run),
    ("segments", segments::run),
];

/// The program around one target: libFuzzer's under cargo-fuzz, else a replay of the files named on the command line.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::$name::run(bytes));

        #[cfg(not(fuzzing))]
        fn main() -> std::process::ExitCode {
            $crate::replay_arguments($crate::$name::run)
        }
    };
}

/// Gives every file that the command line names, directly or in a directory, to the target.
pub fn replay_arguments(run: fn(&[u8])) -> ExitCode {
    let mut count = 0;
    for argument in std::env::args_os().skip(1) {
        match files(Path::new(&argument)) {
            Ok(paths) => {
                for path in paths {
                    match fs::read(&path) {
                        Ok(bytes) => {
                            eprintln!("{}", path.display());
                            run(&bytes);
                            count += 1;
                        }
                        Err(error) => return failed(&path, &error),
                    }
                }
            }
            Err(error) => return failed(Path::new(&argument), &error),
        }
    }
    eprintln!("replayed {count} inputs; fuzzing itself needs `cargo xtask fuzz`");
    ExitCode::SUCCESS
}

/// The file itself, or the directory's files by name.
///
/// # Errors
/// Where the path cannot be read.
pub fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut paths = fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn failed(path: &Path, error: &io::Error) -> ExitCode {
    eprintln!("cannot read {}: {error}", path.display());
    ExitCode::from(2)
}
