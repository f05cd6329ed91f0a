//! The scanner itself: from a byte offset to the token that begins there.

use super::{LexError, LexFault, Token, TokenKind};

/// Iterates over the tokens of a text; stops after the first error.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }
}

impl<'a> Iterator for Scanner<'a> {
    type Item = Result<Token<'a>, LexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.at;
        let rest = &self.text[offset..];
        if rest.is_empty() {
            return None;
        }
        match scan(rest) {
            Ok((kind, length)) => {
                self.at += length;
                Some(Ok(Token { kind, text: &rest[..length], offset }))
            }
            Err(fault) => {
                self.at = self.text.len();
                Some(Err(LexError { fault, offset }))
            }
        }
    }
}

type Scanned = Result<(TokenKind, usize), LexFault>;

/// The kind and length of the token at the start of a text that is not empty.
fn scan(rest: &str) -> Scanned {
    let bytes = rest.as_bytes();
    let second = bytes.get(1).copied();
    match bytes[0] {
        first if is_space(first) => Ok((TokenKind::Whitespace, run(bytes, 0, is_space))),
        b'-' if second == Some(b'-') => Ok((TokenKind::LineComment, run(bytes, 0, |b| !is_line_end(b)))),
        b'/' if second == Some(b'*') => block_comment(bytes),
        b'\'' => quoted(bytes, 0, Escapes::Doubled),
        b'"' => quoted_name(bytes, 0),
        b'$' => dollar(rest),
        b';' => Ok((TokenKind::Semicolon, 1)),
        first if first.is_ascii_digit() => Ok((TokenKind::Number, number(bytes))),
        b'.' if second.is_some_and(|b| b.is_ascii_digit()) => Ok((TokenKind::Number, number(bytes))),
        first if is_name_start(first) => word(bytes),
        first if is_operator(first) => Ok((TokenKind::Operator, operator(bytes))),
        _ => Ok((TokenKind::Symbol, symbol(rest))),
    }
}

/// Comments nest, as in the server and unlike in C.
fn block_comment(bytes: &[u8]) -> Scanned {
    let mut depth = 0_usize;
    let mut at = 0;
    while at + 1 < bytes.len() {
        match (bytes[at], bytes[at + 1]) {
            (b'/', b'*') => {
                depth += 1;
                at += 2;
            }
            (b'*', b'/') => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Ok((TokenKind::BlockComment, at));
                }
            }
            _ => at += 1,
        }
    }
    Err(LexFault::OpenComment)
}

/// A word, or a text whose prefix looks like one.
fn word(bytes: &[u8]) -> Scanned {
    let second = bytes.get(1).copied();
    let third = bytes.get(2).copied();
    match (bytes[0].to_ascii_lowercase(), second, third) {
        (b'e', Some(b'\''), _) => quoted(bytes, 1, Escapes::Backslash),
        (b'b' | b'x' | b'n', Some(b'\''), _) => quoted(bytes, 1, Escapes::Doubled),
        (b'u', Some(b'&'), Some(b'\'')) => quoted(bytes, 2, Escapes::Doubled),
        (b'u', Some(b'&'), Some(b'"')) => quoted_name(bytes, 2),
        _ => Ok((TokenKind::Word, run(bytes, 0, is_name_part))),
    }
}

/// How a quote is written inside a text.
#[derive(Clone, Copy, PartialEq)]
enum Escapes {
    /// Only by doubling it.
    Doubled,
    /// By doubling it, or with a backslash before it.
    Backslash,
}

fn quoted(bytes: &[u8], open: usize, escapes: Escapes) -> Scanned {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes == Escapes::Backslash => at += 2,
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => match continuation(bytes, at + 1) {
                Some(next) => at = next + 1,
                None => return Ok((TokenKind::Text, at + 1)),
            },
            _ => at += 1,
        }
    }
    Err(LexFault::OpenText)
}

/// Where the text goes on after a closing quote: the next quote, when nothing but white space and
/// line comments with at least one line end among them lies between.
fn continuation(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut saw_line_end = false;
    loop {
        match *bytes.get(at)? {
            b'\'' => return saw_line_end.then_some(at),
            b'-' if bytes.get(at + 1) == Some(&b'-') => at = run(bytes, at, |b| !is_line_end(b)),
            b if is_space(b) => {
                saw_line_end |= is_line_end(b);
                at += 1;
            }
            _ => return None,
        }
    }
}

fn quoted_name(bytes: &[u8], open: usize) -> Scanned {
    let mut at = open + 1;
    while at < bytes.len() {
        if bytes[at] != b'"' {
            at += 1;
        } else if bytes.get(at + 1) == Some(&b'"') {
            at += 2;
        } else {
            return Ok((TokenKind::QuotedName, at + 1));
        }
    }
    Err(LexFault::OpenName)
}

/// `$1`, `$tag$…$tag$`, or a dollar that means nothing.
fn dollar(rest: &str) -> Scanned {
    let bytes = rest.as_bytes();
    let digits = run(bytes, 1, |b| b.is_ascii_digit());
    if digits > 1 {
        return Ok((TokenKind::Parameter, digits));
    }
    let tag = match bytes.get(1) {
        Some(first) if is_name_start(*first) => run(bytes, 1, |b| is_name_part(b) && b != b'$'),
        _ => 1,
    };
    if bytes.get(tag) != Some(&b'$') {
        return Ok((TokenKind::Symbol, 1));
    }
    let delimiter = &rest[..=tag];
    let body = &rest[delimiter.len()..];
    match body.find(delimiter) {
        Some(length) => Ok((TokenKind::DollarText, length + 2 * delimiter.len())),
        None => Err(LexFault::OpenDollarText),
    }
}

/// `12`, `1_000`, `0xFF`, `1.5`, `.5`, `1e-9`; `1..2` is a number and two dots.
fn number(bytes: &[u8]) -> usize {
    let is_digit = |b: u8| b.is_ascii_digit() || b == b'_';
    if bytes[0] == b'0' && matches!(bytes.get(1), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B')) {
        let end = run(bytes, 2, |b| b.is_ascii_hexdigit() || b == b'_');
        if end > 2 {
            return end;
        }
    }
    let mut end = run(bytes, 0, is_digit);
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1) != Some(&b'.') {
        end = run(bytes, end + 1, is_digit);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = end + 1 + sign;
        if bytes.get(exponent).is_some_and(u8::is_ascii_digit) {
            end = run(bytes, exponent, is_digit);
        }
    }
    end
}

/// The longest run of operator characters that does not run into a comment. As in the server, an
/// operator may end in `+` or `-` only when it has a character that SQL's own operators lack, so
/// that `=-1` is two operators.
fn operator(bytes: &[u8]) -> usize {
    let mut end = 0;
    while bytes.get(end).copied().is_some_and(is_operator) {
        if end > 0 && matches!(bytes[end..], [b'-', b'-', ..] | [b'/', b'*', ..]) {
            break;
        }
        end += 1;
    }
    let is_unusual =
        |b: &u8| matches!(b, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%');
    while end > 1 && matches!(bytes[end - 1], b'+' | b'-') && !bytes[..end - 1].iter().any(is_unusual) {
        end -= 1;
    }
    end
}

fn symbol(rest: &str) -> usize {
    if ["::", ":=", ".."].iter().any(|pair| rest.starts_with(pair)) {
        return 2;
    }
    rest.chars().next().map_or(1, char::len_utf8)
}

/// The end of the run of such bytes that begins at `from`.
fn run(bytes: &[u8], from: usize, is_in: impl Fn(u8) -> bool) -> usize {
    let length = bytes[from..].iter().take_while(|b| is_in(**b)).count();
    from + length
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C)
}

/// A lone carriage return ends a line comment too: what follows it would be executed.
fn is_line_end(b: u8) -> bool {
    matches!(b, b'\n' | b'\r')
}

/// Any byte beyond ASCII may be part of a name, so tokens never end inside a character.
fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

fn is_name_part(b: u8) -> bool {
    is_name_start(b) || b.is_ascii_digit() || b == b'$'
}

fn is_operator(b: u8) -> bool {
    matches!(
        b,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}
