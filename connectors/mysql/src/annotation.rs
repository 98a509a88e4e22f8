//! What an application says of a statement in its comments: the trace it is part of, as sqlcommenter writes it
//! (<https://google.github.io/sqlcommenter/spec/>), and marks of the user's choice.
//!
//! A statement holds values of rows. It is read where it stands, and nothing is kept of it but a trace.

use figvine_change::trace::{TRACEPARENT_BYTES, traceparent};
use memchr::memmem;
use percent_encoding::percent_decode;

use crate::config::Config;
use crate::statement::{Escapes, comments};

/// sqlcommenter's key of the trace.
const TRACEPARENT: &[u8] = b"traceparent";

/// What is looked for in comments.
#[derive(Debug, Clone)]
pub(crate) struct Annotations {
    has_traces: bool,
    marks: Vec<Box<[u8]>>,
}

impl Annotations {
    pub(crate) fn of(config: &Config) -> Self {
        let marks = config.ignore_comments.iter().map(|mark| mark.as_bytes().into());
        Self { has_traces: config.trace_comments, marks: marks.collect() }
    }

    /// Whether anything is looked for.
    pub(crate) fn are_wanted(&self) -> bool {
        self.has_traces || !self.marks.is_empty()
    }

    /// The trace that the statement is part of; of several the first.
    pub(crate) fn traceparent(&self, statement: &[u8]) -> Option<Box<str>> {
        // Most statements have none, and some are long.
        if !self.has_traces || memmem::find(statement, TRACEPARENT).is_none() {
            return None;
        }
        comments(statement, Escapes::All).into_iter().filter_map(|range| statement.get(range)).find_map(traceparent_in)
    }

    /// Comments that say what the statement's say, without anything else of it.
    pub(crate) fn said(&self, statement: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        let traceparent =
            self.traceparent(statement).map(|traceparent| format!("traceparent={traceparent}").into_bytes());
        let mark = self.mark(statement).map(<[u8]>::to_vec);
        for text in traceparent.into_iter().chain(mark) {
            // Neither end can stand in a comment of its own kind.
            let is_line = memmem::find(&text, b"*/").is_some();
            let (begin, end): (&[u8], &[u8]) = if is_line { (b"# ", b"\n") } else { (b"/* ", b" */") };
            said.extend([begin, &text, end].concat());
        }
        said
    }

    /// Whether the statement marks its transaction as one that is not to be told.
    ///
    /// Where a string ends depends on the session's `sql_mode`, which MariaDB's log does not tell of such statements. So that no
    /// value can pass for a comment, only what is one in every mode counts.
    pub(crate) fn is_marked(&self, statement: &[u8]) -> bool {
        self.mark(statement).is_some()
    }

    fn mark(&self, statement: &[u8]) -> Option<&[u8]> {
        let is_in = |text: &[u8], mark: &[u8]| memmem::find(text, mark).is_some();
        let mut found = self.marks.iter().map(|mark| &**mark).filter(|mark| is_in(statement, mark)).peekable();
        found.peek()?;
        let mut sure = comments(statement, Escapes::All);
        for escapes in [Escapes::InStrings, Escapes::None] {
            let these = comments(statement, escapes);
            sure.retain(|range| these.contains(range));
        }
        let texts: Vec<_> = sure.into_iter().filter_map(|range| statement.get(range)).collect();
        found.find(|mark| texts.iter().any(|text| is_in(text, mark)))
    }
}

/// The value of the key in a comment, `traceparent='...'` with or without the quotes, percent-encoded.
fn traceparent_in(comment: &[u8]) -> Option<Box<str>> {
    memmem::find_iter(comment, TRACEPARENT).find_map(|at| {
        let (before, rest) = comment.split_at_checked(at)?;
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if before.last().is_some_and(is_word) {
            return None;
        }
        let rest = rest.get(TRACEPARENT.len()..)?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
        let value = match rest.split_first() {
            Some((quote @ (b'\'' | b'"'), rest)) => rest.split(|byte| byte == quote).next()?,
            _ => rest.split(|byte| byte.is_ascii_whitespace() || matches!(byte, b',' | b';')).next()?,
        };
        // Encoded, each byte is three at most.
        if value.len() > 3 * TRACEPARENT_BYTES {
            return None;
        }
        traceparent(&percent_decode(value).collect::<Vec<_>>())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::tests::example;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";

    fn annotations(marks: &[&str]) -> Annotations {
        let ignore_comments = marks.iter().map(|&mark| mark.to_owned()).collect();
        Annotations::of(&Config { trace_comments: true, ignore_comments, ..example() })
    }

    fn trace_of(statement: &str) -> Option<Box<str>> {
        annotations(&[]).traceparent(statement.as_bytes())
    }

    #[test]
    fn a_trace_stands_in_any_comment_as_sqlcommenter_writes_it_or_bare() {
        let encoded = TRACE.replace('-', "%2D");
        for comment in [
            format!("/*action='%2Fpay',traceparent='{TRACE}',tracestate='a%3D1'*/"),
            format!("/* traceparent={TRACE}, route=x */"),
            format!("/*traceparent = \"{TRACE}\"*/"),
            format!("/*traceparent='{encoded}'*/"),
            format!("/*!50000 */ /*traceparent='{TRACE}'*/"),
            format!("-- traceparent={TRACE}\n"),
            format!("# traceparent={TRACE}\n"),
            format!("/*traceparent='no'*/ /*traceparent='{TRACE}'*/ /*traceparent='{OTHER}'*/"),
            format!("/*traceparent='{TRACE}'*/ /*traceparent='{OTHER}'*/"),
        ] {
            for statement in [
                format!("{comment} insert into t values (1)"),
                format!("insert into t {comment} values ('it\\'s', 'it''s', \"/*\", `/*`)"),
                format!("insert into t values ('it\\'s', 'it''s', \"/*\", `--`, a/*x*/*2) {comment}"),
            ] {
                assert_eq!(trace_of(&statement).as_deref(), Some(TRACE), "{statement}");
            }
        }
    }

    #[test]
    fn what_is_no_comment_or_no_trace_says_nothing() {
        for statement in [
            format!("insert into t values ('/*traceparent=''{TRACE}''*/')"),
            format!("insert into t values (\"/*traceparent={TRACE}*/\")"),
            format!("insert into t values ('\\' /*traceparent={TRACE}*/ ')"),
            format!("insert into `/*traceparent={TRACE}*/` values (1)"),
            format!("insert into t values (1 /*!50000 , 'traceparent={TRACE}' */)"),
            format!("insert into t values (1) /*xtraceparent={TRACE}*/"),
            format!("insert into t values (1) /*my-traceparent={TRACE}*/"),
            format!("insert into t values (1) /*traceparent={TRACE}0*/"),
            format!("insert into t values (1) /*traceparent='{TRACE}"),
            format!("insert into t values (1--traceparent={TRACE}\n)"),
            "insert into t values (1) /*traceparent*/".to_owned(),
            format!("insert into t values (1) /*traceparent='{}'*/", "0".repeat(1000)),
        ] {
            assert_eq!(trace_of(&statement), None, "{statement}");
        }
        let off = Annotations::of(&example());
        assert_eq!(off.traceparent(format!("do 1 /*traceparent={TRACE}*/").as_bytes()), None);
        assert!(!off.are_wanted() && annotations(&[]).are_wanted());
    }

    #[test]
    fn what_is_kept_of_a_statement_says_the_same_and_holds_no_values() {
        let annotations = annotations(&["!from-crm", "*/odd"]);
        for (statement, kept) in [
            ("insert into t values ('secret')".to_owned(), String::new()),
            (
                format!("insert into t values ('secret') /*a='secret',traceparent='{TRACE}'*/"),
                format!("/* traceparent={TRACE} */"),
            ),
            (
                format!("/* secret !from-crm */ insert into t values ('secret') -- traceparent={TRACE}"),
                format!("/* traceparent={TRACE} *//* !from-crm */"),
            ),
            ("insert into t values ('secret') # */odd secret".to_owned(), "# */odd\n".to_owned()),
        ] {
            let said = annotations.said(statement.as_bytes());
            assert_eq!(String::from_utf8_lossy(&said), kept, "{statement}");
            assert_eq!(annotations.traceparent(&said), annotations.traceparent(statement.as_bytes()), "{statement}");
            assert_eq!(annotations.is_marked(&said), annotations.is_marked(statement.as_bytes()), "{statement}");
        }
    }

    #[test]
    fn a_mark_is_a_comment_in_every_sql_mode() {
        let marks = annotations(&["figvine.ignore", "from-crm"]);
        for statement in [
            "/* figvine.ignore */ insert into t values ('it\\'s')",
            "insert /* by=from-crm */ into t values (1)",
            "insert into t values ('it''s') -- from-crm",
            "insert into t values ('c:\\\\') /*from-crm*/",
        ] {
            assert!(marks.is_marked(statement.as_bytes()), "{statement}");
        }
        for statement in [
            "insert into t values ('/* figvine.ignore */')",
            "insert into t values (1) /* figvine ignore */",
            // With NO_BACKSLASH_ESCAPES these are strings.
            "insert into t values ('\\' /* figvine.ignore */ ')",
            "insert into t values ('\\'', ' /* figvine.ignore */ ')",
            // With ANSI_QUOTES this is a name.
            "insert into t(\"a\\\", \" /* figvine.ignore */ \") values (1)",
        ] {
            assert!(!marks.is_marked(statement.as_bytes()), "{statement}");
        }
    }

    /// A value between quotes, as a client writes it that knows whether a backslash escapes.
    fn literal(value: &str, quote: &str, escapes: bool) -> String {
        let inside = if escapes { value.replace('\\', "\\\\") } else { value.to_owned() };
        format!("{quote}{}{quote}", inside.replace(quote, &quote.repeat(2)))
    }

    proptest! {
        #[test]
        fn no_value_passes_for_a_mark_in_any_sql_mode(
            values in prop::collection::vec(
                prop::collection::vec(
                    prop::sample::select(&["/*", "*/", "-- ", "\n", "# ", "'", "\"", "`", "\\", "!", " ", "ignore", "a"][..]),
                    0..12,
                ),
                3,
            ),
            (in_strings, in_others) in prop::sample::select(&[(true, true), (true, false), (false, false)][..]),
        ) {
            let values: Vec<_> = values.iter().map(|parts| parts.concat()).collect();
            let statement = format!(
                "insert into {} values ({}, {})",
                literal(&values[0], "`", false),
                literal(&values[1], "'", in_strings),
                literal(&values[2], "\"", in_others),
            );
            prop_assert!(!annotations(&["ignore"]).is_marked(statement.as_bytes()), "{statement}");
            let statement = format!("/* ignore */ {statement}");
            prop_assert!(annotations(&["ignore"]).is_marked(statement.as_bytes()), "{statement}");
        }

        #[test]
        fn any_bytes_are_searched(text in prop::collection::vec(prop::sample::select(&b"/*!#-='\"\\ traceparent0\xff"[..]), 0..80)) {
            let annotations = annotations(&["a"]);
            let _ = (annotations.traceparent(&text), annotations.is_marked(&text));
            let _ = traceparent_in(&text);
            let said = annotations.said(&text);
            prop_assert_eq!(annotations.is_marked(&said), annotations.is_marked(&text));
        }
    }
}
