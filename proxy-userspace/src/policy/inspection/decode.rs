//! Content codings, undone within bounds (RFC 9110 §8.4.1).

use std::io::{Cursor, ErrorKind, Read};
use std::time::Instant;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::TOO_LONG;
use crate::http::headers::{Headers, list_items};

/// Codings on one body; nobody needs more than two.
const MAX_CODINGS: usize = 4;

/// A body may decode to so much, however small it is.
const SMALL: usize = 1 << 20;

/// What zstd may look back on: what clients take (RFC 9659 §3).
const ZSTD_WINDOW_BITS: u32 = 23;

/// Bytes that are decoded at one time.
const PART: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// With zlib's frame, or, as some send it, without.
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// Those that were applied to a body, in their order.
    ///
    /// # Errors
    /// Why it can't be decoded.
    pub(super) fn of(headers: &Headers) -> Result<Vec<Self>, &'static str> {
        let mut codings = Vec::new();
        let fields = headers.iter().filter(|field| field.name.eq_ignore_ascii_case(b"content-encoding"));
        for item in fields.flat_map(|field| list_items(field.value)) {
            codings.push(match item.to_ascii_lowercase().as_slice() {
                b"identity" | b"" => continue,
                b"gzip" | b"x-gzip" => Self::Gzip,
                b"deflate" => Self::Deflate,
                b"br" => Self::Brotli,
                b"zstd" => Self::Zstd,
                _ => return Err("its content coding is none of gzip, deflate, br, zstd"),
            });
            if codings.len() > MAX_CODINGS {
                return Err("it has too many content codings, one in another");
            }
        }
        Ok(codings)
    }

    fn undo<'a>(self, coded: Box<dyn Read + 'a>) -> std::io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(coded)),
            Self::Brotli => Box::new(brotli::Decompressor::new(coded, PART)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(coded)?;
                decoder.window_log_max(ZSTD_WINDOW_BITS)?;
                Box::new(decoder)
            }
            Self::Deflate => return deflate(coded),
        })
    }
}

fn deflate<'a>(mut coded: Box<dyn Read + 'a>) -> std::io::Result<Box<dyn Read + 'a>> {
    let mut first = Vec::new();
    (&mut coded).take(2).read_to_end(&mut first)?;
    // RFC 1950 §2.2
    let has_frame = matches!(first[..], [method, flags]
        if method & 0x0f == 8 && (u16::from(method) << 8 | u16::from(flags)) % 31 == 0);
    let whole = Cursor::new(first).chain(coded);
    Ok(if has_frame { Box::new(ZlibDecoder::new(whole)) } else { Box::new(DeflateDecoder::new(whole)) })
}

/// How much may come of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) decoded: u64,
    /// Times the size of the body.
    pub(super) ratio: u64,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) content: Vec<u8>,
    pub(super) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// It goes on, but not for us.
    Capped(&'static str),
    /// What follows can't be decoded, or there is nothing more.
    Damaged,
}

/// Undoes `codings`, of which the first was applied first.
pub(super) fn decode(coded: &[u8], codings: &[Coding], bounds: Bounds, until: Instant) -> Decoded {
    let mut decoded = Decoded { content: Vec::new(), end: End::Damaged };
    let source: Box<dyn Read> = Box::new(coded);
    let reader = codings.iter().rev().try_fold(source, |source, coding| coding.undo(source));
    let Ok(mut reader) = reader else { return decoded };
    let most = bounds.ratio.saturating_mul(coded.len() as u64);
    let mut part = vec![0; PART];
    loop {
        if Instant::now() >= until {
            decoded.end = End::Capped(TOO_LONG);
            return decoded;
        }
        match reader.read(&mut part) {
            Ok(0) => {
                decoded.end = End::Whole;
                return decoded;
            }
            Ok(count) => decoded.content.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return decoded,
        }
        let length = decoded.content.len() as u64;
        if length > bounds.decoded {
            decoded.end = End::Capped("it decodes to more than security.inspection.max_decoded");
            return decoded;
        }
        if length > most && decoded.content.len() > SMALL {
            decoded.end = End::Capped("it decodes to more than security.inspection.max_ratio times its size");
            return decoded;
        }
    }
}
