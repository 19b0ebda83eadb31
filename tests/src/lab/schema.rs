//! Every answer in JSON that a test asks `sipfilterctl` for is held against the schema that `sipfilterctl schema` shows.

use anyhow::{Context, Result, ensure};
use jsonschema::Validator;
use serde_json::Value;
use sipfilter_daemon::ctl;

/// Checks one answer to the command that these arguments begin with, after options that take no value.
///
/// # Errors
/// Where the command has no schema, or the answer is not what it says.
pub fn check(arguments: &[&str], answer: &Value) -> Result<()> {
    let words: Vec<&str> = arguments
        .iter()
        .copied()
        .skip_while(|word| word.starts_with('-'))
        .take_while(|word| !word.starts_with('-'))
        .collect();
    let schema = (1..=words.len())
        .rev()
        .find_map(|length| ctl::schema::of(&words.get(..length)?.join(" ")))
        .with_context(|| format!("sipfilterctl {} has no schema", words.join(" ")))?;
    let validator = Validator::new(schema.as_value()).context("a schema that is none")?;
    let faults: Vec<String> = validator
        .iter_errors(answer)
        .map(|fault| format!("{}: {fault}", fault.instance_path))
        .collect();
    ensure!(
        faults.is_empty(),
        "sipfilterctl {}: not as its schema says: {faults:#?}",
        arguments.join(" ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_of_another_form_is_refused() {
        check(&["calls", "--json"], &json!({ "calls": [] })).expect("no calls");
        check(&["calls", "--json"], &json!({ "calls": [{}] })).expect_err("a call without fields");
        check(&["calls", "show", "7"], &json!({ "error": "none" })).expect("no such call");
        check(&["nonsense"], &json!({})).expect_err("no such command");
    }
}
