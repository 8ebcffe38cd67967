//! What is left out of logs: values that look like secrets.

use std::fmt::Write;

use crate::target::Target;

/// Query parameters whose values are not logged, compared in lower case, without `-` and `_`.
const SECRET_PARAMETERS: [&str; 16] = [
    "accesstoken",
    "apikey",
    "auth",
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
        // Writing to a String does not fail.
        let _ = match authority.port {
            80 => write!(url, "http://{}", authority.host),
            _ => write!(url, "http://{authority}"),
        };
    }
    match path.split_once('?') {
        None => url.push_str(path),
        Some((path, query)) => {
            url.push_str(path);
            for (index, parameter) in query.split('&').enumerate() {
                url.push(if index == 0 { '?' } else { '&' });
                push_parameter(&mut url, parameter);
            }
        }
    }
    url
}

fn push_parameter(url: &mut String, parameter: &str) {
    match parameter.split_once('=') {
        Some((name, _)) if is_secret(name) => {
            url.push_str(name);
            url.push('=');
            url.push_str(REDACTED);
        }
        _ => url.push_str(parameter),
    }
}

fn is_secret(name: &str) -> bool {
    let plain: String =
        name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect();
    // Also x-amz-signature, client_secret, and others that end so.
    SECRET_PARAMETERS.iter().any(|secret| plain.ends_with(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::authority::Authority;
    use crate::target::Front;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let target = Target {
            front: Front::Explicit,
            authority: Authority::parse("a.example:8080", None).ok(),
            original_destination: None,
            source: None,
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
    }
}
