//! `sipfilterctl`: hands the command line to `ctl` and turns what comes back into an exit code. Nothing else happens here.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use sipfilter_daemon::ctl::{self, Cli, CtlError, Outcome};

fn main() -> ExitCode {
    // A usage error ends the program inside `parse`, with 2.
    let cli = Cli::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = ctl::run(&cli, &mut out).and_then(|outcome| {
        out.flush()?;
        Ok(outcome)
    });
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(1),
        // Whoever reads our output (`| head`) has had enough.
        Err(CtlError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Nothing can be done about a standard error that is closed too.
            let _ = writeln!(io::stderr(), "sipfilterctl: {error}");
            ExitCode::from(2)
        }
    }
}
