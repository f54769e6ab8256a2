//! From text to tokens.
//!
//! The idea: a word keeps its dots, so an opcode with all its modifiers, a special register with its
//! component and a directive are one token each.

use super::Error;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// A name, opcode or directive; a directive begins with a dot.
    Word(&'a str),
    /// An integer.
    Int(u64),
    /// `0f...`
    F32(u32),
    /// `0d...` or a decimal fraction.
    F64(u64),
    /// A string, without its quotes.
    Text(&'a str),
    /// Any other character.
    Mark(char),
    /// The end of the text.
    End,
}

/// The tokens of a text, each with its line, the last an end.
pub fn tokens(text: &str) -> Result<Vec<(Token<'_>, u32)>, Error> {
    let bytes = text.as_bytes();
    let mut all = Vec::with_capacity(text.len() / 4);
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'\n' => {
                line += 1;
                at += 1;
            }
            c if c.is_ascii_whitespace() || c == 0 => at += 1,
            b'/' if bytes[at..].starts_with(b"//") => {
                at += bytes[at..].iter().position(|&c| c == b'\n').unwrap_or(bytes.len() - at);
            }
            b'/' if bytes[at..].starts_with(b"/*") => {
                let end = text[at..].find("*/").ok_or_else(|| Error::new(line, "a comment has no end"))?;
                line += text[at..at + end].matches('\n').count() as u32;
                at += end + 2;
            }
            b'"' => {
                let end = bytes[at + 1..].iter().position(|&c| c == b'"');
                let end = end.ok_or_else(|| Error::new(line, "a string has no end"))?;
                all.push((Token::Text(&text[at + 1..at + 1 + end]), line));
                at += end + 2;
            }
            b'0'..=b'9' => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'.') {
                    // An exponent's sign, as in 1.5e-3.
                    let exponent = matches!(bytes[at], b'e' | b'E')
                        && text[start..at].contains('.')
                        && matches!(bytes.get(at + 1), Some(b'-' | b'+'));
                    at += 1 + usize::from(exponent);
                }
                let word = &text[start..at];
                let token = number(word).ok_or_else(|| Error::new(line, format!("bad number {word}")))?;
                all.push((token, line));
            }
            c if is_word(c) || c == b'.' => {
                while at < bytes.len() && (is_word(bytes[at]) || matches!(bytes[at], b'.' | b'0'..=b'9')) {
                    at += 1;
                    // As in .L2::128B: a part of the word, unlike a label's colon.
                    if bytes[at..].starts_with(b"::") {
                        at += 2;
                    }
                }
                all.push((Token::Word(&text[start..at]), line));
            }
            c if c.is_ascii() => {
                all.push((Token::Mark(c as char), line));
                at += 1;
            }
            _ => return Err(Error::new(line, "a character outside ASCII")),
        }
    }
    all.push((Token::End, line));
    Ok(all)
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%')
}

/// The value of a number's text.
fn number(word: &str) -> Option<Token<'_>> {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    if let Some(digits) = word.strip_prefix("0f").or(word.strip_prefix("0F")) {
        return hex(digits).map(|bits| Token::F32(bits as u32));
    }
    if let Some(digits) = word.strip_prefix("0d").or(word.strip_prefix("0D")) {
        return hex(digits).map(Token::F64);
    }
    if word.contains('.') {
        return word.parse().ok().map(|value: f64| Token::F64(value.to_bits()));
    }
    let word = word.trim_end_matches('U');
    if let Some(digits) = word.strip_prefix("0x").or(word.strip_prefix("0X")) {
        return hex(digits).map(Token::Int);
    }
    if let Some(digits) = word.strip_prefix("0b") {
        return u64::from_str_radix(digits, 2).ok().map(Token::Int);
    }
    if word.len() > 1 && word.starts_with('0') {
        return u64::from_str_radix(&word[1..], 8).ok().map(Token::Int);
    }
    word.parse().ok().map(Token::Int)
}
