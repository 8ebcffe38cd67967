//! The statuses that weir itself answers with, and how such an answer looks.

use ::http::StatusCode;

use super::date;
use super::head::{ResponseHead, Version};
use super::headers::{Headers, list_items};

/// The reason phrase of a status (RFC 9110 §15 and the registry of statuses); empty where there is none.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        // These have got other names since the list that is asked below.
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        status => {
            StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
        }
    }
}

/// In which form an explanation is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    Html,
    /// A problem document (RFC 9457).
    Json,
}

impl Form {
    /// The form that a request's Accept asks for: that of those we have which comes first in it. Programs that take
    /// anything get text.
    #[must_use]
    pub fn of(headers: &Headers) -> Self {
        let accepts = headers.iter().filter(|field| field.name.eq_ignore_ascii_case(b"accept"));
        let form =
            |item: &[u8]| match item.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii() {
                b"text/html" | b"application/xhtml+xml" => Some(Self::Html),
                b"application/json" | b"application/problem+json" => Some(Self::Json),
                b"text/plain" | b"text/*" => Some(Self::Text),
                _ => None,
            };
        accepts.flat_map(|field| list_items(field.value)).find_map(form).unwrap_or(Self::Text)
    }
}

/// A response with an explanation: its head, Content-Length included, and that text. `error` is the type of RFC 9209
/// §2.3 for the Proxy-Status field.
#[must_use]
pub fn answer(status: u16, error: &str, explanation: &str, form: Form) -> (ResponseHead, String) {
    let reason = reason(status);
    let (media_type, body) = match form {
        Form::Text => ("text/plain; charset=utf-8", format!("weir: {status} {reason}: {explanation}\n")),
        Form::Html => ("text/html; charset=utf-8", html(status, reason, explanation)),
        Form::Json => ("application/problem+json", json(status, reason, explanation)),
    };
    let mut head = ResponseHead::new(Version::Http11, status, reason);
    let headers = &mut head.headers;
    date::with_now(|now| headers.push(b"Date", now));
    headers.push(b"Content-Type", media_type.as_bytes());
    headers.push(b"Content-Length", body.len().to_string().as_bytes());
    headers.push(b"Cache-Control", b"no-store");
    headers.push(b"X-Content-Type-Options", b"nosniff");
    if status == 503 {
        headers.push(b"Retry-After", RETRY_AFTER);
    }
    headers.push(b"Proxy-Status", format!("weir; error={error}").as_bytes());
    (head, body)
}

/// In seconds. What weir has too much of passes quickly, or not at all.
const RETRY_AFTER: &[u8] = b"1";

fn html(status: u16, reason: &str, explanation: &str) -> String {
    let mut escaped = String::with_capacity(explanation.len());
    for c in explanation.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{status} {reason}</title>\n\
         <h1>{status} {reason}</h1>\n<p>{escaped}</p>\n<p>weir</p>\n"
    )
}

fn json(status: u16, reason: &str, explanation: &str) -> String {
    let problem = serde_json::json!({
        "type": "about:blank", "title": reason, "status": status, "detail": explanation,
    });
    format!("{problem}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: Form) {
        let mut headers = Headers::default();
        headers.push(b"Accept", accept.as_bytes());
        assert_eq!(Form::of(&headers), expected, "{accept}");
    }

    #[test]
    fn every_status_of_ours_has_its_reason() {
        for (status, expected) in [
            (206, "Partial Content"),
            (413, "Content Too Large"),
            (416, "Range Not Satisfiable"),
            (421, "Misdirected Request"),
            (422, "Unprocessable Content"),
            (431, "Request Header Fields Too Large"),
            (508, "Loop Detected"),
            (599, ""),
        ] {
            assert_eq!(reason(status), expected, "{status}");
        }
    }

    #[test]
    fn what_is_asked_for() {
        check("*/*", Form::Text);
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Form::Html);
        check("application/json", Form::Json);
        check("application/vnd.x, application/json;q=0.9, text/html", Form::Json);
        check("image/png", Form::Text);
    }

    #[test]
    fn an_explanation_ends_no_markup() {
        let (_, body) = answer(400, "x", "<script>\"&", Form::Html);
        assert!(body.contains("<p>&lt;script&gt;&quot;&amp;</p>"), "{body}");
        let (_, body) = answer(400, "x", "\"\n\\", Form::Json);
        assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{body}");
    }
}
