//! Whether a subject template is one.

use super::{did_you_mean, is_showable};

const FIELDS: [&str; 6] = ["source", "schema", "table", "op", "key", "partition"];

/// The stream of a source takes `cdc.<source>.>`: a subject outside it would be stored nowhere.
const START: &str = "cdc.{source}.";

/// Says what is wrong with a template, and at which character, from 1. The text is shown only where `shown`.
pub(super) fn check(template: &str, shown: bool) -> Result<(), String> {
    if !template.starts_with(START) {
        return Err(format!("a subject must begin with '{START}', so that the source's stream takes it"));
    }
    let mut inside: Option<(usize, String)> = None;
    let mut token_is_empty = true;
    let mut place = 0;
    for c in template.chars() {
        place += 1;
        match (c, &mut inside) {
            ('{', None) => inside = Some((place, String::new())),
            ('{', Some(_)) => return Err(format!("'{{' inside a field at character {place}")),
            ('}', None) => return Err(format!("'}}' without '{{' at character {place}")),
            ('}', Some((start, name))) => {
                if !FIELDS.contains(&name.as_str()) {
                    let named = if shown && is_showable(name) { format!(" '{{{name}}}'") } else { String::new() };
                    let hint = did_you_mean(name, FIELDS);
                    return Err(format!("unknown field{named} at character {start}{hint}"));
                }
                inside = None;
                token_is_empty = false;
            }
            (c, Some((_, name))) => name.push(c),
            ('.', None) if token_is_empty => return Err(format!("empty token at character {place}")),
            ('.', None) => token_is_empty = true,
            (c, None) if c.is_whitespace() || c.is_control() || matches!(c, '*' | '>') => {
                return Err(format!("a subject holds no blanks, control characters, '*' or '>': character {place}"));
            }
            (_, None) => token_is_empty = false,
        }
    }
    match inside {
        Some((start, _)) => Err(format!("'{{' without '}}' at character {start}")),
        None if token_is_empty => Err("the last token is empty".to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn templates_below_the_source_are_taken() {
        for text in
            ["cdc.{source}.{schema}.{table}.{partition}", "cdc.{source}.v1.{table}-{op}.{key}", "cdc.{source}.x"]
        {
            assert_eq!(check(text, true), Ok(()), "{text}");
        }
    }

    #[test]
    fn mistakes_in_templates_have_a_place() {
        for (text, place) in [
            ("cdc.{source}.{tabel}", "character 14"),
            ("cdc.{source}.{table", "character 14"),
            ("cdc.{source}.table}", "character 19"),
            ("cdc.{source}.{ta{ble}", "character 17"),
            ("cdc.{source}..x", "character 14"),
            ("cdc.{source}.x.", "last token"),
            ("cdc.{source}.", "last token"),
            ("cdc.{source}.a b", "character 15"),
            ("cdc.{source}.>", "character 14"),
            ("shop.{table}", "must begin"),
        ] {
            let what = check(text, true).expect_err(text);
            assert!(what.contains(place), "{text}: {what}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "cdc\\.\\{source\\}\\..*") {
            let _ = check(&text, true);
        }
    }
}
