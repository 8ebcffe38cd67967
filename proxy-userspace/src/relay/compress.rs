//! A stage that compresses. What has arrived goes out whenever nothing more has: a stream of events is not held back
//! until it fills a block.
//!
//! Whether a response may be compressed, and how that is said in its head, is not decided here.

use std::cell::Cell;
use std::io::{self, Write};

use brotli::CompressorWriter;
use flate2::Compression;
use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

use super::body::{BodyError, Trailers};
use super::stage::Stage;
use super::tunnel::Side;
use crate::config::Effort;
use crate::http::coding::Coding;
use crate::telemetry::metrics;

/// Bytes that brotli and zstd look back on, as a power of two: 256 KiB. Little is gained with more on what the web is
/// made of, and it decides how much memory a response takes. (gzip has 32 KiB.)
const WINDOW_BITS: u32 = 18;

/// Bytes that brotli gathers before it works on them.
const BROTLI_INPUT: usize = 16 << 10;

/// Compresses a body.
pub struct Compress {
    encoder: Encoder,
    /// Something was taken that a flush would bring out.
    holds: bool,
    _place: Place,
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
    /// What it gave out last.
    Ended(Vec<u8>),
}

impl Compress {
    /// A stage for one body. None: `most` are at work on this thread already, and each takes about a megabyte.
    #[must_use]
    pub fn with(coding: Coding, effort: Effort, most: usize) -> Option<Self> {
        let place = Place::take(most)?;
        let encoder = match (coding, effort) {
            (Coding::Gzip, Effort::Fast) => gzip(1),
            (Coding::Gzip, Effort::Balanced) => gzip(5),
            (Coding::Gzip, Effort::Best) => gzip(9),
            (Coding::Brotli, Effort::Fast) => brotli(1),
            (Coding::Brotli, Effort::Balanced) => brotli(4),
            (Coding::Brotli, Effort::Best) => brotli(9),
            (Coding::Zstd, Effort::Fast) => zstd(1),
            (Coding::Zstd, Effort::Balanced) => zstd(3),
            (Coding::Zstd, Effort::Best) => zstd(12),
        };
        Some(Self { encoder: encoder.ok()?, holds: false, _place: place })
    }

    /// Runs `work` on the encoder, and returns what that brought out.
    fn run(&mut self, work: impl FnOnce(&mut Encoder) -> io::Result<()>) -> Result<&[u8], BodyError> {
        self.encoder.output().clear();
        // Writing to a Vec does not fail, nor does an encoder with valid settings.
        work(&mut self.encoder).map_err(|error| BodyError::Io(Side::Upstream, error))?;
        let output = self.encoder.output();
        metrics::with(|metrics| metrics.compression_output_bytes.add(output.len() as u64));
        Ok(output)
    }
}

fn gzip(level: u32) -> io::Result<Encoder> {
    Ok(Encoder::Gzip(GzEncoder::new(Vec::new(), Compression::new(level))))
}

fn brotli(quality: u32) -> io::Result<Encoder> {
    Ok(Encoder::Brotli(Box::new(CompressorWriter::new(Vec::new(), BROTLI_INPUT, quality, WINDOW_BITS))))
}

fn zstd(level: i32) -> io::Result<Encoder> {
    let mut encoder = ZstdEncoder::new(Vec::new(), level)?;
    encoder.window_log(WINDOW_BITS)?;
    Ok(Encoder::Zstd(encoder))
}

impl Encoder {
    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Ended(output) => output,
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Brotli(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
            Self::Ended(output) => output,
        }
    }

    fn end(&mut self) -> io::Result<()> {
        *self = Self::Ended(match std::mem::replace(self, Self::Ended(Vec::new())) {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Ended(output) => output,
        });
        Ok(())
    }
}

impl Stage for Compress {
    fn content<'a>(&'a mut self, content: &'a [u8]) -> Result<&'a [u8], BodyError> {
        metrics::with(|metrics| metrics.compression_input_bytes.add(content.len() as u64));
        self.holds = true;
        self.run(|encoder| encoder.writer().write_all(content))
    }

    fn pause(&mut self) -> Result<&[u8], BodyError> {
        // A flush costs bytes of its own.
        if !std::mem::take(&mut self.holds) {
            return Ok(&[]);
        }
        self.run(|encoder| encoder.writer().flush())
    }

    fn end(&mut self, _: &Trailers) -> Result<&[u8], BodyError> {
        self.run(Encoder::end)
    }
}

/// One of the compressors that a thread may have at work.
#[derive(Debug)]
struct Place;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

impl Place {
    fn take(most: usize) -> Option<Self> {
        let taken = TAKEN.get();
        (taken < most).then(|| {
            TAKEN.set(taken + 1);
            Self
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Not there any more: the thread ends.
        let _ = TAKEN.try_with(|taken| taken.set(taken.get() - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const ALL: [Coding; 3] = [Coding::Gzip, Coding::Brotli, Coding::Zstd];

    /// What can be read of a stream that may go on.
    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut source: Box<dyn Read> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        };
        let (mut content, mut part) = (Vec::new(), [0; 512]);
        // An error is the end of what is there.
        while let Ok(count @ 1..) = source.read(&mut part) {
            content.extend_from_slice(&part[..count]);
        }
        content
    }

    #[test]
    fn what_is_compressed_can_be_read_as_it_arrives() {
        for coding in ALL {
            for effort in [Effort::Fast, Effort::Balanced, Effort::Best] {
                let mut stage = Compress::with(coding, effort, 1).unwrap();
                let (mut sent, mut out) = (Vec::new(), Vec::new());
                for part in 0..50 {
                    let event = format!("data: {part} {}\n\n", "x".repeat(part * 50));
                    out.extend_from_slice(stage.content(event.as_bytes()).unwrap());
                    sent.extend_from_slice(event.as_bytes());
                    out.extend_from_slice(stage.pause().unwrap());
                    assert_eq!(decoded(coding, &out), sent, "{coding:?} {effort:?}, part {part}");
                    assert!(stage.pause().unwrap().is_empty(), "a second flush brings nothing");
                }
                out.extend_from_slice(stage.end(&None).unwrap());
                assert_eq!(decoded(coding, &out), sent);
                assert!(out.len() < sent.len() / 4, "{coding:?} {effort:?}: {} of {}", out.len(), sent.len());
            }
        }
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let first = Compress::with(Coding::Gzip, Effort::Fast, 1).unwrap();
        assert!(Compress::with(Coding::Zstd, Effort::Fast, 1).is_none());
        drop(first);
        assert!(Compress::with(Coding::Zstd, Effort::Fast, 1).is_some());
    }
}
