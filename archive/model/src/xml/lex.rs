//! XML as tokens: elements, their ends, and text. No document type, no entities but the five of XML, no name spaces: of a
//! name only what is behind the colon counts.

use super::XmlError;
use std::borrow::Cow;

/// Attributes of one element; those of the model have four.
const ATTRIBUTES_MAX: usize = 16;

/// One step of the document.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `<name …>`.
    Open(Open<'a>),
    /// `</name>`; also behind an empty element.
    Close(&'a str),
    /// Characters.
    Text(Cow<'a, str>),
    /// No more.
    End,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Open<'a> {
    pub(super) name: &'a str,
    attributes: Vec<(&'a str, Cow<'a, str>)>,
}

impl Open<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }
}

pub(super) struct Lexer<'a> {
    rest: &'a str,
    /// An empty element that was opened and is still to be closed.
    empty: Option<&'a str>,
}

pub(super) fn wrong(why: impl Into<String>) -> XmlError {
    XmlError { tag: None, why: why.into() }
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text.trim_start_matches('\u{FEFF}'), empty: None }
    }

    pub(super) fn next(&mut self) -> Result<Token<'a>, XmlError> {
        if let Some(name) = self.empty.take() {
            return Ok(Token::Close(name));
        }
        loop {
            let Some(markup) = self.rest.strip_prefix('<') else {
                if self.rest.is_empty() {
                    return Ok(Token::End);
                }
                let (text, rest) = self.rest.split_at(self.rest.find('<').unwrap_or(self.rest.len()));
                self.rest = rest;
                return Ok(Token::Text(unescaped(text)?));
            };
            if let Some(after) = markup.strip_prefix("!--") {
                self.rest = behind(after, "-->")?.1;
            } else if let Some(after) = markup.strip_prefix("![CDATA[") {
                let (text, rest) = behind(after, "]]>")?;
                self.rest = rest;
                return Ok(Token::Text(text.into()));
            } else if markup.starts_with('!') {
                return Err(wrong("it has a document type, which is not read: leave it out"));
            } else if let Some(after) = markup.strip_prefix('?') {
                self.rest = behind(after, "?>")?.1;
            } else if let Some(after) = markup.strip_prefix('/') {
                let (name, rest) = behind(after, ">")?;
                self.rest = rest;
                return Ok(Token::Close(local(name.trim_end())));
            } else {
                return self.open(markup).map(Token::Open);
            }
        }
    }

    fn open(&mut self, markup: &'a str) -> Result<Open<'a>, XmlError> {
        let is_end = |char: char| char.is_ascii_whitespace() || matches!(char, '>' | '/');
        let (name, mut rest) = markup.split_at(markup.find(is_end).unwrap_or(markup.len()));
        let mut open = Open { name: local(name), attributes: Vec::new() };
        loop {
            rest = rest.trim_ascii_start();
            if let Some(after) = rest.strip_prefix('>') {
                self.rest = after;
                return Ok(open);
            }
            if let Some(after) = rest.strip_prefix("/>") {
                (self.rest, self.empty) = (after, Some(open.name));
                return Ok(open);
            }
            let broken = || wrong("it is not XML: an attribute of an element is not name=\"value\"");
            let (name, after) = rest.split_once('=').ok_or_else(broken)?;
            let name = name.trim_end();
            let after = after.trim_ascii_start();
            let quote = after.chars().next().filter(|quote| ['"', '\''].contains(quote)).ok_or_else(broken)?;
            let (value, after) = after[1..].split_once(quote).ok_or_else(broken)?;
            if name.is_empty()
                || name.contains(|char: char| is_end(char) || ['<', '"', '\''].contains(&char))
                || value.contains('<')
            {
                return Err(broken());
            }
            if open.attributes.len() == ATTRIBUTES_MAX {
                return Err(wrong("an element has more than 16 attributes: those of the model have four"));
            }
            open.attributes.push((name, unescaped(value)?));
            rest = after;
        }
    }
}

/// The name without the prefix of its name space.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

fn behind<'a>(text: &'a str, end: &str) -> Result<(&'a str, &'a str), XmlError> {
    text.split_once(end).ok_or_else(|| wrong("it is not XML: it ends within markup"))
}

fn unescaped(text: &str) -> Result<Cow<'_, str>, XmlError> {
    if !text.contains('&') {
        return Ok(text.into());
    }
    let mut out = String::with_capacity(text.len());
    let mut pieces = text.split('&');
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let unknown = || wrong("it has an entity that is none of XML's five: write the character itself");
        let (name, rest) = piece.split_once(';').ok_or_else(unknown)?;
        let number = name.strip_prefix('#').map(|digits| match digits.strip_prefix('x') {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => digits.parse(),
        });
        out.push(match (name, number) {
            ("lt", _) => '<',
            ("gt", _) => '>',
            ("amp", _) => '&',
            ("quot", _) => '"',
            ("apos", _) => '\'',
            (_, Some(Ok(code))) => char::from_u32(code).ok_or_else(unknown)?,
            _ => return Err(unknown()),
        });
        out.push_str(rest);
    }
    Ok(out.into())
}
