//! The thread that speaks with Redis: it connects, answers searches, and passes on what is to be stored and removed.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::Shared;
use super::commands::{Server, Trouble};
use super::news::{self, News};
use super::queue::Order;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::purge::Purge;
use crate::cache::store::Stored;
use crate::config::Redis;
use crate::http::headers::Headers;
use crate::net;

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Question {
    Search(Box<Search>),
    /// What there is of what an operator means.
    List {
        most: usize,
        wanted: Purge,
        found: oneshot::Sender<Vec<(Key, Stored)>>,
    },
}

/// A search, and who waits for what it finds.
#[derive(Debug)]
pub(super) struct Search {
    pub key: Key,
    pub request: Headers,
    pub found: oneshot::Sender<Entry>,
}

/// How long is waited before the server is tried again: longer each time.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(2);

/// Runs for as long as the store is there.
pub(super) async fn run(shared: Arc<Shared>, mut searches: mpsc::Receiver<Question>) {
    let mut delay = FIRST_DELAY;
    loop {
        match connect(&shared.config).await {
            Ok(connection) => {
                let server = Server { shared: Arc::clone(&shared), connection };
                // What was removed while it was gone goes first: until then, nothing that it says is believed.
                if server.catch_up().await {
                    delay = FIRST_DELAY;
                    shared.breaker.close();
                    tracing::info!(server = %shared.place(), "Redis answers");
                    server.serve(&mut searches).await;
                    tracing::warn!(server = %shared.place(), "Redis does not answer: nothing is looked for there");
                }
            }
            Err(error) => tracing::debug!(%error, server = %shared.place(), "can't connect to Redis"),
        }
        shared.breaker.open();
        // Who asked last is not to wait for nothing.
        while searches.try_recv().is_ok() {}
        if searches.is_closed() {
            return;
        }
        tokio::time::sleep(delay).await;
        delay = LAST_DELAY.min(delay * 2);
    }
}

/// A client of the configured server; it connects when it is told to.
pub(super) fn client(config: &Redis) -> RedisResult<Client> {
    let url = config.url.as_ref().ok_or((redis::ErrorKind::InvalidClientConfig, "no URL"))?;
    net::redis::client(url, config.ca.as_deref())
}

async fn connect(config: &Redis) -> RedisResult<MultiplexedConnection> {
    // Each command has a time limit of its own, here.
    let limits = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        .set_response_timeout(None);
    let client = client(config)?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&limits).await?;
    let ping = async { redis::cmd("PING").query_async::<()>(&mut connection).await };
    match tokio::time::timeout(config.connect_timeout, ping).await {
        Ok(answered) => answered.map(|()| connection),
        Err(_) => Err((redis::ErrorKind::Io, "no answer to PING").into()),
    }
}

impl Server {
    /// Tells the server what it does not know yet. Returns whether it does now.
    async fn catch_up(&self) -> bool {
        while let Some(order) = self.shared.queue.take() {
            if !self.carry_out(order).await {
                return false;
            }
        }
        true
    }

    /// Until it is gone.
    async fn serve(&self, searches: &mut mpsc::Receiver<Question>) {
        let writer = self.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while writer.carry_out(writer.shared.queue.next().await).await {}
            writer.shared.breaker.open();
        });
        let listener = Arc::clone(&self.shared);
        tasks.spawn(async move { news::listen(&listener).await });
        loop {
            tokio::select! {
                () = self.shared.breaker.wait_until_open() => break,
                question = searches.recv() => {
                    let Some(question) = question else { return };
                    let server = self.clone();
                    tasks.spawn(async move { server.answer(question).await });
                }
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    async fn answer(&self, question: Question) {
        match question {
            Question::Search(search) => self.search(*search).await,
            Question::List { most, wanted, found } => {
                // Whoever asked may not have waited.
                let _ = found.send(self.list(most, &wanted).await.unwrap_or_default());
            }
        }
    }

    async fn search(&self, search: Search) {
        let found = self.find(&search.key, &search.request).await;
        match found {
            Ok(Some(entry)) => {
                self.shared.count_hit(entry.body.len());
                // Whoever asked may not have waited.
                let _ = search.found.send(entry);
            }
            Ok(None) | Err(Trouble::Gone) => {}
            Err(Trouble::Refused(error)) => {
                tracing::debug!(%error, key = %search.key, "Redis does not say what it has");
                let mut said = error.into_server_errors().into_iter().flat_map(|said| said.to_vec());
                if said.any(|(_, error)| error.code() == "WRONGTYPE") {
                    self.shared.drop_damaged(&search.key);
                }
            }
        }
    }
    /// Returns whether the server is still there.
    async fn carry_out(&self, order: Order) -> bool {
        let done = match &order {
            Order::Store { key, entry } => self.store(key, entry).await,
            Order::Remove(keys) => {
                let names = keys.iter().map(|key| self.shared.name(key)).collect();
                let removed = self.remove(names).await;
                self.tell(&News::Keys(keys.clone())).await;
                removed
            }
            Order::Purge { purge, .. } => match self.purge(purge).await {
                Ok(purged) => {
                    self.tell(&News::Purge(purge.clone())).await;
                    self.shared.queue.done(&order);
                    if let Order::Purge { done, .. } = order {
                        // Whoever asked may not have waited.
                        let _ = done.send(purged);
                    }
                    return true;
                }
                Err(trouble) => Err(trouble),
            },
        };
        match (done, &order) {
            (Ok(()), _) => {}
            // It may be full, for all we know: that is a miss.
            (Err(Trouble::Refused(error)), Order::Store { .. }) => {
                tracing::debug!(%error, "Redis does not store a response");
            }
            // What can't be removed must not be read, either.
            (Err(_), _) => {
                self.shared.queue.put_back(order);
                return false;
            }
        }
        self.shared.queue.done(&order);
        true
    }
}
