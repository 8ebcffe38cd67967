//! A stream of bytes that never repeats itself: what is lost, doubled or out of order shows. Both ends make it
//! from the same seed, so comparing needs no copy.

use std::io::{self, Read, Write};

/// What one read or write takes at most.
const PIECE: usize = 64 << 10;

/// The next bytes of a stream.
#[derive(Debug, Clone)]
pub struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    pub fn new(seed: u64) -> Self {
        Self { state: seed, word: [0; 8], used: 8 }
    }

    /// The first `length` bytes.
    pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Self::new(seed).fill(&mut bytes);
        bytes
    }

    /// The next number of the sequence behind the bytes, below `bound`.
    pub fn number(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn fill(&mut self, out: &mut [u8]) {
        let mut out = out;
        while !out.is_empty() {
            if self.used == 8 {
                // Whole words, for speed.
                let mut words = out.chunks_exact_mut(8);
                for word in &mut words {
                    word.copy_from_slice(&self.next().to_le_bytes());
                }
                out = words.into_remainder();
                if out.is_empty() {
                    return;
                }
                (self.word, self.used) = (self.next().to_le_bytes(), 0);
            }
            let count = out.len().min(8 - self.used);
            out[..count].copy_from_slice(&self.word[self.used..self.used + count]);
            self.used += count;
            out = &mut out[count..];
        }
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Writes the first `length` bytes of a stream.
pub fn send(mut to: impl Write, seed: u64, length: u64) -> io::Result<()> {
    let (mut pattern, mut left, mut piece) = (Pattern::new(seed), length, vec![0; PIECE]);
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        pattern.fill(&mut piece[..count]);
        to.write_all(&piece[..count])?;
        left -= count as u64;
    }
    Ok(())
}

/// Reads to the end of the stream; how many bytes there were. The first wrong byte is an error.
pub fn receive(from: impl Read, seed: u64) -> io::Result<u64> {
    receive_at_most(from, seed, u64::MAX)
}

/// As [`receive`], but stops after `length` bytes.
pub fn receive_at_most(mut from: impl Read, seed: u64, length: u64) -> io::Result<u64> {
    let (mut pattern, mut total) = (Pattern::new(seed), 0);
    let (mut piece, mut expected) = (vec![0; PIECE], vec![0; PIECE]);
    while total < length {
        let room = usize::try_from(length - total).unwrap_or(PIECE).min(PIECE);
        let count = from.read(&mut piece[..room])?;
        if count == 0 {
            break;
        }
        pattern.fill(&mut expected[..count]);
        if piece[..count] != expected[..count] {
            return Err(io::Error::other(format!(
                "wrong bytes between {total} and {}",
                total + count as u64
            )));
        }
        total += count as u64;
    }
    Ok(total)
}
