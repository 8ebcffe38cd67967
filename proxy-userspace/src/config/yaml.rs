//! From YAML text to a located tree.
//!
//! A configuration needs maps, lists and scalars only: anchors, aliases, tags, several documents and keys
//! that are not plain words are refused, so that a file means what it looks like. Scalars stay text; the
//! kind of a key decides what `on` or `010` is, not YAML's guess.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::errors::{Origin, Report};
use super::tree::{Entry, Map, Node, Value, join};

/// No section lies deeper than 4; bounds the recursion below.
const MAX_DEPTH: usize = 16;

/// The tree of one document, or nothing after an error that leaves its structure in doubt.
///
/// `origin` tells what a place of the text is called. Errors go to the report.
pub(super) fn parse(
    text: &str,
    origin: &dyn Fn(usize, usize) -> Origin,
    report: &mut Report,
) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder { parser: Parser::new_from_str(text), origin, report };
    match builder.document() {
        Ok(node) => Some(node),
        Err(Broken { at, key, message }) => {
            let origin = builder.place(at);
            builder.report.error(&origin, &key, message);
            None
        }
    }
}

struct Broken {
    at: Marker,
    key: String,
    message: String,
}

impl From<ScanError> for Broken {
    fn from(error: ScanError) -> Self {
        let message = format!("not valid YAML: {}", error.info());
        Self { at: *error.marker(), key: String::new(), message }
    }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    origin: &'a dyn Fn(usize, usize) -> Origin,
    report: &'a mut Report,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Node, Broken> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(refuse(span, "", "a second document; one file holds one"));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => return Ok(root.unwrap_or_else(Node::empty)),
                event => root = Some(self.node(event, span, "", 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, path: &str, depth: usize) -> Result<Node, Broken> {
        if depth > MAX_DEPTH {
            return Err(refuse(span, path, "nested too deeply"));
        }
        let value = match event {
            Event::Scalar(text, style, 0, None) => scalar(&text, style),
            Event::SequenceStart(0, None) => self.list(path, depth)?,
            Event::MappingStart(0, None) => self.map(path, depth)?,
            Event::Alias(_) => {
                return Err(refuse(span, path, "aliases (`*name`) are not supported; write the value out"));
            }
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) => {
                return Err(refuse(span, path, "anchors (`&name`) and tags (`!name`) are not supported"));
            }
            _ => return Err(refuse(span, path, "not valid YAML: a value is missing here")),
        };
        Ok(Node { origin: self.place(span.start), value })
    }

    fn list(&mut self, path: &str, depth: usize) -> Result<Value, Broken> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(list)),
                (event, span) => list.push(self.node(event, span, path, depth + 1)?),
            }
        }
    }

    fn map(&mut self, path: &str, depth: usize) -> Result<Value, Broken> {
        let mut map = Map::new();
        loop {
            let (event, key_span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Map(map)),
                Event::Scalar(key, _, 0, None) => key.into_owned(),
                _ => return Err(refuse(key_span, path, "a key must be a plain word")),
            };
            let path = join(path, &key);
            let (event, span) = self.next()?;
            let node = self.node(event, span, &path, depth + 1)?;
            let origin = self.place(key_span.start);
            match map.get(&key) {
                Some(first) => {
                    let message = format!("given twice; first at {}", first.origin);
                    self.report.error(&origin, &path, message);
                }
                None => {
                    map.insert(key, Entry { origin, node });
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Broken> {
        match self.parser.next_event() {
            Some(event) => Ok(event?),
            // After StreamEnd, which `document` returns at.
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn place(&self, at: Marker) -> Origin {
        (self.origin)(at.line(), at.col() + 1)
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null") => Value::Empty,
        _ => Value::Text(text.to_owned()),
    }
}

fn refuse(span: Span, key: &str, message: &str) -> Broken {
    Broken { at: span.start, key: key.to_owned(), message: message.to_owned() }
}
