//! A small lexer for PostgreSQL's SQL: enough to find where a statement ends, what a comment is
//! and what is quoted, and not a step further. It follows the server's own rules (`scan.l`, with
//! `standard_conforming_strings` on), because a file that foldd cuts differently than PostgreSQL
//! does is a hole. Grammar is left to the server.

mod scan;
#[cfg(test)]
mod tests;

use std::fmt;

use scan::Scanner;

/// What a [`Token`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Blanks, tabs and line ends.
    Whitespace,
    /// `-- …`, without its line end.
    LineComment,
    /// `/* … */`, nested ones inside.
    BlockComment,
    /// `'…'` and its forms `E'…'`, `U&'…'`, `B'…'`, `X'…'`, `N'…'`, with the continuations that
    /// the standard allows on following lines.
    Text,
    /// `$$…$$` and `$tag$…$tag$`.
    DollarText,
    /// `"…"` and `U&"…"`.
    QuotedName,
    /// A number.
    Number,
    /// A keyword or an unquoted identifier.
    Word,
    /// `$1`.
    Parameter,
    /// A run of operator characters.
    Operator,
    /// `;`
    Semicolon,
    /// Brackets, comma, dot, colons, and any character that SQL has no use for.
    Symbol,
}

/// A piece of SQL text. The tokens of a text, put together, are the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// The text as it stands in the source.
    pub text: &'a str,
    /// Where it begins, in bytes.
    pub offset: usize,
}

impl Token<'_> {
    /// The offset of the first byte after it.
    pub(crate) fn end(&self) -> usize {
        self.offset + self.text.len()
    }

    /// Whether the server would see it: neither white space nor a comment.
    pub(crate) fn is_significant(&self) -> bool {
        !matches!(self.kind, TokenKind::Whitespace | TokenKind::LineComment | TokenKind::BlockComment)
    }

    /// Whether it is this keyword, given in lower case.
    pub(crate) fn is_word(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    /// Whether it is this symbol.
    pub(crate) fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == TokenKind::Symbol && self.text == symbol
    }
}

/// One statement of a text, without its semicolon and without the comments around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// From its first token to its last; comments inside are kept.
    pub text: &'a str,
    /// Where it begins, in bytes.
    pub offset: usize,
}

/// A line and a column, both from 1. Columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// Where the lines of a text begin, so that many places can be found cheaply. Lines end at `\n`,
/// so that CRLF counts once.
#[derive(Debug, Clone)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Finds the lines.
    pub(crate) fn of(text: &'a str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(starts).collect() }
    }

    /// The line of a byte offset, from 1.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }

    /// The place of a byte offset; an offset past the end is the end.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.line(offset);
        let start = self.starts.iter().rfind(|start| **start <= offset).copied().unwrap_or(0);
        // Continuation bytes of UTF-8 (0b10xx_xxxx) are not characters of their own.
        let before = self.text.as_bytes()[start..offset].iter().filter(|b| **b & 0xC0 != 0x80);
        Place { line, column: u32::try_from(before.count() + 1).unwrap_or(u32::MAX) }
    }
}

/// What can be wrong with a text before its grammar is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LexFault {
    /// `/*` without `*/`.
    OpenComment,
    /// A quote without its partner.
    OpenText,
    /// `"` without its partner.
    OpenName,
    /// `$tag$` without its partner.
    OpenDollarText,
    /// `(` without `)`.
    OpenParenthesis,
    /// `)` without `(`.
    StrayParenthesis,
}

impl fmt::Display for LexFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenComment => {
                "the comment that begins here never ends; close it with */ (comments nest: each /* needs its own */)"
            }
            Self::OpenText => {
                "the text that begins here never ends; close it with ' (a quote inside is written '')"
            }
            Self::OpenName => "the quoted name that begins here never ends; close it with \"",
            Self::OpenDollarText => {
                "the dollar-quoted text that begins here never ends; close it with the same $tag$"
            }
            Self::OpenParenthesis => {
                "the parenthesis that opens here is not closed before the statement ends; add the )"
            }
            Self::StrayParenthesis => "this ) closes nothing; remove it, or add the ( before it",
        })
    }
}

/// A [`LexFault`] and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {fault}")]
pub(crate) struct LexError {
    /// What is wrong.
    pub fault: LexFault,
    /// Where the unclosed thing begins, in bytes.
    pub offset: usize,
}

/// Cuts a text into tokens.
///
/// # Errors
/// When a comment, a text or a quoted name is not closed.
pub(crate) fn tokens(sql: &str) -> Result<Vec<Token<'_>>, LexError> {
    Scanner::new(sql).collect()
}

/// The tokens that the server would see.
pub(crate) fn significant<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    tokens.iter().filter(|token| token.is_significant()).copied().collect()
}

/// The statements of a text, in order. Semicolons in parentheses and in `begin atomic … end`
/// bodies do not part statements; empty statements are dropped.
///
/// # Errors
/// When something is not closed: a comment, a text, a quoted name, a parenthesis.
pub(crate) fn split_statements(sql: &str) -> Result<Vec<Statement<'_>>, LexError> {
    let tokens = tokens(sql)?;
    let pieces = split_tokens(&tokens)?;
    Ok(pieces.into_iter().map(|piece| statement_of(sql, piece)).collect())
}

/// As [`split_statements`], for a text that has been cut into tokens. Each piece begins and ends
/// with a significant token.
///
/// # Errors
/// When a parenthesis is not closed, or closes nothing.
pub(crate) fn split_tokens<'t, 'a>(tokens: &'t [Token<'a>]) -> Result<Vec<&'t [Token<'a>]>, LexError> {
    let mut pieces = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut body = AtomicBody::default();
    let mut start = 0;
    for (at, token) in tokens.iter().enumerate() {
        if token.kind == TokenKind::Semicolon {
            if open.is_empty() && !body.is_open() {
                pieces.extend(trim(&tokens[start..at]));
                body = AtomicBody::default();
                start = at + 1;
            }
        } else if token.is_symbol("(") {
            open.push(token.offset);
        } else if token.is_symbol(")") {
            if open.pop().is_none() {
                return Err(LexError { fault: LexFault::StrayParenthesis, offset: token.offset });
            }
        } else if token.kind == TokenKind::Word {
            body.see(token);
        }
    }
    if let Some(offset) = open.pop() {
        return Err(LexError { fault: LexFault::OpenParenthesis, offset });
    }
    pieces.extend(trim(&tokens[start..]));
    Ok(pieces)
}

/// The statement that a piece of [`split_tokens`] stands for.
pub(crate) fn statement_of<'a>(sql: &'a str, piece: &[Token<'a>]) -> Statement<'a> {
    let offset = piece.first().map_or(0, |token| token.offset);
    let end = piece.last().map_or(offset, Token::end);
    Statement { text: &sql[offset..end], offset }
}

/// The text without comments, with one space where tokens need one and none elsewhere, keywords
/// and unquoted names in lower case, everything quoted untouched. Two texts that differ in
/// nothing else have the same normal form. A text that is not closed somewhere is taken as it is
/// from there on.
pub(crate) fn normalise(sql: &str) -> String {
    let mut normal = String::with_capacity(sql.len());
    let mut previous: Option<Token<'_>> = None;
    for token in Scanner::new(sql) {
        let token = match token {
            Ok(token) if token.is_significant() => token,
            Ok(_) => continue,
            Err(error) => {
                normal.push(' ');
                normal.push_str(&sql[error.offset..]);
                break;
            }
        };
        if previous.is_some_and(|previous| is_spaced(&previous, &token)) {
            normal.push(' ');
        }
        normal.push_str(&canonical(&token));
        previous = Some(token);
    }
    normal
}

/// A token as the normal form spells it. Names fold as the server folds them: ASCII only.
pub(super) fn canonical(token: &Token<'_>) -> String {
    if token.kind == TokenKind::Word { token.text.to_ascii_lowercase() } else { token.text.to_owned() }
}

/// Whether the normal form puts a space between two tokens. Where it does not, the two must still
/// be the same two tokens when they are read again.
pub(super) fn is_spaced(left: &Token<'_>, right: &Token<'_>) -> bool {
    let is_name = |token: &Token<'_>| matches!(token.kind, TokenKind::Word | TokenKind::QuotedName);
    let is_closing = |token: &Token<'_>| token.is_symbol(")") || token.is_symbol("]");
    if right.kind == TokenKind::Semicolon || right.is_symbol(",") || is_closing(right) {
        return false;
    }
    if left.is_symbol("(") || left.is_symbol("[") {
        return false;
    }
    if right.is_symbol("(") || right.is_symbol("[") || right.is_symbol(".") {
        return !is_name(left);
    }
    if left.is_symbol(".") {
        return !is_name(right) && right.text != "*";
    }
    if right.is_symbol("::") {
        let is_value = matches!(left.kind, TokenKind::Text | TokenKind::Number);
        return !is_name(left) && !is_closing(left) && !is_value;
    }
    !(left.is_symbol("::") && is_name(right))
}

/// A piece without the white space and comments around it; none when nothing is left.
fn trim<'t, 'a>(piece: &'t [Token<'a>]) -> Option<&'t [Token<'a>]> {
    let first = piece.iter().position(Token::is_significant)?;
    let last = piece.iter().rposition(Token::is_significant)?;
    Some(&piece[first..=last])
}

/// Follows `create … begin atomic … end`, whose semicolons belong to the body.
#[derive(Debug, Default)]
struct AtomicBody {
    words: usize,
    is_create: bool,
    begun: bool,
    depth: usize,
}

impl AtomicBody {
    fn is_open(&self) -> bool {
        self.depth > 0
    }

    fn see(&mut self, word: &Token<'_>) {
        if self.words == 0 {
            self.is_create = word.is_word("create");
        }
        self.words += 1;
        if self.depth > 0 {
            if word.is_word("case") {
                self.depth += 1;
            } else if word.is_word("end") {
                self.depth -= 1;
            }
        } else if self.is_create && self.begun && word.is_word("atomic") {
            self.depth = 1;
        }
        self.begun = word.is_word("begin");
    }
}
