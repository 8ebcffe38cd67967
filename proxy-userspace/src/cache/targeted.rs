//! Targeted cache control (RFC 9213): CDN-Cache-Control, a Structured Field dictionary (RFC 8941 §3.2), decides
//! instead of Cache-Control and Expires wherever it is valid. Parsing is strict: what is not a dictionary is as good
//! as absent (RFC 9213 §2.1).

use super::directives::{MOST_SECONDS, ResponseDirectives};
use super::headers::values;
use crate::http::headers::Headers;

/// The field that is aimed at gateways and content delivery networks (RFC 9213 §3.1).
pub const CDN: &str = "cdn-cache-control";

/// The directives of the targeted field, if it is there, valid and not empty.
#[must_use]
pub fn directives(headers: &Headers) -> Option<ResponseDirectives> {
    let mut lines = values(headers, CDN).peekable();
    lines.peek()?;
    // RFC 8941 §4.2: several lines are one list.
    let text = lines.collect::<Vec<_>>().join(b", ".as_slice());
    let members = dictionary(&text)?;
    if members.is_empty() {
        return None;
    }
    let mut directives = ResponseDirectives::default();
    for (key, value) in &members {
        match value {
            Value::Boolean(true) => directives.take(key, None),
            // RFC 9213 §2.1: a value of the wrong type is ignored with its directive.
            Value::Integer(seconds) if takes_seconds(key) => {
                let seconds = u64::try_from(*seconds).unwrap_or(0).min(MOST_SECONDS);
                directives.take(key, Some(seconds.to_string().as_bytes()));
            }
            Value::Boolean(false) | Value::Integer(_) | Value::Other => {}
        }
    }
    Some(directives)
}

fn takes_seconds(key: &[u8]) -> bool {
    matches!(key, b"max-age" | b"s-maxage" | b"stale-while-revalidate" | b"stale-if-error")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Boolean(bool),
    Integer(i64),
    /// A decimal, string, token, byte sequence or inner list: no directive has one.
    Other,
}

/// RFC 8941 §4.2.2. A key that occurs again replaces the earlier one.
fn dictionary(text: &[u8]) -> Option<Vec<(&[u8], Value)>> {
    let mut parser = Parser { rest: text };
    let mut members: Vec<(&[u8], Value)> = Vec::new();
    parser.skip_spaces();
    while !parser.rest.is_empty() {
        let key = parser.key()?;
        let value = if parser.eat(b'=') { parser.item_or_inner_list()? } else { Value::Boolean(true) };
        parser.parameters()?;
        members.retain(|(known, _)| *known != key);
        members.push((key, value));
        parser.skip_white_space();
        if parser.rest.is_empty() {
            break;
        }
        if !parser.eat(b',') {
            return None;
        }
        parser.skip_white_space();
        if parser.rest.is_empty() {
            return None;
        }
    }
    Some(members)
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.rest.strip_prefix(&[byte]);
        self.rest = eaten.unwrap_or(self.rest);
        eaten.is_some()
    }

    fn take_while(&mut self, wanted: impl Fn(&u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !wanted(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip_spaces(&mut self) {
        self.take_while(|byte| *byte == b' ');
    }

    fn skip_white_space(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        if !matches!(self.rest.first()?, b'a'..=b'z' | b'*') {
            return None;
        }
        Some(self.take_while(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.' | b'*')
        }))
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip_spaces();
            self.key()?;
            if self.eat(b'=') {
                self.item()?;
            }
        }
        Some(())
    }

    fn item_or_inner_list(&mut self) -> Option<Value> {
        if !self.eat(b'(') {
            return self.item();
        }
        loop {
            self.skip_spaces();
            if self.eat(b')') {
                return Some(Value::Other);
            }
            self.item()?;
            self.parameters()?;
            if !matches!(self.rest.first()?, b' ' | b')') {
                return None;
            }
        }
    }

    /// RFC 8941 §4.2.3.1, without parameters.
    fn item(&mut self) -> Option<Value> {
        match self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b':' => {
                self.rest = &self.rest[1..];
                self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
                self.eat(b':').then_some(Value::Other)
            }
            b'?' => {
                self.rest = &self.rest[1..];
                let value = self.rest.first()?;
                self.rest = &self.rest[1..];
                matches!(value, b'0' | b'1').then_some(Value::Boolean(*value == b'1'))
            }
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(byte));
                Some(Value::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let negative = self.eat(b'-');
        let digits = self.take_while(u8::is_ascii_digit);
        if self.eat(b'.') {
            let fraction = self.take_while(u8::is_ascii_digit).len();
            let valid = (1..=12).contains(&digits.len()) && (1..=3).contains(&fraction);
            return valid.then_some(Value::Other);
        }
        if !(1..=15).contains(&digits.len()) {
            return None;
        }
        let number = digits.iter().fold(0i64, |number, digit| number * 10 + i64::from(digit - b'0'));
        Some(Value::Integer(if negative { -number } else { number }))
    }

    fn string(&mut self) -> Option<Value> {
        self.eat(b'"');
        loop {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' => return Some(Value::Other),
                b'\\' => {
                    let (escaped, rest) = self.rest.split_first()?;
                    self.rest = rest;
                    if !matches!(escaped, b'"' | b'\\') {
                        return None;
                    }
                }
                0x20..=0x7e => {}
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::response;
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(value: &str, expected: Option<&ResponseDirectives>) {
        let head = response(200, &format!("CDN-Cache-Control: {value}\r\n"));
        assert_eq!(directives(&head.headers).as_ref(), expected, "{value}");
    }

    #[test]
    fn dictionaries() {
        let none = ResponseDirectives::default;
        check("max-age=60", Some(&ResponseDirectives { max_age: Some(60), ..none() }));
        check(
            "no-store, max-age=60;a=1",
            Some(&ResponseDirectives { no_store: true, max_age: Some(60), ..none() }),
        );
        check("max-age=60, max-age=5", Some(&ResponseDirectives { max_age: Some(5), ..none() }));
        check(
            "private, x=(a \"b\" 1.5);q=?0, y=:aGk=:",
            Some(&ResponseDirectives { private: true, ..none() }),
        );
        check("no-store=?0", Some(&none()));
        check("max-age=\"60\"", Some(&none()));
        check("max-age=60.5", Some(&none()));
        check("max-age=99999999999", Some(&ResponseDirectives { max_age: Some(MOST_SECONDS), ..none() }));
    }

    #[test]
    fn what_is_no_dictionary_is_ignored() {
        for text in [
            "",
            "max-age =60",
            "max-age= 60",
            "Max-Age=60",
            "max-age=60,",
            "a b",
            "max-age=&&&",
            "x=(a",
            "\"",
            "a=\"\\x\"",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in "[ -~]{0,40}") {
            let _ = dictionary(text.as_bytes());
        }
    }
}
