//! The chunked coding (RFC 9112 §7.1): decoded to the letter, encoded anew. Extensions are dropped, as RFC 9112 §7.1.1
//! has it.

use super::headers::Field;

/// Where in a chunked body the decoder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    /// In the hex digits of a chunk's size; the value so far, and how many digits there were.
    Size(u64, u8),
    /// In a chunk extension; the size it belongs to, and the bytes of this line so far.
    Extension(u64, u16),
    /// After the CR of a size line.
    SizeLineFeed(u64),
    /// In a chunk's data; the bytes left.
    Data(u64),
    DataCarriageReturn,
    DataLineFeed,
    /// At the start of a trailer line; the bytes of the trailer section so far.
    TrailerStart(u16),
    Trailer(u16),
    TrailerLineFeed(u16),
    EndLineFeed,
    Done,
}

/// One step of decoding.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of framing were passed.
    Skip(usize),
    /// So many bytes are content.
    Data(usize),
    /// So many bytes are of the trailer section, which ends with an empty line.
    Trailer(usize),
}

/// A body that is not in the chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed: {0}")]
pub struct BadChunk(pub &'static str);

/// Sixteen hex digits would be 2^64; nobody sends a chunk of even 2^60.
const MAX_SIZE_DIGITS: u8 = 15;

/// The most of an extension, and of a trailer section.
const MAX_BESIDE: u16 = 8 << 10;

impl Decoder {
    /// Before the first chunk.
    #[must_use]
    pub fn new() -> Self {
        Self::Size(0, 0)
    }

    /// Whether the last chunk and its trailer section have passed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// Looks at the start of `bytes`, which must not be empty.
    ///
    /// # Errors
    /// [`BadChunk`]; the body ends here, incomplete.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, BadChunk> {
        if let Self::Data(left) = self {
            let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            *left -= taken as u64;
            if *left == 0 {
                *self = Self::DataCarriageReturn;
            }
            return Ok(Step::Data(taken));
        }
        let in_trailers = self.is_in_trailers();
        let mut passed = 0;
        for byte in bytes {
            if matches!(self, Self::Data(_) | Self::Done) || self.is_in_trailers() != in_trailers {
                break;
            }
            *self = self.after(*byte)?;
            passed += 1;
        }
        Ok(if in_trailers { Step::Trailer(passed) } else { Step::Skip(passed) })
    }

    fn is_in_trailers(self) -> bool {
        matches!(
            self,
            Self::TrailerStart(_) | Self::Trailer(_) | Self::TrailerLineFeed(_) | Self::EndLineFeed
        )
    }

    fn after(self, byte: u8) -> Result<Self, BadChunk> {
        Ok(match (self, byte) {
            (Self::Size(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(BadChunk("a chunk size has too many digits"));
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Self::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (Self::Size(_, 0), _) => return Err(BadChunk("a chunk size is missing")),
            (Self::Size(size, _), b'\r') => Self::SizeLineFeed(size),
            (Self::Size(size, _), b';' | b' ' | b'\t') => Self::Extension(size, 0),
            (Self::Size(..), _) => return Err(BadChunk("a chunk size is not hexadecimal")),
            (Self::Extension(size, _), b'\r') => Self::SizeLineFeed(size),
            (Self::Extension(..), b'\n' | 0) => {
                return Err(BadChunk("a chunk extension has a control character"));
            }
            (Self::Extension(size, length), _) => Self::Extension(size, longer(length)?),
            (Self::SizeLineFeed(0), b'\n') => Self::TrailerStart(0),
            (Self::SizeLineFeed(size), b'\n') => Self::Data(size),
            (Self::DataCarriageReturn, b'\r') => Self::DataLineFeed,
            (Self::DataLineFeed, b'\n') => Self::new(),
            (Self::DataCarriageReturn | Self::DataLineFeed, _) => {
                return Err(BadChunk("a chunk is longer than its size"));
            }
            (Self::TrailerStart(_), b'\r') => Self::EndLineFeed,
            (Self::Trailer(length), b'\r') => Self::TrailerLineFeed(length),
            (Self::TrailerStart(_) | Self::Trailer(_), b'\n' | 0) => {
                return Err(BadChunk("a trailer has a control character"));
            }
            (Self::TrailerStart(length) | Self::Trailer(length), _) => Self::Trailer(longer(length)?),
            (Self::TrailerLineFeed(length), b'\n') => Self::TrailerStart(length),
            (Self::EndLineFeed, b'\n') => Self::Done,
            (Self::SizeLineFeed(_) | Self::TrailerLineFeed(_) | Self::EndLineFeed, _) => {
                return Err(BadChunk("a CR is not followed by LF"));
            }
            (Self::Data(_) | Self::Done, _) => return Err(BadChunk("bytes after the end")),
        })
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

fn longer(length: u16) -> Result<u16, BadChunk> {
    if length < MAX_BESIDE { Ok(length + 1) } else { Err(BadChunk("extensions or trailers are too long")) }
}

/// Appends `data` as one chunk. Empty data would end the body, so it appends nothing.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    if !data.is_empty() {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let first = (usize::BITS - data.len().leading_zeros()).div_ceil(4);
        out.extend((0..first).rev().map(|digit| DIGITS[data.len() >> (4 * digit) & 0xf]));
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// The last chunk, without trailers.
pub const END: &[u8] = b"0\r\n\r\n";

/// Appends the last chunk, and `trailers` behind it.
pub fn encode_end<'a>(trailers: impl Iterator<Item = Field<'a>>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for field in trailers {
        for part in [field.name, b": ", field.value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes `bytes` given in pieces of `piece` bytes; the content, and what was left over.
    fn decode(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize), BadChunk> {
        decode_all(bytes, piece).map(|(content, _, left)| (content, left))
    }

    /// The same, with the trailer section.
    fn decode_all(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<u8>, usize), BadChunk> {
        let (mut decoder, mut content, mut trailers, mut at) = (Decoder::new(), Vec::new(), Vec::new(), 0);
        while at < bytes.len() && !decoder.is_done() {
            match decoder.step(&bytes[at..(at + piece).min(bytes.len())])? {
                Step::Skip(count) => at += count,
                Step::Data(count) => {
                    content.extend_from_slice(&bytes[at..at + count]);
                    at += count;
                }
                Step::Trailer(count) => {
                    trailers.extend_from_slice(&bytes[at..at + count]);
                    at += count;
                }
            }
        }
        if decoder.is_done() {
            Ok((content, trailers, bytes.len() - at))
        } else {
            Err(BadChunk("incomplete"))
        }
    }

    #[track_caller]
    fn check(bytes: &str, expected: Result<(&str, usize), &'static str>) {
        for piece in [1, 2, 3, 1000] {
            let expected = expected.map(|(text, rest)| (text.as_bytes().to_vec(), rest)).map_err(BadChunk);
            assert_eq!(decode(bytes.as_bytes(), piece), expected, "{bytes:?} in pieces of {piece}");
        }
    }

    #[test]
    fn good_bodies() {
        check("0\r\n\r\n", Ok(("", 0)));
        check("5\r\nhello\r\n0\r\n\r\nGET", Ok(("hello", 3)));
        check("3;a=b\r\nabc\r\nA \r\n0123456789\r\n0\r\nX: y\r\n\r\n", Ok(("abc0123456789", 0)));
    }

    #[test]
    fn the_trailer_section_is_told_from_the_rest() {
        for (bytes, expected) in [
            ("0\r\n\r\nGET", "\r\n"),
            ("1\r\na\r\n0;x=y\r\nA: b\r\nC: d\r\n\r\nE: f", "A: b\r\nC: d\r\n\r\n"),
        ] {
            for piece in [1, 2, 3, 1000] {
                let (_, trailers, _) = decode_all(bytes.as_bytes(), piece).unwrap();
                assert_eq!(trailers, expected.as_bytes(), "{bytes:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn bad_bodies() {
        check("\r\n", Err("a chunk size is missing"));
        check("x\r\n", Err("a chunk size is missing"));
        check("0x5\r\nhello\r\n0\r\n\r\n", Err("a chunk size is not hexadecimal"));
        check("-1\r\n", Err("a chunk size is missing"));
        check("5\nhello\r\n", Err("a chunk size is not hexadecimal"));
        check("5\r\nhello!\r\n", Err("a chunk is longer than its size"));
        check("5\r\nhello\n0\r\n\r\n", Err("a chunk is longer than its size"));
        check("1000000000000000\r\n", Err("a chunk size has too many digits"));
        check("5;\na\r\nhello\r\n", Err("a chunk extension has a control character"));
        check("0\r\nX: y\n\r\n", Err("a trailer has a control character"));
        check("0\r\n\rX", Err("a CR is not followed by LF"));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(parts: Vec<Vec<u8>>, piece in 1usize..50) {
            let mut encoded = Vec::new();
            parts.iter().for_each(|part| encode(part, &mut encoded));
            encoded.extend_from_slice(END);
            prop_assert_eq!(decode(&encoded, piece), Ok((parts.concat(), 0)));
        }

        #[test]
        fn no_input_panics(bytes: Vec<u8>, piece in 1usize..50) {
            let _ = decode(&bytes, piece);
        }
    }
}
