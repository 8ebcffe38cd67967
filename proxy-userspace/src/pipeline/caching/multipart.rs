//! Several ranges of a stored response, as one message (RFC 9110 §14.6). How many there may be, and which become one, is
//! decided in [`crate::cache::range`].

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

use super::content::Content;
use crate::cache::body::Body;
use crate::cache::headers::values;
use crate::cache::range::Span;
use crate::http::headers::Headers;
use crate::relay::Side;
use crate::relay::body::{BodyError, Piece, Source};

/// What is still to be delivered of it.
pub(super) struct Multipart {
    current: Content,
    next: std::vec::IntoIter<Content>,
    length: u64,
}

impl Multipart {
    /// The message for `spans`, each with its place in `body`, of a representation of `length` bytes. Makes `headers`, those
    /// of the whole, its own.
    pub(super) fn of(headers: &mut Headers, body: &Body, spans: &[(Span, Span)], length: u64) -> Self {
        let boundary = boundary();
        let mut described = Vec::new();
        for value in values(headers, "content-type") {
            described = [b"Content-Type: ", value, b"\r\n"].concat();
        }
        headers.retain(|field| !field.name.eq_ignore_ascii_case(b"content-type"));
        headers.push(b"Content-Type", format!("multipart/byteranges; boundary={boundary}").as_bytes());
        let mut contents = Vec::with_capacity(2 * spans.len() + 1);
        let mut total = 0;
        let mut add = |body: Body| {
            total += body.len();
            contents.push(Content::of(&body));
        };
        for (number, (span, place)) in spans.iter().enumerate() {
            let before = if number == 0 { "" } else { "\r\n" };
            let mut text = format!("{before}--{boundary}\r\n").into_bytes();
            text.extend_from_slice(&described);
            let range = format!("Content-Range: bytes {}-{}/{length}\r\n\r\n", span.start, span.end - 1);
            text.extend_from_slice(range.as_bytes());
            add(Body::of(vec![Bytes::from(text)]));
            add(body.slice(*place));
        }
        add(Body::of(vec![Bytes::from(format!("\r\n--{boundary}--\r\n"))]));
        let current = Content::of(&Body::default());
        Self { current, next: contents.into_iter(), length: total }
    }

    /// Bytes of the whole message.
    pub(super) fn len(&self) -> u64 {
        self.length
    }
}

/// Nobody can foresee it: no content has it in it but by an accident of one in 2^128.
fn boundary() -> String {
    let random = || RandomState::new().hash_one(0);
    format!("{:016x}{:016x}", random(), random())
}

impl Source for Multipart {
    fn side(&self) -> Side {
        Side::Upstream
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        while self.current.is_over() {
            match self.next.next() {
                Some(next) => self.current = next,
                None => return Ok(Piece::End(None)),
            }
        }
        self.current.next()
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        self.current.fill().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{RequestHead, Version};

    #[test]
    fn the_message() {
        let mut headers = RequestHead::new(Version::Http11, "GET", "/").headers;
        headers.push(b"Content-Type", b"text/plain");
        headers.push(b"ETag", b"\"a\"");
        let body = Body::of(vec![Bytes::from_static(b"0123456789")]);
        let spans: Vec<_> =
            [(0, 2), (7, 10)].map(|(start, end)| (Span { start, end }, Span { start, end })).into();
        let mut parts = Multipart::of(&mut headers, &body, &spans, 10);
        let content_type =
            String::from_utf8(values(&headers, "content-type").next().unwrap().to_vec()).unwrap();
        let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        assert_eq!(boundary.len(), 32);
        let mut text = Vec::new();
        while let Piece::Content(content) | Piece::Placed(content, _) = parts.next().unwrap() {
            text.extend_from_slice(content);
        }
        assert_eq!(text.len() as u64, parts.len());
        let part = |range: &str, content: &str| {
            format!(
                "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/10\r\n\r\n{content}\r\n"
            )
        };
        let expected = format!("{}{}--{boundary}--\r\n", part("0-1", "01"), part("7-9", "789"));
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn boundaries_differ() {
        assert_ne!(boundary(), boundary());
    }
}
