//! The configuration that a new installation has: the example with every setting commented out, so that nothing can be filtered before
//! somebody has said what.

const HEAD: &str = "\
# sipfilter's configuration. As it is, it says nothing, and sipfilterd does not start with it.
# Take the # away from the lines that begin with one and no space, and put your own values there; sipfilter.toml(5) lists every key.
# Then:
#   sipfilterctl check-config
#   systemctl enable --now sipfilterd
#   sipfilterctl status
";

/// From the example's text. Its explanations keep their `# `; its settings get a `#`, and settings that were comments already a `#` alone.
pub fn of_example(example: &str) -> String {
    let settings = example
        .lines()
        .skip_while(|line| line.starts_with('#'))
        .map(|line| match line.strip_prefix("# ") {
            Some(text) if is_setting(text) => format!("#{text}"),
            None if !line.is_empty() && !line.starts_with('#') => format!("#{line}"),
            _ => line.to_owned(),
        });
    std::iter::once(HEAD.to_owned())
        .chain(settings.map(|line| line + "\n"))
        .collect()
}

/// A table's head, or a key and its value.
fn is_setting(text: &str) -> bool {
    text.starts_with('[')
        || text.split_once(" = ").is_some_and(|(key, _)| {
            key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                || key.starts_with('"') && key.ends_with('"')
        })
}

#[cfg(test)]
mod tests {
    use sipfilter_daemon::config::Config;

    use super::*;
    use crate::EXAMPLE;

    #[test]
    fn a_new_installation_filters_nothing_until_it_is_told_what() {
        let text = of_example(EXAMPLE);
        let setting = text
            .lines()
            .find(|line| !line.is_empty() && !line.starts_with('#'));
        assert_eq!(setting, None);
        let error = Config::parse(std::path::Path::new("sipfilter.toml"), &text).unwrap_err();
        assert!(error.to_string().contains("interfaces"), "{error}");
    }

    #[test]
    fn what_the_example_says_comes_back_without_the_marks() {
        let text = of_example(EXAMPLE);
        let active = |text: &str| -> Vec<String> {
            let lines = text
                .lines()
                .filter(|line| !line.is_empty() && !line.starts_with('#'));
            lines.map(str::to_owned).collect()
        };
        let offered: Vec<&str> = text
            .lines()
            .filter_map(|line| {
                line.strip_prefix('#')
                    .filter(|rest| !rest.starts_with([' ', '#']))
            })
            .collect();
        for setting in active(EXAMPLE) {
            assert!(offered.contains(&setting.as_str()), "{setting} is lost");
        }
        assert!(
            offered.contains(&"enforcement = \"observe\""),
            "{offered:?}"
        );
        // Taken together they are a configuration.
        toml::from_str::<toml::Table>(&offered.join("\n")).unwrap();
    }
}
