//! Keeps the services in step with the containers of the engines: looked at anew when an engine tells of a change, and
//! every so often, as one that was just asked for its events may miss one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::container::{Described, Namespaced, is_wanted, service};
use super::{Service, Services};
use crate::containers::{Engine, EngineError, Inside, Shown};
use crate::netns::{self, Namespace, NetnsId};

/// How long a change of which no engine told is not seen at most.
const UNTOLD: Duration = Duration::from_secs(4);

/// How long an engine that is gone is left alone.
const REST: Duration = Duration::from_secs(1);

/// How long further signs of change are waited for: many containers that start at one time are one look's affair.
const GATHER: Duration = Duration::from_millis(20);

/// Containers of one engine that may be services.
const MAX_SERVICES: usize = 1024;

/// Watches the engines at these sockets, until it is dropped.
pub async fn watch(services: Arc<Services>, sockets: Vec<PathBuf>) {
    let mut engines = JoinSet::new();
    for socket in sockets {
        let services = Arc::clone(&services);
        engines.spawn(async move {
            let watched = Watched { engine: Engine::new(socket), services, remembered: HashMap::new() };
            watched.run().await;
        });
    }
    while engines.join_next().await.is_some() {}
}

/// An engine.
struct Watched {
    engine: Engine,
    services: Arc<Services>,
    /// By the containers' full ids.
    remembered: HashMap<Box<str>, Remembered>,
}

/// What was found out about a container when it was looked into last.
struct Remembered {
    shown: Shown,
    inside: Inside,
    /// When its first process was started, as the kernel counts it: another one of the same number is not it.
    since: Option<u64>,
    namespace: Namespaced,
}

impl Watched {
    async fn run(mut self) {
        loop {
            if self.services.wants_containers()
                && let Ok(mut changes) = self.engine.changes().await
            {
                let mut told = true;
                loop {
                    if let Err(error) = self.look(told).await {
                        tracing::debug!("{error}");
                        break;
                    }
                    told = match timeout(UNTOLD, changes.next()).await {
                        Ok(Ok(())) => {
                            while matches!(timeout(GATHER, changes.next()).await, Ok(Ok(()))) {}
                            true
                        }
                        Ok(Err(_)) => break,
                        Err(_) => false,
                    };
                }
            }
            // If it is gone, its containers go on.
            sleep(REST).await;
        }
    }

    /// Finds out which containers are services now. `told`: the engine has told of a change.
    async fn look(&mut self, told: bool) -> Result<(), EngineError> {
        let (discover, configured) = self.services.wanted_containers();
        let mut shown = self.engine.shown().await?;
        shown.retain(|shown| is_wanted(shown, discover, &configured));
        if shown.len() > MAX_SERVICES {
            tracing::warn!("{} containers would be services; {MAX_SERVICES} are", shown.len());
            shown.truncate(MAX_SERVICES);
        }
        let mut found: Vec<Service> = Vec::new();
        let mut remembered = HashMap::new();
        for shown in shown {
            let id = shown.container.id.clone();
            let known = self.remembered.remove(&id);
            let known = match known.filter(|known| known.is_of(&shown, told)) {
                Some(known) => Some(known),
                None if shown.is_running => self.look_into(&shown).await?,
                None => None,
            };
            let described = Described {
                shown: &shown,
                inside: known.as_ref().map(|known| &known.inside),
                namespace: known.as_ref().map_or(Namespaced::Closed, |known| known.namespace.clone()),
            };
            found.extend(service(&described, discover, &configured));
            remembered.extend(known.map(|known| (id, known)));
        }
        self.remembered = remembered;
        self.services.found(self.engine.socket(), found);
        Ok(())
    }

    async fn look_into(&self, shown: &Shown) -> Result<Option<Remembered>, EngineError> {
        let inside = match self.engine.inside(&shown.container.id).await {
            Ok(inside) => inside,
            // It is gone: an event will tell.
            Err(EngineError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(pid) = inside.pid else { return Ok(None) };
        // Which makes a thread, and waits for it.
        let namespace = tokio::task::spawn_blocking(move || enter(pid)).await.unwrap_or(Namespaced::Closed);
        Ok(Some(Remembered { shown: shown.clone(), inside, since: started(pid), namespace }))
    }
}

impl Remembered {
    /// Whether nothing has changed since.
    fn is_of(&self, shown: &Shown, told: bool) -> bool {
        // What people are told of the time is another each time.
        let same = Shown { status: self.shown.status.clone(), ..shown.clone() } == self.shown;
        let lives = match (self.since, self.inside.pid) {
            (Some(since), Some(pid)) => started(pid) == Some(since),
            // Not to be seen from here.
            _ => !told,
        };
        same && shown.is_running && lives
    }
}

/// Enters a process's network namespace, if weir may and it is another one.
fn enter(pid: u32) -> Namespaced {
    let entered = || {
        let file = netns::of_process(pid)?;
        if NetnsId::of_file(&file)? == NetnsId::own()? {
            return Ok(Namespaced::Here);
        }
        Namespace::enter(file).map(Namespaced::Entered)
    };
    entered().unwrap_or_else(|error: std::io::Error| {
        tracing::debug!(pid, %error, "a container's network namespace can't be entered");
        Namespaced::Closed
    })
}

/// Field 22 of /proc/PID/stat (proc(5)), behind the name, which may hold anything.
fn started(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
