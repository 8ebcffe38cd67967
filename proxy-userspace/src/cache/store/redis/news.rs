//! Weirs that share a server tell each other what was removed, and forget it themselves: else what one has in memory or
//! on disk would outlive its removal elsewhere. Best effort: whoever is not connected at that moment does not hear of it.
//!
//! ```text
//! channel   PREFIX removed
//! message   16 hexadecimal digits, a number of the sender's own; then one of
//!           a           everything          hNAME  a host          bNAME  hosts below
//!           uPATTERN    URLs                tTAG   a tag           kKEYS  keys, a line each
//! ```

use std::time::Duration;

use futures_util::StreamExt;
use redis::Client;

use super::Shared;
use super::server::client;
use crate::cache::key::Key;
use crate::cache::purge::Purge;

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    Keys(Vec<Key>),
    Purge(Purge),
}

/// How long is waited before listening again.
const DELAY: Duration = Duration::from_secs(1);

impl News {
    pub(super) fn encode(&self, sender: u64) -> Vec<u8> {
        let (kind, text) = match self {
            Self::Keys(keys) => ('k', keys.iter().map(Key::as_str).collect::<Vec<_>>().join("\n")),
            Self::Purge(Purge::All) => ('a', String::new()),
            Self::Purge(Purge::Host(name)) => ('h', name.clone()),
            Self::Purge(Purge::Below(name)) => ('b', name.clone()),
            Self::Purge(Purge::Url(pattern)) => ('u', pattern.clone()),
            Self::Purge(Purge::Tag(tag)) => ('t', tag.clone()),
        };
        format!("{sender:016x}{kind}{text}").into_bytes()
    }

    /// None: it is of this sender, or nothing that is known.
    pub(super) fn decode(message: &[u8], own: u64) -> Option<Self> {
        let (sender, rest) = std::str::from_utf8(message).ok()?.split_at_checked(16)?;
        if u64::from_str_radix(sender, 16).ok()? == own {
            return None;
        }
        let (kind, text) = rest.split_at_checked(1)?;
        Some(match kind {
            "k" => Self::Keys(text.lines().map(Key::from_text).collect()),
            "a" => Self::Purge(Purge::All),
            "h" => Self::Purge(Purge::Host(text.to_owned())),
            "b" => Self::Purge(Purge::Below(text.to_owned())),
            "u" => Self::Purge(Purge::Url(text.to_owned())),
            "t" => Self::Purge(Purge::Tag(text.to_owned())),
            _ => return None,
        })
    }
}

/// Listens for as long as the server is there; whoever calls ends it.
pub(super) async fn listen(shared: &Shared) {
    loop {
        let heard = match client(&shared.config) {
            Ok(client) => hear(shared, &client).await,
            Err(error) => Err(error),
        };
        if let Err(error) = heard {
            tracing::debug!(%error, "can't hear from Redis what other weirs remove");
        }
        tokio::time::sleep(DELAY).await;
    }
}

async fn hear(shared: &Shared, client: &Client) -> redis::RedisResult<()> {
    let late = || redis::RedisError::from((redis::ErrorKind::Io, "no answer to SUBSCRIBE"));
    let connecting = async {
        let mut connection = client.get_async_pubsub().await?;
        connection.subscribe(shared.channel()).await?;
        redis::RedisResult::Ok(connection)
    };
    let connected = tokio::time::timeout(shared.config.connect_timeout, connecting).await;
    let mut messages = connected.map_err(|_| late())??.into_on_message();
    while let Some(message) = messages.next().await {
        let news = News::decode(message.get_payload_bytes(), shared.id);
        let Some((news, cache)) = news.zip(shared.cache.get().and_then(std::sync::Weak::upgrade)) else {
            continue;
        };
        match news {
            News::Keys(keys) => {
                for key in &keys {
                    cache.forget_here(key);
                }
            }
            News::Purge(purge) => {
                cache.purge_here(&purge).await;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_told_is_heard_by_others() {
        let key = |text: &str| Key::from_text(text);
        let all = [
            News::Keys(vec![key("http://a.example:80/"), key("gateway http://b.example:80/x")]),
            News::Purge(Purge::All),
            News::Purge(Purge::Host("a.example".into())),
            News::Purge(Purge::Below(".example".into())),
            News::Purge(Purge::Url("http://a.example/*".into())),
            News::Purge(Purge::Tag("a tag".into())),
        ];
        for news in all {
            let message = news.encode(7);
            assert_eq!(News::decode(&message, 8).as_ref(), Some(&news));
            assert_eq!(News::decode(&message, 7), None, "nobody needs to be told what he has said");
        }
    }

    proptest! {
        #[test]
        fn no_message_panics(message: Vec<u8>, text in "[0-9a-f]{14,18}[kahbutx]?.{0,4}") {
            let _ = News::decode(&message, 0);
            let _ = News::decode(text.as_bytes(), 0);
        }
    }
}
