//! The log's way out: each line is redacted before it is written.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use super::Redactor;

impl<'a> MakeWriter<'a> for Redactor {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        Lines(self.clone())
    }
}

/// Standard error, which gets whole lines.
#[derive(Debug)]
pub struct Lines(Redactor);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        io::stderr().write_all(self.0.line(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
