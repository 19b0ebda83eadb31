//! Text of others, made fit for a terminal and for JSON that is looked at in one.
//!
//! It changes no value: JSON that has passed here means what it meant. Whom to name is not its matter (`shell::privacy`).

use std::borrow::Cow;

/// Whether a terminal would obey this character, or show the text around it in another order or on another line: control characters,
/// C1 ones and DEL among them, and the marks of direction and the separators of Unicode (UAX #9, §2).
pub fn is_obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// The text without what a terminal would obey.
pub fn plain(text: &str) -> String {
    text.replace(is_obeyed, "\u{fffd}")
}

/// JSON on one line, with what a terminal would obey written as `\uXXXX`. Outside of strings, JSON has no such character.
pub fn json(line: &str) -> Cow<'_, str> {
    if !line.contains(is_obeyed) {
        return Cow::Borrowed(line);
    }
    let mut escaped = String::with_capacity(line.len() + 16);
    for letter in line.chars() {
        if is_obeyed(letter) {
            // Each of them is one unit of UTF-16.
            escaped.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_replaced_and_escaped_and_nothing_else() {
        for (letter, escaped) in [
            ('\u{1b}', "\\u001b"),
            ('\u{7f}', "\\u007f"),
            ('\u{80}', "\\u0080"),
            ('\u{9b}', "\\u009b"),
            ('\u{9f}', "\\u009f"),
            ('\u{61c}', "\\u061c"),
            ('\u{200e}', "\\u200e"),
            ('\u{200f}', "\\u200f"),
            ('\u{2028}', "\\u2028"),
            ('\u{2029}', "\\u2029"),
            ('\u{202a}', "\\u202a"),
            ('\u{202e}', "\\u202e"),
            ('\u{2066}', "\\u2066"),
            ('\u{2069}', "\\u2069"),
        ] {
            let text = format!("a{letter}b");
            assert_eq!(plain(&text), "a\u{fffd}b", "{escaped}");
            let line = serde_json::to_string(&text).expect("JSON");
            let shown = json(&line);
            assert_eq!(shown, format!("\"a{escaped}b\""));
            let read: String = serde_json::from_str(&shown).expect("JSON still");
            assert_eq!(read, text);
        }
        for text in [
            "",
            "call-1@lab",
            "Zoë \u{a0}日本 שלום 🎉 \u{200b}\u{200d}\u{2027}\u{202f}\u{2065}\u{206a}",
        ] {
            assert_eq!(plain(text), text);
            assert_eq!(json(text), text);
        }
    }
}
