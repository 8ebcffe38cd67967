//! What is left out of logs: values that look like secrets.

use std::fmt::Write;

use crate::http::authority::Shown;
use crate::target::Target;

/// Query parameters whose values are not logged: names that end so, in lower case, of letters and digits alone.
const SECRET_PARAMETERS: [&str; 18] = [
    "accesskeyid",
    "accesstoken",
    "apikey",
    "auth",
    "bearer",
    "code",
    "credential",
    "jwt",
    "key",
    "pass",
    "passwd",
    "password",
    "pwd",
    "secret",
    "sig",
    "signature",
    "session",
    "token",
];

/// What stands in their place.
const REDACTED: &str = "***";

/// The URL of a request for the flow log: without the values of query parameters that name a secret.
#[must_use]
pub fn url(target: &Target, path: &str) -> String {
    let mut url = String::with_capacity(path.len() + 32);
    if let Some(authority) = &target.authority {
        url.push_str(target.scheme.as_str());
        url.push_str("://");
        Shown(authority, target.scheme).spell(|part| url.push_str(part));
    }
    match path.split_once('?') {
        None => push_plain(&mut url, path),
        Some((path, query)) => {
            push_plain(&mut url, path);
            url.push('?');
            for parameter in query.split_inclusive(['&', ';']) {
                push_parameter(&mut url, parameter);
            }
        }
    }
    url
}

/// One parameter, with the separator behind it if there is one.
fn push_parameter(url: &mut String, parameter: &str) {
    match parameter.split_once('=') {
        Some((name, value)) if is_secret(name) => {
            push_plain(url, name);
            url.push('=');
            url.push_str(REDACTED);
            url.extend(value.chars().next_back().filter(|last| matches!(last, '&' | ';')));
        }
        _ => push_plain(url, parameter),
    }
}

/// Appends text that may be shown on a terminal and ends no line: what is not printable ASCII is
/// percent-encoded, as it should have been (RFC 3986 §2).
fn push_plain(url: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            0x21..=0x7e => url.push(char::from(byte)),
            // Writing to a String does not fail.
            _ => drop(write!(url, "%{byte:02X}")),
        }
    }
}

fn is_secret(name: &str) -> bool {
    let decoded = percent_decode(name);
    // Also x-amz-signature, client_secret, token[], and others that end so.
    let plain: Vec<u8> =
        decoded.into_iter().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase()).collect();
    SECRET_PARAMETERS.iter().any(|secret| plain.ends_with(secret.as_bytes()))
}

fn percent_decode(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = match (first, behind) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &behind[2..] } else { behind };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::authority::{Authority, Scheme};
    use crate::target::Front;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let target = Target {
            scheme: Scheme::Http,
            front: Front::Explicit,
            authority: Authority::parse("a.example:8080", None).ok(),
            original_destination: None,
            vantage: crate::target::Vantage::default(),
            rule: None,
            credentials: None,
            intercepted: false,
        };
        assert_eq!(url(&target, path), format!("http://a.example:8080{expected}"));
    }

    #[test]
    fn secrets_are_left_out() {
        check("/x", "/x");
        check("/x?a=b&c", "/x?a=b&c");
        check("/x?token=s3cret&page=2", "/x?token=***&page=2");
        check("/x?X-Amz-Signature=abc", "/x?X-Amz-Signature=***");
        check("/x?API_KEY=abc&api-key=def", "/x?API_KEY=***&api-key=***");
        check("/x?access_token=a=b", "/x?access_token=***");
        check("/x?%74oken=abc&b=c", "/x?%74oken=***&b=c");
        check("/x?a=1;token=abc;b=2", "/x?a=1;token=***;b=2");
        check("/x?client_secret[]=abc", "/x?client_secret[]=***");
    }

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        check("/a\u{9b}31m\u{202e}?b=\u{1b}", "/a%C2%9B31m%E2%80%AE?b=%1B");
    }
}
