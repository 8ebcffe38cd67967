//! The fields of one head: spans into the bytes that were received, plus what was added.
//!
//! A head has some ten to thirty fields and is read a few times; a list with the known names recognised once
//! is both smaller and faster than a hash map. A head is moved from hand to hand, so what it holds is elsewhere: in memory
//! that the head before it has left behind.

use std::cell::RefCell;

/// The fields of a request or response, in their order.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    bytes: Vec<u8>,
    fields: Vec<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    known: Name,
    name: (u32, u32),
    value: (u32, u32),
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    pub known: Name,
    pub name: &'a [u8],
    pub value: &'a [u8],
}

impl Headers {
    /// Takes over `bytes`, in which fields will be marked by [`Headers::mark`].
    pub(super) fn over(bytes: Vec<u8>) -> Self {
        Self { bytes, fields: Vec::new() }
    }

    /// The same with a copy of `bytes`, and room for so many fields.
    pub(super) fn copied(bytes: &[u8], fields: usize) -> Self {
        let mut headers = SPARE
            .with_borrow_mut(Vec::pop)
            .map_or_else(Self::default, |(bytes, fields)| Self { bytes, fields });
        headers.bytes.extend_from_slice(bytes);
        headers.fields.reserve(fields);
        headers
    }

    /// Declares that a field's name and value stand at these places of the bytes.
    pub(super) fn mark(&mut self, name: (usize, usize), value: (usize, usize)) {
        let known = Name::of(&self.bytes[name.0..name.1]);
        self.fields.push(Span { known, name: small(name), value: small(value) });
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.mark((start, middle), (middle, self.bytes.len()));
    }

    /// Keeps the fields for which `keeps` is true.
    pub fn retain(&mut self, keeps: impl Fn(Field<'_>) -> bool) {
        let bytes = &self.bytes;
        let slice = |(start, end): (u32, u32)| &bytes[start as usize..end as usize];
        self.fields.retain(|span| {
            keeps(Field { known: span.known, name: slice(span.name), value: slice(span.value) })
        });
    }

    /// The bytes that spans of the head point into.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.iter().map(|span| Field {
            known: span.known,
            name: self.slice(span.name),
            value: self.slice(span.value),
        })
    }

    /// The values of one field, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        debug_assert_ne!(name, Name::Other);
        self.fields.iter().filter(move |span| span.known == name).map(|span| self.slice(span.value))
    }

    /// The first value of a field.
    #[must_use]
    pub fn first(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Whether a comma-separated field lists `token`, in any case (RFC 9110 §5.6.1).
    #[must_use]
    pub fn lists(&self, name: Name, token: &str) -> bool {
        self.all(name).flat_map(list_items).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
    }

    fn slice(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.bytes[start as usize..end as usize]
    }
}

/// Heads whose memory a worker keeps, and the most that it keeps of one.
const MAX_SPARE: usize = 64;
const MAX_SPARE_BYTES: usize = 4 << 10;
const MAX_SPARE_FIELDS: usize = 128;

thread_local! {
    static SPARE: RefCell<Vec<(Vec<u8>, Vec<Span>)>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Headers {
    fn drop(&mut self) {
        let fits = (1..=MAX_SPARE_BYTES).contains(&self.bytes.capacity())
            && self.fields.capacity() <= MAX_SPARE_FIELDS;
        if !fits {
            return;
        }
        let (mut bytes, mut fields) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.fields));
        bytes.clear();
        fields.clear();
        // While the thread ends, its spare ones may be gone.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push((bytes, fields));
            }
        });
    }
}

/// The items of a comma-separated list, without white space around them and without empty ones.
pub fn list_items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// Whether this could be the name of a field (RFC 9110 §5.6.2).
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_tchar)
}

/// Spans are 32 bits wide: no head comes near 4 GiB, its limit is `server.limits.head`.
fn small((start, end): (usize, usize)) -> (u32, u32) {
    (u32::try_from(start).unwrap_or(u32::MAX), u32::try_from(end).unwrap_or(u32::MAX))
}

/// Field names that weir itself has to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    Authorization,
    Connection,
    ContentLength,
    Expect,
    Host,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    WwwAuthenticate,
    Other,
}

impl Name {
    /// Whether a field ends at this hop: meant for it alone (RFC 9110 §7.6.1), or saying how the body is framed there
    /// (RFC 9112 §6), which is written anew.
    #[must_use]
    pub fn ends_at_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::ContentLength
                | Self::KeepAlive
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::ProxyConnection
                | Self::Te
                | Self::Trailer
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }

    /// Recognises a name, in any case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // The length settles most names without looking at them.
        let found = match name.len() {
            2 => is("te").then_some(Self::Te),
            3 => is("via").then_some(Self::Via),
            4 => is("host").then_some(Self::Host),
            6 => is("expect").then_some(Self::Expect),
            7 if is("upgrade") => Some(Self::Upgrade),
            7 => is("trailer").then_some(Self::Trailer),
            10 if is("connection") => Some(Self::Connection),
            10 => is("keep-alive").then_some(Self::KeepAlive),
            13 => is("authorization").then_some(Self::Authorization),
            14 => is("content-length").then_some(Self::ContentLength),
            16 if is("www-authenticate") => Some(Self::WwwAuthenticate),
            16 => is("proxy-connection").then_some(Self::ProxyConnection),
            17 => is("transfer-encoding").then_some(Self::TransferEncoding),
            18 => is("proxy-authenticate").then_some(Self::ProxyAuthenticate),
            19 => is("proxy-authorization").then_some(Self::ProxyAuthorization),
            _ => None,
        };
        found.unwrap_or(Self::Other)
    }
}
