//! A configuration that was read again, with all that it names: whatever can be wrong with it has been found.

use std::sync::Arc;

use crate::admin::Secret;
use crate::config::{self, Config, Effective};
use crate::execute::Executor;
use crate::policy::Policy;
use crate::redirect::Rules;
use crate::running::{Capture, Reloaded, Running};
use crate::services::{self, Configured};
use crate::tls::client::ClientTls;
use crate::tls::server::Acceptance;

/// Nothing of it is in force yet.
pub(super) struct Fresh {
    pub(super) config: Arc<Config>,
    pub(super) effective: Arc<Effective>,
    pub(super) policy: Policy,
    pub(super) services: Configured,
    pub(super) tls: Arc<ClientTls>,
    pub(super) acceptance: Option<Arc<Acceptance>>,
    pub(super) executor: Option<Executor>,
    /// None where nothing is captured.
    pub(super) rules: Option<Rules>,
    pub(super) token: Secret,
    pub(super) reloaded: Reloaded,
}

impl Fresh {
    /// Blocks.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub(super) fn read(running: &Running) -> Result<Self, String> {
        let live = running.live();
        let wrong = |errors: config::ConfigErrors| format!("the configuration is wrong:\n{errors}");
        let config::Loaded { config, effective } =
            config::load_whole_again(&running.sources).map_err(wrong)?;
        let warnings = config::warnings(&config);
        let changed = live.effective.differences(&effective);
        let captures = matches!(*running.capture(), Capture::On(_));
        let config = config::reloaded(&live.config, config, captures).map_err(wrong)?;
        let waits = |key: &&String| config::needs_restart(key, captures);
        let needs_restart = changed.iter().filter(waits).cloned().collect();
        Ok(Self {
            policy: Policy::load(&config.security).map_err(|error| error.to_string())?,
            services: services::configured(&config.services)?,
            tls: Arc::new(
                ClientTls::load(&config.upstream.tls).map_err(|error| format!("upstream.tls: {error}"))?,
            ),
            acceptance: Acceptance::load(&config.server.tls)
                .map_err(|error| format!("server.tls: {error}"))?
                .map(Arc::new),
            executor: Executor::new(&config.cli).map_err(|error| error.to_string())?,
            rules: captures
                .then(|| Rules::new(&config.capture))
                .transpose()
                .map_err(|error| error.to_string())?,
            token: Secret::read(config.admin.token_file.as_deref()).map_err(|error| error.to_string())?,
            config: Arc::new(config),
            effective: Arc::new(effective),
            reloaded: Reloaded { changed, needs_restart, warnings },
        })
    }
}
