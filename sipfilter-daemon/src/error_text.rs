//! Errors as one line of text.

use std::error::Error;

/// An error and its causes, outermost first. A cause that the text before it has told already is left out: some libraries put the
/// cause into their own message, others only behind it.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn each_cause_is_told_once() {
        let layers = |texts: &[&'static str]| {
            texts
                .iter()
                .rev()
                .fold(None, |source, text| Some(Box::new(Layer { text, source })))
        };
        for (texts, expect) in [
            (&["no socket: denied", "denied"][..], "no socket: denied"),
            (&["no socket", "denied"], "no socket: denied"),
            (
                &["no socket", "denied", "denied by policy"],
                "no socket: denied: denied by policy",
            ),
        ] {
            assert_eq!(with_causes(&*layers(texts).expect("a layer")), expect);
        }
    }
}
