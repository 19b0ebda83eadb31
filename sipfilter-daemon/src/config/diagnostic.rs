//! What is wrong with a configuration file: where, which key, what, and what to write instead.
//!
//! Rendering only; it judges nothing. Every diagnostic carries a remedy: there is no constructor without one.

use std::{fmt, ops::Range, path::Path, sync::Arc};

use schemars::JsonSchema;
use serde::Serialize;

/// A configuration file as it was read, kept so that a diagnostic can show the line it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The path as the operator gave it, or `<built-in>/…` for an embedded profile.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl SourceFile {
    /// Text read from `path`.
    pub fn new(path: &Path, text: &str) -> Arc<Self> {
        Arc::new(Self {
            name: path.display().to_string(),
            text: text.to_owned(),
        })
    }

    /// One-based line and column (in characters) of a byte offset.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

/// Whether a diagnostic stops the configuration from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but the operator probably did not mean this.
    Warning,
}

/// One thing that is wrong, and what to do about it.
///
/// `Display` prints several lines in rustc's manner: what is wrong, `file:line:column` and the key, the line itself with
/// a mark under the place, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The file.
    pub file: Arc<SourceFile>,
    /// Bytes of the file; empty where something is missing that has no place yet.
    pub span: Range<usize>,
    /// The key's full path, such as `trunk[0].media.ports`; empty where the text is no TOML at all.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl Diagnostic {
    /// One-based line.
    pub fn line(&self) -> usize {
        self.file.position(self.span.start).0
    }

    /// One-based column, in characters.
    pub fn column(&self) -> usize {
        self.file.position(self.span.start).1
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.file.position(self.span.start);
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let gutter = " ".repeat(line.to_string().len());
        writeln!(f, "{severity}: {}", self.message)?;
        write!(f, "{gutter}--> {}:{line}:{column}", self.file.name)?;
        if self.key.is_empty() {
            writeln!(f)?;
        } else {
            writeln!(f, ", key `{}`", self.key)?;
        }
        if !self.span.is_empty() {
            let text = self.file.text.lines().nth(line - 1).unwrap_or_default();
            let rest = text.chars().count().saturating_sub(column - 1);
            let marked = self
                .file
                .text
                .get(self.span.clone())
                .map_or(1, |marked| marked.chars().count());
            // The file may hold anything: a control character must reach neither the terminal nor the alignment.
            let text: String = text
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            writeln!(f, "{gutter} |")?;
            writeln!(f, "{line} | {text}")?;
            writeln!(
                f,
                "{gutter} | {}{}",
                " ".repeat(column - 1),
                "^".repeat(marked.min(rest).max(1))
            )?;
        }
        write!(f, "{gutter} = help: {}", self.help)
    }
}

/// `did you mean …?` for a word that is close to one of the known ones, else the list of them.
pub(super) fn suggestion<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    what: &str,
) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let list = known
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    match nearest(word, &known) {
        Some(near) => format!("did you mean `{near}`? {what}: {list}"),
        None => format!("{what}: {list}"),
    }
}

/// The known word that `word` is probably a misspelling of.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&word, name), *name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}
