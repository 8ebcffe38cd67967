//! Answers that may be given to others who ask the same server the same, bit for bit: EDNS, DNSSEC's bits and the case
//! of letters included. Nothing is refreshed ahead of its time, and nothing served beyond it.

use std::net::SocketAddr;
use std::time::Instant;

use quick_cache::unsync;

use super::message::{Message, age};

/// Longest response that is kept.
const MAX_RESPONSE: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// As the kernel half calls it.
    netns: u64,
    server: SocketAddr,
    /// Without the id.
    query: Box<[u8]>,
}

struct Answer {
    /// With no id.
    response: Box<[u8]>,
    ttls: Box<[usize]>,
    stored: Instant,
    /// In seconds.
    lifetime: u32,
}

/// One thread's.
pub(super) struct Cache {
    answers: Option<unsync::Cache<Key, Answer>>,
    max_ttl: u32,
}

impl Cache {
    #[must_use]
    pub(super) fn new(entries: u32, max_ttl: u32) -> Self {
        let answers = (entries > 0).then(|| unsync::Cache::new(entries as usize));
        Self { answers, max_ttl }
    }

    /// None: the query is one whose answers are for nobody else.
    #[must_use]
    pub(super) fn key(
        &self,
        netns: u64,
        server: SocketAddr,
        query: &[u8],
        parsed: Option<&Message>,
    ) -> Option<Key> {
        self.answers.as_ref()?;
        parsed?.is_plain_query(query).then(|| Key { netns, server, query: query[2..].into() })
    }

    /// The answer, as old as it is by now, with that id.
    pub(super) fn look_up(&self, key: &Key, id: [u8; 2]) -> Option<Vec<u8>> {
        let answer = self.answers.as_ref()?.get(key)?;
        let seconds = u32::try_from(answer.stored.elapsed().as_secs()).unwrap_or(u32::MAX);
        if seconds >= answer.lifetime {
            return None;
        }
        let mut response = answer.response.to_vec();
        response[..2].copy_from_slice(&id);
        age(&mut response, &answer.ttls, seconds);
        Some(response)
    }

    pub(super) fn store(&mut self, key: Key, response: &[u8], parsed: &Message) {
        let lifetime = parsed.lifetime().min(self.max_ttl);
        if let Some(answers) = &mut self.answers
            && lifetime > 0
            && response.len() <= MAX_RESPONSE
        {
            let ttls = parsed.ttls().into();
            answers.insert(key, Answer { response: response.into(), ttls, stored: Instant::now(), lifetime });
        }
    }
}
