//! The body of a stored response, as a source: in memory, or read from disk as it goes out.

use std::io;

use bytes::Bytes;

use crate::cache::body::Body;
use crate::cache::range::Span;
use crate::cache::store::disk::Filed;
use crate::cache::store::record::CHUNK;
use crate::http::trailers;
use crate::net::place::Place;
use crate::relay::Side;
use crate::relay::body::{BodyError, Piece, Source, Trailers};

/// A body, and what follows it.
pub(super) struct Followed {
    pub body: Content,
    pub trailers: Trailers,
}

impl Source for Followed {
    fn side(&self) -> Side {
        self.body.side()
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        Ok(match self.body.next()? {
            Piece::End(_) => Piece::End(self.trailers.take()),
            piece => piece,
        })
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        self.body.fill().await
    }
}

/// Trailers as they are stored; they were judged before they were.
pub(super) fn parsed(section: Option<&[u8]>) -> Trailers {
    section.and_then(|section| trailers::parse(section).ok().flatten())
}

/// What is still to be delivered of a stored body.
pub(super) enum Content {
    Held(Pieces),
    Filed(Parts),
}

/// Pieces in memory, and where the next one is, if that is also in a file.
pub(super) struct Pieces {
    left: std::vec::IntoIter<Bytes>,
    held: Bytes,
    place: Option<Place>,
}

/// A part of a file.
pub(super) struct Parts {
    file: Filed,
    left: Span,
    held: Bytes,
    /// What is held was given: with the next call it counts as used.
    given: bool,
}

impl Content {
    pub(super) fn of(body: &Body) -> Self {
        match body.file() {
            Some((file, left)) => {
                Self::Filed(Parts { file: file.clone(), left, held: Bytes::new(), given: false })
            }
            None => {
                let pieces: Vec<_> = body.held().map(|pieces| pieces.to_vec()).unwrap_or_default();
                Self::Held(Pieces { left: pieces.into_iter(), held: Bytes::new(), place: body.place() })
            }
        }
    }
}

impl Content {
    /// Whether all of it was given, and used.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Held(pieces) => pieces.left.as_slice().is_empty(),
            Self::Filed(parts) => {
                let used = if parts.given { parts.held.len() as u64 } else { 0 };
                parts.left.start + used >= parts.left.end
            }
        }
    }
}

impl Source for Content {
    fn side(&self) -> Side {
        Side::Upstream
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        match self {
            Self::Held(pieces) => Ok(pieces.next()),
            Self::Filed(parts) => Ok(parts.next()),
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        match self {
            Self::Held(_) => Ok(()),
            Self::Filed(parts) => parts.fill().await.map_err(|error| BodyError::Io(Side::Upstream, error)),
        }
    }
}

impl Pieces {
    fn next(&mut self) -> Piece<'_> {
        let Some(piece) = self.left.next() else { return Piece::End(None) };
        let place = self.place;
        self.place = place.map(|place| place.after(piece.len() as u64));
        self.held = piece;
        match place {
            Some(place) => Piece::Placed(&self.held, place),
            None => Piece::Content(&self.held),
        }
    }
}

impl Parts {
    fn next(&mut self) -> Piece<'_> {
        if std::mem::take(&mut self.given) {
            self.left.start += self.held.len() as u64;
            self.held = Bytes::new();
        }
        if self.left.start >= self.left.end {
            return Piece::End(None);
        }
        if self.held.is_empty() {
            return Piece::Nothing;
        }
        self.given = true;
        Piece::Content(&self.held)
    }

    async fn fill(&mut self) -> io::Result<()> {
        let number = self.left.start / CHUNK;
        let chunk = self.file.chunk(number).await?;
        let begin = number * CHUNK;
        // Both are within the chunk, whose length is a usize.
        let from = (self.left.start - begin) as usize;
        let to = chunk.len().min((self.left.end - begin) as usize);
        if from >= to {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.held = chunk.slice(from..to);
        Ok(())
    }
}
