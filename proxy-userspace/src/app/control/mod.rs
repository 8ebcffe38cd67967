//! The one task that changes what runs: it reads the configuration again (asked for over the admin API, by SIGHUP, or
//! because a file has changed), and has the explicit proxy listen or not. One thing after the other; whoever asks waits.

mod door;
mod fresh;
mod watching;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use super::handover::Giver;
use super::orders::Orders;
use super::worker::Plan;
use super::{certificates, state_file};
use crate::admin::{self, Token};
use crate::policy::acl::Acl;
use crate::route::Table;
use crate::running::{Capture, Live, NotReloaded, Reloaded, Running, Wish};
use crate::telemetry::log;
use crate::upstream::Common;
pub(super) use door::Door;
use fresh::Fresh;
use watching::Watching;

/// How often the certificates are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What the task works with.
pub(super) struct Control {
    pub(super) running: Arc<Running>,
    pub(super) giver: Arc<Giver>,
    /// What the workers follow now.
    pub(super) plan: Plan,
    pub(super) orders: Orders,
    /// None while the explicit proxy is stopped.
    pub(super) door: Option<Door>,
    /// weir's other listeners, which nobody is to be led to.
    pub(super) own: Vec<SocketAddr>,
    pub(super) token: Token,
}

impl Control {
    /// Until it is aborted.
    pub(super) async fn run(mut self, mut wishes: mpsc::Receiver<Wish>, mut hangup: Signal) {
        let mut watching = Watching::begin(&self.running);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                Some(wish) = wishes.recv() => self.grant(wish).await,
                _ = hangup.recv() => drop(self.reload("SIGHUP").await),
                () = watching.changed() => drop(self.reload("a file has changed").await),
                _ = look.tick() => certificates::look(self.plan.acceptance.as_deref()),
            }
        }
    }

    async fn grant(&mut self, wish: Wish) {
        // Who has asked may have gone; what was asked for is done all the same.
        match wish {
            Wish::Reload(answer) => drop(answer.send(self.reload("asked for").await)),
            Wish::Start { port, host, answer } => drop(answer.send(self.start(port, host).await)),
            Wish::Stop(answer) => {
                self.stop().await;
                let _ = answer.send(());
            }
        }
    }

    async fn reload(&mut self, cause: &str) -> Result<Reloaded, NotReloaded> {
        let result = self.try_reload().await.map_err(NotReloaded);
        self.running.note_reload(&result);
        match &result {
            Ok(reloaded) => {
                reloaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                tracing::info!(
                    cause,
                    changed = reloaded.changed.join(", "),
                    "the configuration was read again"
                );
                if !reloaded.needs_restart.is_empty() {
                    tracing::warn!("needs a restart: {}", reloaded.needs_restart.join(", "));
                }
            }
            Err(error) => tracing::error!(cause, "{error}"),
        }
        result
    }

    /// First all that can fail, then all that is put in force.
    async fn try_reload(&mut self) -> Result<Reloaded, String> {
        let running = Arc::clone(&self.running);
        let _one_at_a_time = running.reloading.lock().await;
        let reading = Arc::clone(&running);
        // A million entries take a second to read: not on the thread that answers.
        let fresh = tokio::task::spawn_blocking(move || Fresh::read(&reading)).await;
        let fresh = fresh.map_err(|_| "weir is stopping".to_owned())??;
        let Fresh {
            config,
            effective,
            policy,
            services,
            tls,
            acceptance,
            executor,
            rules,
            token,
            mut reloaded,
        } = fresh;
        let elsewhere = self.elsewhere(&config.server).map_err(|error| error.to_string())?;
        if let (Some(rules), Capture::On(redirect)) = (rules, &*running.capture()) {
            let before = redirect.rules().len();
            redirect.install_rules(rules).map_err(|error| error.to_string())?;
            if config.capture.rules.is_empty() && before > 0 {
                reloaded.warnings.push(format!("capture.rules: {}", admin::none_left(before)));
            }
        }
        let old = Arc::clone(&self.plan.config);
        if old.upstream != config.upstream {
            self.plan.upstreams = Common::new(&config.upstream, config.server.workers);
        }
        (self.plan.config, self.plan.tls, self.plan.acceptance) = (Arc::clone(&config), tls, acceptance);
        running.policy.replace(policy);
        running.services.configure(services);
        running
            .admission
            .set_limits(config.server.limits.connections, config.server.connections_per_client());
        running.flows.set(config.flows.keep, config.logging.access);
        log::set_level(&config.logging.level);
        if let Some(cache) = &running.cache {
            cache.set_capacity(config.cache.max_memory, config.cache.max_object);
        }
        if old.cli != config.cli {
            running.replace_executor(executor);
        }
        self.token.replace(token);
        let routes = Arc::new(Table::new(&config, Some(&self.plan.routes)));
        self.plan.routes = Arc::clone(&routes);
        running.set_live(|live| Live { config, effective, proxy: live.proxy, acl: live.acl.clone(), routes });
        match elsewhere {
            Some(explicit) => self.open(explicit).await,
            None => self.tell_workers().await,
        }
        Ok(reloaded)
    }

    /// Has every worker serve by the plan as it is now.
    async fn tell_workers(&mut self) {
        let mut own = self.own.clone();
        own.extend(self.door.as_ref().map(|door| door.address));
        self.plan.acl = Acl::new(&self.plan.config.security.acl.destinations, &own);
        let (acl, proxy) = (self.plan.acl.clone(), self.door.as_ref().map(|door| door.address));
        self.running.set_live(|live| Live {
            config: Arc::clone(&live.config),
            effective: Arc::clone(&live.effective),
            proxy,
            acl,
            routes: Arc::clone(&live.routes),
        });
        self.orders.follow(&self.plan).await;
    }

    fn tell_everybody(&self) {
        if let Err(error) = state_file::write_again(&self.running) {
            tracing::warn!("{error}");
        }
    }
}
