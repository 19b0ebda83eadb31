//! The log's way out: each line is redacted before it is written.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use super::Redactor;
use crate::shell::logging::Lines;

/// Makes writers that redact.
#[derive(Debug, Clone)]
pub struct Redacting {
    /// What redacts.
    pub redactor: Redactor,
    /// Where it goes.
    pub lines: Lines,
}

impl Redacting {
    /// Takes a line as it may be read.
    pub fn push(&self, line: &str) {
        self.lines.push(self.redactor.line(line).as_bytes());
    }
}

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Redacting {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
