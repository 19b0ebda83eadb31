//! A manual page from the configuration reference: Markdown in, roff out.
//!
//! It knows what that file is made of and no more: headings, paragraphs, lists, code, and tables, whose rows become entries.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use roff::{Inline, Roff, bold, italic, roman};

/// `sipfilter.toml.5`.
pub fn configuration(reference: &str) -> String {
    let mut page = Page::default();
    page.roff
        .control("TH", ["sipfilter.toml", "5", "", "", "sipfilter"]);
    page.roff.control("SH", ["NAME"]);
    page.roff
        .text([roman("sipfilter.toml - configuration of sipfilterd(8)")]);
    page.roff.control("SH", ["DESCRIPTION"]);
    for event in Parser::new_ext(reference, Options::ENABLE_TABLES) {
        page.take(event);
    }
    page.roff.control("SH", ["SEE ALSO"]);
    page.roff.text([roman("sipfilterd(8), sipfilterctl(1)")]);
    page.roff.to_roff()
}

#[derive(Default)]
struct Page {
    roff: Roff,
    /// The text of the block, row cell or heading that is being read.
    line: Vec<Inline>,
    style: Style,
    in_code: bool,
    in_item: bool,
    /// The table's column names, then the cells of the row that is being read.
    columns: Vec<Vec<Inline>>,
    row: Vec<Vec<Inline>>,
}

#[derive(Clone, Copy, Default)]
enum Style {
    #[default]
    Plain,
    Strong,
    Emphasis,
}

impl Page {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Text(text) if self.in_code => self.code(&text),
            Event::Text(text) => self.line.push(match self.style {
                Style::Plain => roman(&*text),
                Style::Strong => bold(&*text),
                Style::Emphasis => italic(&*text),
            }),
            Event::Code(text) => self.line.push(bold(&*text)),
            Event::SoftBreak | Event::HardBreak => self.line.push(roman(" ")),
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            _ => {}
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Strong => self.style = Style::Strong,
            Tag::Emphasis => self.style = Style::Emphasis,
            Tag::Item => {
                self.in_item = true;
                self.roff.control("IP", ["\\(bu", "2"]);
            }
            Tag::CodeBlock(_) => {
                self.in_code = true;
                self.roff
                    .control("PP", [])
                    .control("RS", ["4"])
                    .control("nf", []);
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Strong | TagEnd::Emphasis => self.style = Style::Plain,
            // The first heading names the page.
            TagEnd::Heading(pulldown_cmark::HeadingLevel::H1) => self.line.clear(),
            TagEnd::Heading(_) => {
                let title = plain(&std::mem::take(&mut self.line)).to_uppercase();
                self.roff.control("SH", [title.as_str()]);
            }
            TagEnd::Paragraph => {
                if !self.in_item {
                    self.roff.control("PP", []);
                }
                self.flush();
            }
            TagEnd::Item => {
                self.flush();
                self.in_item = false;
            }
            TagEnd::List(_) => {
                self.roff.control("PP", []);
            }
            TagEnd::CodeBlock => {
                self.in_code = false;
                self.roff.control("fi", []).control("RE", []);
            }
            TagEnd::TableCell => self.row.push(std::mem::take(&mut self.line)),
            TagEnd::TableHead => self.columns = std::mem::take(&mut self.row),
            TagEnd::TableRow => self.entry(),
            _ => {}
        }
    }

    fn code(&mut self, text: &str) {
        for line in text.lines() {
            self.roff.text([roman(line)]);
        }
    }

    /// A row: its first cell as the term, its last as the explanation, those between with their columns' names.
    fn entry(&mut self) {
        let mut cells = std::mem::take(&mut self.row);
        let Some(explanation) = cells.pop().filter(|_| !cells.is_empty()) else {
            return;
        };
        let term = cells.remove(0);
        self.roff.control("TP", []).text(term);
        let mut line = Vec::new();
        for (name, cell) in self.columns.iter().skip(1).zip(cells) {
            if !cell.is_empty() {
                line.push(italic(plain(name)));
                line.push(roman(": "));
                line.extend(cell);
                line.push(roman("; "));
            }
        }
        line.extend(explanation);
        self.roff.text(line);
    }

    fn flush(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.roff.text(line);
        }
    }
}

fn plain(line: &[Inline]) -> String {
    line.iter()
        .map(|part| match part {
            Inline::Roman(text) | Inline::Italic(text) | Inline::Bold(text) => text.as_str(),
            Inline::LineBreak => " ",
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::REFERENCE;

    /// As the reader sees it, on one line.
    fn shown(roff: &str) -> String {
        let text = roff
            .replace("\\fB", "")
            .replace("\\fI", "")
            .replace("\\fR", "");
        text.replace("\\-", "-").replace("\\&", "")
    }

    #[test]
    fn every_key_of_the_reference_is_an_entry_of_the_page() {
        let page = shown(&configuration(REFERENCE));
        let entries: Vec<&str> = page
            .split(".TP\n")
            .skip(1)
            .filter_map(|entry| entry.lines().next())
            .collect();
        let keys = REFERENCE
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(key, _)| key);
        let mut count = 0;
        for key in keys {
            assert!(entries.contains(&key), "{key} is not in the page");
            count += 1;
        }
        assert_eq!(entries.len(), count);
        assert!(count > 60, "{count} keys");
    }

    #[test]
    fn nothing_of_the_text_is_lost() {
        let page = shown(&configuration(REFERENCE)).replace('\n', " ");
        for words in [
            "Host names are refused: what a name resolves to need not be what signals",
            "STRICT SCOPE",
            "protocol = \"tcp\"",
            "the day on which somebody last compared them",
        ] {
            assert!(page.contains(words), "{words}");
        }
    }
}
