//! DNS messages (RFC 1035 §4), as far as a forwarder must understand them: the question, and the records of a
//! response with the places of their TTLs. Nothing is written but by [`refusal`] and [`age`].
//!
//! Strict: what doesn't parse to its end is no message. A name's pointers must lead backwards, so reading one ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Length of the header.
pub const HEADER: usize = 12;

/// RFC 1035 §2.3.4.
const MAX_NAME: usize = 255;

pub const TYPE_A: u16 = 1;
pub const TYPE_CNAME: u16 = 5;
pub const TYPE_SOA: u16 = 6;
pub const TYPE_AAAA: u16 = 28;
/// RFC 6891: its TTL field is none.
pub const TYPE_OPT: u16 = 41;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;
/// RFC 7873 §4.
const OPTION_COOKIE: u16 = 10;
/// RFC 8914 §4.16: "Blocked".
const EXTENDED_ERROR: [u8; 6] = [0, 15, 0, 2, 0, 15];

const RCODE_NAME_ERROR: u8 = 3;
const RCODE_REFUSED: u8 = 5;

/// The first words of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub id: u16,
    pub is_response: bool,
    /// 0: a query of the usual kind.
    pub opcode: u8,
    pub truncated: bool,
    pub rcode: u8,
    counts: [u16; 4],
}

impl Header {
    /// None: there is not even a header.
    #[must_use]
    pub fn of(message: &[u8]) -> Option<Self> {
        let header = message.get(..HEADER)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        Some(Self {
            id: word(0),
            is_response: header[2] & 0x80 != 0,
            opcode: header[2] >> 3 & 0xf,
            truncated: header[2] & 2 != 0,
            rcode: header[3] & 0xf,
            counts: [word(4), word(6), word(8), word(10)],
        })
    }

    /// Whether it asks about one name, as all but maintenance does.
    #[must_use]
    pub fn asks_one(&self) -> bool {
        self.opcode == 0 && self.counts[0] == 1
    }
}

/// A message with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub header: Header,
    /// In lower case, without a dot at the end; bytes that no host's name has as `\DDD` (RFC 1035 §5.1).
    pub name: String,
    pub kind: u16,
    pub class: u16,
    /// Where the question is.
    pub question: Range<usize>,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additional: Vec<Record>,
}

/// A resource record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub owner: String,
    pub kind: u16,
    pub class: u16,
    /// In seconds; what has its first bit set is 0 (RFC 2181 §8).
    pub ttl: u32,
    ttl_at: usize,
    pub data: Data,
}

/// What it says, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    Address(IpAddr),
    Alias(String),
    /// SOA, with its last field.
    Authority {
        minimum: u32,
    },
    /// Where it is.
    Other(Range<usize>),
}

impl Message {
    /// None: it is malformed, or has not exactly one question.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = Header::of(bytes)?;
        if !header.asks_one() {
            return None;
        }
        let mut reader = Reader { bytes, at: HEADER };
        let name = reader.name()?;
        let (kind, class) = (reader.u16()?, reader.u16()?);
        let question = HEADER..reader.at;
        let [_, answers, authorities, additional] = header.counts;
        let message = Self {
            answers: reader.records(answers)?,
            authorities: reader.records(authorities)?,
            additional: reader.records(additional)?,
            header,
            name,
            kind,
            class,
            question,
        };
        (reader.at == bytes.len()).then_some(message)
    }

    /// Whether an answer to another client's query of the same bytes, id apart, is one to this.
    #[must_use]
    pub fn is_plain_query(&self, bytes: &[u8]) -> bool {
        !self.header.is_response
            && self.class == CLASS_IN
            && self.answers.is_empty()
            && self.authorities.is_empty()
            && match self.additional.as_slice() {
                [] => true,
                [option] => option.kind == TYPE_OPT && !has_cookie(bytes, option),
                _ => false,
            }
    }

    /// Seconds for which this response may be given to others; 0: not at all.
    #[must_use]
    pub fn lifetime(&self) -> u32 {
        let negative = match self.header.rcode {
            0 => !self.answers.iter().any(|record| record.kind == self.kind || self.kind == TYPE_ANY),
            RCODE_NAME_ERROR => true,
            _ => return 0,
        };
        if self.header.truncated || self.class != CLASS_IN {
            return 0;
        }
        let shortest = self.aging().map(|record| record.ttl).min();
        if !negative {
            return shortest.unwrap_or(0);
        }
        // RFC 2308 §5: without a SOA a negative answer is not to be kept.
        let minimum = self.authorities.iter().find_map(|record| match record.data {
            Data::Authority { minimum } => Some(minimum.min(record.ttl)),
            _ => None,
        });
        minimum.map_or(0, |minimum| minimum.min(shortest.unwrap_or(minimum)))
    }

    /// Where the TTLs are.
    #[must_use]
    pub fn ttls(&self) -> Vec<usize> {
        self.aging().map(|record| record.ttl_at).collect()
    }

    fn aging(&self) -> impl Iterator<Item = &Record> {
        let records = self.answers.iter().chain(&self.authorities).chain(&self.additional);
        records.filter(|record| record.kind != TYPE_OPT)
    }

    /// The names that lead to addresses, from the one asked for along its aliases; and these addresses, each with the
    /// time in seconds for which all that holds.
    #[must_use]
    pub fn resolved(&self) -> (Vec<&str>, Vec<(IpAddr, u32)>) {
        let mut names = vec![self.name.as_str()];
        let mut ttl = u32::MAX;
        while let Some(last) = names.last()
            && names.len() <= self.answers.len()
        {
            let alias = self.answers.iter().find_map(|record| match &record.data {
                Data::Alias(target) if record.owner == *last => Some((target.as_str(), record.ttl)),
                _ => None,
            });
            let Some((target, its_ttl)) = alias.filter(|(target, _)| !names.contains(target)) else { break };
            ttl = ttl.min(its_ttl);
            names.push(target);
        }
        let addresses = self.answers.iter().filter_map(|record| match record.data {
            Data::Address(address) if names.contains(&record.owner.as_str()) => {
                Some((address, record.ttl.min(ttl)))
            }
            _ => None,
        });
        let addresses = addresses.collect();
        (names, addresses)
    }

    /// Every address in it, whoever it is said to belong to.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let records = self.answers.iter().chain(&self.additional);
        records.filter_map(|record| match record.data {
            Data::Address(address) => Some(address),
            _ => None,
        })
    }
}

/// Makes a response `seconds` older.
pub fn age(response: &mut [u8], ttls: &[usize], seconds: u32) {
    for at in ttls {
        if let Some(Ok(field)) = response.get_mut(*at..at + 4).map(<&mut [u8; 4]>::try_from) {
            *field = u32::from_be_bytes(*field).saturating_sub(seconds).to_be_bytes();
        }
    }
}

/// The answer to `query` that says that weir does not pass on what it was answered with.
#[must_use]
pub fn refusal(query: &[u8], parsed: &Message) -> Vec<u8> {
    let mut answer = query[..parsed.question.end].to_vec();
    // QR, and RD as it was; RA, and CD as it was.
    answer[2] = 0x80 | query[2] & 0x01;
    answer[3] = 0x80 | query[3] & 0x10 | RCODE_REFUSED;
    answer[6..HEADER].fill(0);
    if parsed.additional.iter().any(|record| record.kind == TYPE_OPT) {
        answer[11] = 1;
        let [length, _] = EXTENDED_ERROR.len().to_le_bytes()[..2] else { return answer };
        // Root, OPT, 1232 bytes, no flags.
        answer.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, length]);
        answer.extend(EXTENDED_ERROR);
    }
    answer
}

/// Whether `response` answers `query`, by all that both say of the question.
#[must_use]
pub fn answers(query: &[u8], response: &[u8]) -> bool {
    let (Some(asked), Some(answered)) = (Header::of(query), Header::of(response)) else { return false };
    if !answered.is_response || asked.id != answered.id || asked.opcode != answered.opcode {
        return false;
    }
    let question = |bytes| {
        let mut reader = Reader { bytes, at: HEADER };
        Some((reader.name()?, reader.u16()?, reader.u16()?))
    };
    // One that could not read the question repeats none.
    !asked.asks_one()
        || answered.counts[0] == 0 && answered.rcode != 0
        || question(query) == question(response)
}

fn has_cookie(bytes: &[u8], option: &Record) -> bool {
    let Data::Other(data) = &option.data else { return true };
    let mut reader = Reader { bytes: &bytes[..data.end], at: data.start };
    while reader.at < data.end {
        let (Some(code), Some(length)) = (reader.u16(), reader.u16()) else { return true };
        if code == OPTION_COOKIE {
            return true;
        }
        reader.at += usize::from(length);
    }
    false
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// RFC 1035 §4.1.4.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let (mut at, mut length) = (self.at, 1);
        // Where the part that is being read began: pointers lead before it.
        let mut part = at;
        let mut end = None;
        loop {
            let byte = *self.bytes.get(at)?;
            match byte {
                0 => break,
                1..=63 => {
                    let label = self.bytes.get(at + 1..at + 1 + usize::from(byte))?;
                    length += 1 + label.len();
                    if length > MAX_NAME {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    append(&mut name, label);
                    at += 1 + label.len();
                }
                0xc0.. => {
                    let target = usize::from(byte & 0x3f) << 8 | usize::from(*self.bytes.get(at + 1)?);
                    end.get_or_insert(at + 2);
                    if target >= part {
                        return None;
                    }
                    (at, part) = (target, target);
                }
                _ => return None,
            }
        }
        self.at = end.unwrap_or(at + 1);
        Some(name)
    }

    fn records(&mut self, count: u16) -> Option<Vec<Record>> {
        // Not reserved: the count may lie.
        (0..count).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> Option<Record> {
        let owner = self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        let ttl_at = self.at;
        let ttl = self.u32()?;
        let ttl = if ttl > i32::MAX.cast_unsigned() { 0 } else { ttl };
        let length = usize::from(self.u16()?);
        let data = self.at..self.at + length;
        self.bytes.get(data.clone())?;
        let parsed = match (kind, class) {
            (TYPE_A, CLASS_IN) => Data::Address(Ipv4Addr::from(self.take::<4>()?).into()),
            (TYPE_AAAA, CLASS_IN) => Data::Address(Ipv6Addr::from(self.take::<16>()?).into()),
            (TYPE_CNAME, CLASS_IN) => Data::Alias(self.name()?),
            (TYPE_SOA, CLASS_IN) => {
                let _ = (self.name()?, self.name()?, self.take::<16>()?);
                Data::Authority { minimum: self.u32()? }
            }
            _ => {
                self.at = data.end;
                Data::Other(data.clone())
            }
        };
        (self.at == data.end).then_some(Record { owner, kind, class, ttl, ttl_at, data: parsed })
    }
}

fn append(name: &mut String, label: &[u8]) {
    use std::fmt::Write as _;
    for byte in label {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                name.push(byte.to_ascii_lowercase().into());
            }
            // Writing to a String does not fail. A dot within a label is none between labels.
            _ => drop(write!(name, "\\{byte:03}")),
        }
    }
}

#[cfg(test)]
mod tests;
