//! What may stand between a body's source and its sink: a compressor, an inspection, a cache's store. A response
//! without any goes from one to the other directly; nothing of this file is then run.

use std::future::Future;
use std::io;

use super::body::{BodyError, Sink, Trailers};
use super::tunnel::Side;
use crate::net::place::Place;

/// Looks at content on its way, or changes it. One that is dropped before its `end` has seen a body that is not
/// whole: whatever it made of it is not to be used.
pub trait Stage {
    /// Takes a part; what it returns goes on, which may be the part itself.
    ///
    /// # Errors
    /// The body must not get through: its receiver sees it cut off.
    fn content<'a>(&'a mut self, content: &'a [u8]) -> Result<&'a [u8], BodyError>;

    /// Nothing more has arrived for now: returns what was held back and can go on.
    ///
    /// # Errors
    /// As [`Stage::content`].
    fn pause(&mut self) -> Result<&[u8], BodyError> {
        Ok(&[])
    }

    /// The body is whole: returns what is left to go on.
    ///
    /// # Errors
    /// As [`Stage::content`].
    fn end(&mut self, trailers: &Trailers) -> Result<&[u8], BodyError>;
}

/// Stages in the order in which content passes them.
pub type Stages = Vec<Box<dyn Stage>>;

/// A sink behind stages.
pub struct Staged<'a, K> {
    stages: &'a mut [Box<dyn Stage>],
    sink: K,
    /// Bytes that have passed since others had their turn.
    worked: usize,
}

/// So many bytes pass before the worker turns to its other connections: what stages do may take long, and a sink that
/// takes all at once never waits.
const TURN: usize = 64 << 10;

impl<'a, K: Sink> Staged<'a, K> {
    /// What is put into it passes `stages` before `sink`.
    pub fn new(stages: &'a mut [Box<dyn Stage>], sink: K) -> Self {
        Self { stages, sink, worked: 0 }
    }
}

/// Passes `content` through `stages` into `sink`.
fn pass(stages: &mut [Box<dyn Stage>], content: &[u8], sink: &mut impl Sink) -> Result<(), BodyError> {
    match stages {
        _ if content.is_empty() => Ok(()),
        [] => sink.put(content),
        [first, rest @ ..] => pass(rest, first.content(content)?, sink),
    }
}

impl<K: Sink> Sink for Staged<'_, K> {
    fn side(&self) -> Side {
        self.sink.side()
    }

    fn put(&mut self, content: &[u8]) -> Result<(), BodyError> {
        self.worked += content.len();
        pass(self.stages, content, &mut self.sink)
    }

    async fn put_some(&mut self, content: &[u8], place: Option<Place>) -> Result<usize, BodyError> {
        match self.stages.is_empty() {
            true => self.sink.put_some(content, place).await,
            false => self.put(content).map(|()| content.len()),
        }
    }

    fn staged(&self) -> usize {
        self.sink.staged().max(self.worked)
    }

    fn pause(&mut self) -> Result<(), BodyError> {
        let mut stages = &mut *self.stages;
        while let [first, rest @ ..] = stages {
            pass(rest, first.pause()?, &mut self.sink)?;
            stages = rest;
        }
        self.sink.pause()
    }

    fn end(&mut self, trailers: Trailers) -> Result<(), BodyError> {
        let mut stages = &mut *self.stages;
        while let [first, rest @ ..] = stages {
            pass(rest, first.end(&trailers)?, &mut self.sink)?;
            stages = rest;
        }
        self.sink.end(trailers)
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.worked >= TURN {
            tokio::task::yield_now().await;
        }
        self.worked = 0;
        self.sink.flush().await
    }

    fn gone(&mut self) -> impl Future<Output = ()> {
        self.sink.gone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds back what does not fill a line.
    #[derive(Default)]
    struct Lines {
        held: Vec<u8>,
        out: Vec<u8>,
    }

    impl Stage for Lines {
        fn content<'a>(&'a mut self, content: &'a [u8]) -> Result<&'a [u8], BodyError> {
            self.held.extend_from_slice(content);
            let whole = self.held.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            self.out = self.held.drain(..whole).collect();
            Ok(&self.out)
        }

        fn pause(&mut self) -> Result<&[u8], BodyError> {
            self.out = std::mem::take(&mut self.held);
            Ok(&self.out)
        }

        fn end(&mut self, _: &Trailers) -> Result<&[u8], BodyError> {
            self.pause()
        }
    }

    /// Refuses a body with an `x` in it.
    struct Inspection;

    impl Stage for Inspection {
        fn content<'a>(&'a mut self, content: &'a [u8]) -> Result<&'a [u8], BodyError> {
            if content.contains(&b'x') { Err(BodyError::TooLarge(0)) } else { Ok(content) }
        }

        fn end(&mut self, _: &Trailers) -> Result<&[u8], BodyError> {
            Ok(b".")
        }
    }

    #[derive(Default)]
    struct Collected {
        content: Vec<u8>,
        ended: bool,
    }

    impl Sink for Collected {
        fn side(&self) -> Side {
            Side::Downstream
        }

        fn put(&mut self, content: &[u8]) -> Result<(), BodyError> {
            assert!(!content.is_empty());
            self.content.extend_from_slice(content);
            self.content.push(b'|');
            Ok(())
        }

        fn staged(&self) -> usize {
            0
        }

        fn end(&mut self, _: Trailers) -> Result<(), BodyError> {
            self.ended = true;
            Ok(())
        }

        async fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }

        async fn gone(&mut self) {}
    }

    #[test]
    fn content_passes_every_stage_in_order_and_ends_after_them() {
        let mut stages: Stages = vec![Box::new(Lines::default()), Box::new(Inspection)];
        let mut sink = Collected::default();
        let mut staged = Staged::new(&mut stages, &mut sink);
        staged.put(b"a\nb").unwrap();
        staged.put(b"c").unwrap();
        staged.pause().unwrap();
        staged.put(b"d").unwrap();
        staged.end(None).unwrap();
        assert_eq!(String::from_utf8_lossy(&sink.content), "a\n|bc|d|.|");
        assert!(sink.ended);
    }

    #[test]
    fn what_a_stage_refuses_does_not_arrive_however_long_it_was_held_back() {
        let mut stages: Stages = vec![Box::new(Lines::default()), Box::new(Inspection)];
        let mut sink = Collected::default();
        let mut staged = Staged::new(&mut stages, &mut sink);
        staged.put(b"x").unwrap();
        assert!(staged.end(None).is_err());
        assert_eq!((sink.content.as_slice(), sink.ended), (b"".as_slice(), false));
    }
}
