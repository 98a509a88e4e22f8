//! Words, names and marks of a statement.

use super::TableName;

/// A word in capitals, a name between quotes, or a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Name(String),
    Mark(char),
}

/// Words, names and marks; what stands in comments and strings is left out, but for what the servers run of a
/// comment (`/*!50700 ... */`).
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let tail = rest.get(first.len_utf8()..).unwrap_or_default();
        if first.is_whitespace() {
            rest = tail;
        } else if let Some(comment) = rest.strip_prefix("/*") {
            let run = comment.strip_prefix("M!").or_else(|| comment.strip_prefix('!'));
            rest = match run {
                Some(run) => run.trim_start_matches(|c: char| c.is_ascii_digit()),
                None => comment.split_once("*/").map_or("", |(_, behind)| behind),
            };
        } else if let Some(behind) = rest.strip_prefix("*/") {
            rest = behind;
        } else if first == '#' || is_dashes(rest) {
            rest = rest.split_once('\n').map_or("", |(_, behind)| behind);
        } else if matches!(first, '`' | '"') {
            let (name, behind) = quoted(tail, first);
            tokens.push(Token::Name(name));
            rest = behind;
        } else if first == '\'' {
            rest = string(tail);
        } else if first.is_alphanumeric() || matches!(first, '_' | '$') {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$'))).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            tokens.push(Token::Word(word.to_owned()));
            rest = behind;
        } else {
            tokens.push(Token::Mark(first));
            rest = tail;
        }
    }
    tokens
}

/// `--` and a blank or the end: a comment up to the line's end.
fn is_dashes(text: &str) -> bool {
    text.strip_prefix("--").is_some_and(|rest| rest.chars().next().is_none_or(|c| c.is_whitespace() || c.is_control()))
}

/// A name up to its closing quote, which stands doubled inside of it.
fn quoted(text: &str, quote: char) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            name.push(character);
        } else if characters.peek().is_some_and(|(_, next)| *next == quote) {
            name.push(quote);
            characters.next();
        } else {
            return (name, text.get(at + quote.len_utf8()..).unwrap_or_default());
        }
    }
    (name, "")
}

/// What follows a string.
fn string(text: &str) -> &str {
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '\'' => return text.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}

pub(super) struct Cursor<'t> {
    pub(super) tokens: &'t [Token],
    pub(super) schema: &'t str,
}

impl Cursor<'_> {
    pub(super) fn is_at_end(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(super) fn next(&mut self) -> Option<&Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    /// The next word, in capitals.
    pub(super) fn word(&mut self) -> Option<String> {
        match self.next()? {
            Token::Word(word) => Some(word.to_ascii_uppercase()),
            Token::Name(_) | Token::Mark(_) => None,
        }
    }

    /// Passes over one of the words or marks.
    pub(super) fn skip(&mut self, any_of: &[&str]) -> bool {
        let is_one = match self.tokens.first() {
            Some(Token::Word(word)) => any_of.iter().any(|one| word.eq_ignore_ascii_case(one)),
            Some(Token::Mark(mark)) => any_of.iter().any(|one| one.chars().eq([*mark])),
            Some(Token::Name(_)) | None => false,
        };
        if is_one {
            self.next();
        }
        is_one
    }

    pub(super) fn identifier(&mut self) -> Option<String> {
        match self.tokens.first()? {
            Token::Word(text) | Token::Name(text) => {
                let text = text.clone();
                self.next();
                Some(text)
            }
            Token::Mark(_) => None,
        }
    }

    pub(super) fn table(&mut self) -> Option<TableName> {
        let first = self.identifier()?;
        if self.skip(&["."]) {
            let name = self.identifier()?;
            return Some(TableName { schema: first, name });
        }
        Some(TableName { schema: self.schema.to_owned(), name: first })
    }

    pub(super) fn list(&mut self) -> Vec<TableName> {
        let mut tables = Vec::new();
        while let Some(table) = self.table() {
            tables.push(table);
            if !self.skip(&[","]) {
                break;
            }
        }
        tables
    }

    /// Every name that could be a table's.
    pub(super) fn all(&mut self) -> Vec<TableName> {
        let mut tables = Vec::new();
        while !self.is_at_end() {
            match self.table() {
                Some(table) if !tables.contains(&table) => tables.push(table),
                Some(_) => {}
                None => {
                    self.next();
                }
            }
        }
        tables
    }

    /// The table of an index: behind ON.
    pub(super) fn indexed(&mut self) -> Option<TableName> {
        while !self.is_at_end() {
            if self.skip(&["ON"]) {
                return self.table();
            }
            self.next();
        }
        None
    }

    /// What stands between commas, those in brackets apart.
    pub(super) fn clauses(&self) -> Vec<&[Token]> {
        let mut depth = 0_usize;
        let split = self.tokens.split(move |token| {
            match token {
                Token::Mark('(') => depth += 1,
                Token::Mark(')') => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && *token == Token::Mark(',')
        });
        split.filter(|clause| !clause.is_empty()).collect()
    }
}
