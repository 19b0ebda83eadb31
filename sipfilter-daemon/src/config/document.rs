//! One TOML file: its text, its tree with places, its typed form, and the diagnostics that it gave rise to.
//!
//! serde stops at the first error. To report them all in one go, the entry that an error points at is taken out of the tree and
//! the rest is tried again, until what is left fits. It knows nothing of what the keys mean.
//!
//! Invariant: paths are those of the file as written, however much has been taken out.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
    sync::Arc,
};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diagnostic::{Diagnostic, Severity, SourceFile, nearest, suggestion},
    reference,
};
use crate::printable::is_obeyed;

/// More diagnostics than this help nobody, and each costs one more pass over the tree.
const MAX_PASSES: usize = 64;

/// A file under examination.
pub(super) struct Document {
    file: Arc<SourceFile>,
    /// The path of every key and value, by its bytes. A key and its value have the same path.
    paths: BTreeMap<(usize, usize), String>,
    /// Paths that were taken out: what is wrong with them has been said already.
    refused: BTreeSet<String>,
    diagnostics: Vec<Diagnostic>,
}

impl Document {
    /// Reads the text as a `T`; `None` where it is no TOML at all. What does not fit is refused and left out.
    pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> (Self, Option<T>) {
        let mut document = Self {
            file: SourceFile::new(path, text),
            paths: BTreeMap::new(),
            refused: BTreeSet::new(),
            diagnostics: Vec::new(),
        };
        let (mut tree, errors) = DeTable::parse_recoverable(text);
        index_table(tree.get_ref(), "", &mut document.paths);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let key = document.path_of(&span);
            document.push(
                Severity::Error,
                span,
                key,
                sentence(error.message()),
                syntax_help(error.message()),
            );
        }
        if !errors.is_empty() {
            // What the parser recovered may lack whole sections: judging it would accuse the operator of what is not there.
            return (document, None);
        }
        for _ in 0..MAX_PASSES {
            match T::deserialize(toml::Deserializer::from(tree.clone())) {
                Ok(value) => return (document, Some(value)),
                Err(error) => {
                    if !document.refuse(&error, tree.get_mut()) {
                        break;
                    }
                }
            }
        }
        (document, None)
    }

    /// Reports what serde found and takes the entry out of the tree. False where nothing could be taken out.
    fn refuse(&mut self, error: &toml::de::Error, tree: &mut DeTable<'_>) -> bool {
        let span = error.span().unwrap_or(0..0);
        let key = self.path_of(&span);
        let (message, help) = explain(error.message(), &key);
        self.push(Severity::Error, span.clone(), key.clone(), message, help);
        if let Some(meant) = meant(error.message()) {
            // A misspelt key is not missing as well.
            let table = key.rfind('.').map_or("", |dot| &key[..dot]);
            self.refused.insert(join(table, meant));
        }
        self.refused.insert(key);
        remove_from_table(tree, &span)
    }

    /// The full path of the key at exactly these bytes, else of the nearest that contains them.
    fn path_of(&self, span: &Range<usize>) -> String {
        if let Some(path) = self.paths.get(&(span.start, span.end)) {
            return path.clone();
        }
        self.paths
            .iter()
            .filter(|((start, end), _)| *start <= span.start && span.end <= *end)
            .min_by_key(|((start, end), _)| end - start)
            .map(|(_, path)| path.clone())
            .unwrap_or_default()
    }

    /// An error about the value (or key) at `span`.
    pub(super) fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let key = self.path_of(&span);
        self.push(Severity::Error, span, key, message.into(), help.into());
    }

    /// A warning about the value (or key) at `span`.
    pub(super) fn warn(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let key = self.path_of(&span);
        self.push(Severity::Warning, span, key, message.into(), help.into());
    }

    /// A key that must be there and is not, unless it was there and has been refused. `table` is the place of the table that
    /// lacks it; `None` is the file itself.
    pub(super) fn missing(
        &mut self,
        table: Option<Range<usize>>,
        key: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (path, span) = match table {
            Some(span) => (join(&self.path_of(&span), key), span),
            None => (key.to_owned(), 0..0),
        };
        let said = self.refused.iter().any(|refused| {
            *refused == path
                || path
                    .strip_prefix(refused.as_str())
                    .is_some_and(|rest| rest.starts_with(['.', '[']))
                || refused
                    .strip_prefix(path.as_str())
                    .is_some_and(|rest| rest.starts_with(['.', '[']))
        });
        if !said {
            self.push(Severity::Error, span, path, message.into(), help.into());
        }
    }

    fn push(
        &mut self,
        severity: Severity,
        span: Range<usize>,
        key: String,
        message: String,
        help: String,
    ) {
        self.diagnostics.push(Diagnostic {
            severity,
            file: Arc::clone(&self.file),
            span,
            key,
            message: printable(&message),
            help: printable(&help),
        });
    }

    /// True once an error has been reported.
    pub(super) fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// True where an error about one of these keys of a provider or trunk has been reported, so that the lack of a usable value
    /// is not reported once more.
    pub(super) fn has_refused(&self, keys: &[&str]) -> bool {
        self.diagnostics.iter().any(|diagnostic| {
            let (_, key) = diagnostic.key.split_once("].").unwrap_or_default();
            let key = key.split('[').next().unwrap_or_default();
            diagnostic.severity == Severity::Error && keys.contains(&key)
        })
    }

    /// Adds what another file gave rise to.
    pub(super) fn absorb(&mut self, other: Self) {
        self.diagnostics.extend(other.diagnostics);
    }

    /// Everything that was found, in the order of the file.
    pub(super) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        let main = Arc::clone(&self.file);
        self.diagnostics.sort_by(|a, b| {
            (a.file.name != main.name, &a.file.name, a.span.start).cmp(&(
                b.file.name != main.name,
                &b.file.name,
                b.span.start,
            ))
        });
        self.diagnostics
    }
}

/// The same with what a terminal would obey escaped: a message may quote the file, and the file may hold anything.
fn printable(text: &str) -> String {
    text.chars().fold(String::new(), |mut shown, c| {
        if is_obeyed(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        shown
    })
}

fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    let key = if bare {
        key.to_owned()
    } else {
        format!("{key:?}")
    };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

fn index_table(table: &DeTable<'_>, path: &str, paths: &mut BTreeMap<(usize, usize), String>) {
    for (key, value) in table {
        let path = join(path, key.get_ref());
        paths.insert((key.span().start, key.span().end), path.clone());
        index_value(value, path, paths);
    }
}

fn index_value(
    value: &Spanned<DeValue<'_>>,
    path: String,
    paths: &mut BTreeMap<(usize, usize), String>,
) {
    match value.get_ref() {
        DeValue::Table(table) => index_table(table, &path, paths),
        DeValue::Array(array) => {
            for (index, element) in array.iter().enumerate() {
                index_value(element, format!("{path}[{index}]"), paths);
            }
        }
        _ => {}
    }
    // `a.b = 1` gives the implied table `a` the bytes of its key: the innermost, entered first, keeps them.
    paths
        .entry((value.span().start, value.span().end))
        .or_insert(path);
}

/// Takes out the entry whose key or value lies at exactly these bytes; the deepest one that contains them otherwise.
fn remove_from_table(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let mut hit = None;
    for (key, value) in table.iter_mut() {
        if key.span() == *span {
            hit = Some(key.clone());
            break;
        }
        if remove_from_value(value, span) {
            return true;
        }
        if contains(&value.span(), span) {
            hit = Some(key.clone());
        }
    }
    hit.is_some_and(|key| table.remove(&key).is_some())
}

fn remove_from_value(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => remove_from_table(table, span),
        DeValue::Array(array) => {
            if array
                .iter_mut()
                .any(|element| remove_from_value(element, span))
            {
                return true;
            }
            let Some(place) = array
                .iter()
                .position(|element| contains(&element.span(), span))
            else {
                return false;
            };
            let rest = array.iter().enumerate();
            *array = rest
                .filter(|(index, _)| *index != place)
                .map(|(_, element)| element.clone())
                .collect();
            true
        }
        _ => false,
    }
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// The known key that serde's unknown one is a misspelling of.
fn meant(message: &str) -> Option<&str> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    message
        .starts_with("unknown field")
        .then(|| nearest(unknown, &quoted.collect::<Vec<_>>()))?
}

/// serde's message in the operator's words, and the remedy.
fn explain(message: &str, key: &str) -> (String, String) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") {
        let unknown = quoted.next().unwrap_or_default();
        let help = suggestion(unknown, quoted, "the keys here are");
        return (format!("unknown key `{unknown}`"), help);
    }
    let wanted = reference::example(key).map_or_else(
        || "see config/README.md for the form of every key".to_owned(),
        |example| format!("write it like this: {example}"),
    );
    let message = message
        .replace("invalid type: ", "")
        .replace("invalid value: ", "")
        .replace("a sequence", "a list")
        .replace("sequence", "list")
        .replace("a map", "a table")
        .replace("map", "table")
        .replace("struct ", "a table, ")
        .replace("u16", "a port number from 1 to 65535")
        .replace("u64", "a positive number");
    (format!("wrong kind of value: {message}"), wanted)
}

fn sentence(message: &str) -> String {
    format!("this is not TOML: {message}")
}

fn syntax_help(message: &str) -> String {
    if message.contains("duplicate") {
        "keep one of the two, or write a list in one place".to_owned()
    } else if message.contains("string") || message.contains("quote") {
        "texts, addresses and port ranges stand in quotes: rtp_ports = \"10000-20000\"".to_owned()
    } else {
        "a line is `key = value`, `[section]` or `[[list-section]]`; texts, addresses and port ranges stand in quotes"
            .to_owned()
    }
}
