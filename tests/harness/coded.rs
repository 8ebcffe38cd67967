//! Content in every coding that HTTP has in use, and bombs of each kind.

use std::io::Write;

pub const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

/// An encoder whose output so far can be seen.
trait Encoder: Write {
    fn output(&self) -> &[u8];
    fn end(self: Box<Self>) -> Vec<u8>;
}

impl Encoder for flate2::write::GzEncoder<Vec<u8>> {
    fn output(&self) -> &[u8] {
        self.get_ref()
    }

    fn end(self: Box<Self>) -> Vec<u8> {
        self.finish().expect("a Vec takes all")
    }
}

impl Encoder for flate2::write::ZlibEncoder<Vec<u8>> {
    fn output(&self) -> &[u8] {
        self.get_ref()
    }

    fn end(self: Box<Self>) -> Vec<u8> {
        self.finish().expect("a Vec takes all")
    }
}

impl Encoder for brotli::CompressorWriter<Vec<u8>> {
    fn output(&self) -> &[u8] {
        self.get_ref()
    }

    fn end(self: Box<Self>) -> Vec<u8> {
        self.into_inner()
    }
}

impl Encoder for zstd::stream::write::Encoder<'static, Vec<u8>> {
    fn output(&self) -> &[u8] {
        self.get_ref()
    }

    fn end(self: Box<Self>) -> Vec<u8> {
        self.finish().expect("a Vec takes all")
    }
}

fn encoder(coding: &str) -> Box<dyn Encoder> {
    match coding {
        "gzip" => Box::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6))),
        "deflate" => Box::new(flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6))),
        "br" => Box::new(brotli::CompressorWriter::new(Vec::new(), 1 << 16, 3, 18)),
        "zstd" => Box::new(zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder")),
        other => panic!("no coding {other}"),
    }
}

/// `content` in this coding.
pub fn coded(coding: &str, content: &[u8]) -> Vec<u8> {
    let mut encoder = encoder(coding);
    encoder.write_all(content).expect("a Vec takes all");
    encoder.end()
}

/// Zeros that one flush brings out.
const BLOCK: usize = 16 << 20;

/// What decodes to 10 GiB of zeros, and more: what stands between two flushes goes on from where the one before has ended,
/// and can be repeated.
pub fn ten_gibibytes(coding: &str) -> Vec<u8> {
    let mut encoder = encoder(coding);
    let zeros = vec![0; BLOCK];
    let mut ends = Vec::new();
    for _ in 0..3 {
        encoder.write_all(&zeros).expect("a Vec takes all");
        encoder.flush().expect("a Vec takes all");
        ends.push(encoder.output().len());
    }
    let mut bomb = encoder.output()[..ends[1]].to_vec();
    let block = encoder.output()[ends[1]..ends[2]].to_vec();
    for _ in 2..(10_usize << 30).div_ceil(BLOCK) {
        bomb.extend_from_slice(&block);
    }
    bomb
}
