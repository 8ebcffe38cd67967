//! Replaces fixed texts in content as it passes.

use super::body::{BodyError, Trailers};
use super::stage::Stage;

/// What stands in content, and what is to stand there.
#[derive(Debug)]
pub struct Replaced {
    texts: Vec<(Vec<u8>, Vec<u8>)>,
    /// What may be the beginning of a text: shorter than the longest of them.
    held: Vec<u8>,
    out: Vec<u8>,
}

impl Replaced {
    /// Where two texts begin at one place, the first of them counts. Empty ones don't.
    #[must_use]
    pub fn new(texts: Vec<(String, String)>) -> Self {
        let texts = texts.into_iter().filter(|(from, _)| !from.is_empty());
        let texts = texts.map(|(from, to)| (from.into_bytes(), to.into_bytes())).collect();
        Self { texts, held: Vec::new(), out: Vec::new() }
    }

    /// Passes on what is held; `last`: nothing comes behind it.
    fn pass(&mut self, last: bool) {
        self.out.clear();
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            // Most bytes begin no text.
            if !self.texts.iter().any(|(from, _)| from.first() == rest.first()) {
                self.out.push(rest[0]);
                at += 1;
            } else if let Some((from, to)) = self.texts.iter().find(|(from, _)| rest.starts_with(from)) {
                self.out.extend_from_slice(to);
                at += from.len();
            } else if !last && self.texts.iter().any(|(from, _)| from.starts_with(rest)) {
                break;
            } else {
                self.out.push(rest[0]);
                at += 1;
            }
        }
        self.held.drain(..at);
    }
}

impl Stage for Replaced {
    fn content<'a>(&'a mut self, content: &'a [u8]) -> Result<&'a [u8], BodyError> {
        self.held.extend_from_slice(content);
        self.pass(false);
        Ok(&self.out)
    }

    fn end(&mut self, _: &Trailers) -> Result<&[u8], BodyError> {
        self.pass(true);
        Ok(&self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_replaced_however_they_arrive() {
        let text = "aab abab\"root\":\"/\" ab";
        for size in 1..=text.len() {
            let texts = [("ab", "<>"), ("\"root\":\"/\"", "R"), ("", "never")];
            let texts = texts.map(|(from, to)| (from.to_owned(), to.to_owned()));
            let mut stage = Replaced::new(texts.into());
            let mut out = Vec::new();
            for part in text.as_bytes().chunks(size) {
                out.extend_from_slice(stage.content(part).unwrap());
            }
            out.extend_from_slice(stage.end(&None).unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), "a<> <><>R <>", "{size}");
        }
    }

    #[test]
    fn what_never_becomes_a_text_goes_out_at_the_end() {
        let mut stage = Replaced::new(vec![("abc".to_owned(), "x".to_owned())]);
        assert_eq!(stage.content(b"zab").unwrap(), b"z");
        assert_eq!(stage.end(&None).unwrap(), b"ab");
    }
}
