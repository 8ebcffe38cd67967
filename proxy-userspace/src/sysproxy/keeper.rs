//! The order of things: what is to be restored is written down, and then changed. How it is given back: `restoring`.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::backend::{Backend, Change, NotHere, Plan, Wanted};
use super::files;
use super::restoring::{Unrestored, give_back, read, undo};
use super::session::Session;
use super::state::{self, Entry, Lock, Snapshot};
use super::{AUTO, BACKENDS, Configured, Refused, Restored, Settings, interface};

/// Who changes settings and gives them back, one thing after the other.
pub(super) struct Keeper {
    settings: Settings,
    /// While the system uses weir.
    held: Option<(Lock, Snapshot)>,
}

/// How long to wait for another process that changes settings.
const BUSY: Duration = Duration::from_secs(2);

impl Keeper {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, held: None }
    }

    pub(super) fn is_configured(&self) -> bool {
        self.held.is_some()
    }

    /// What is set, as it was told when it was.
    pub(super) fn configured(&self) -> Option<Configured> {
        let (_, snapshot) = self.held.as_ref()?;
        let mut backends: Vec<String> = snapshot.entries.iter().map(|entry| entry.backend.clone()).collect();
        backends.dedup();
        Some(Configured {
            interface: snapshot.system_proxy_interface.clone(),
            proxy_target: snapshot.proxy_target.clone(),
            original_state: snapshot.original_state.clone(),
            backends,
            warnings: Vec::new(),
        })
    }

    /// Takes over what a guardian that died has left, if there is anything.
    pub(super) fn adopt(&mut self) -> Result<(), Refused> {
        if self.held.is_some() || !state::is_there(&self.settings.state_dir) {
            return Ok(());
        }
        let lock = self.lock()?;
        if let Some(snapshot) = state::load(&self.settings.state_dir).map_err(Refused::Failed)? {
            self.held = Some((lock, snapshot));
        }
        Ok(())
    }

    /// Has the system use the proxy that listens there.
    pub(super) fn configure(
        &mut self,
        proxy: SocketAddr,
        asked: Option<&str>,
    ) -> Result<Configured, Refused> {
        if let Some((_, snapshot)) = &self.held {
            return Err(Refused::AlreadyOurs(snapshot.proxy_target.clone()));
        }
        if !proxy.ip().is_loopback() && proxy.ip() != self.settings.host {
            return Err(Refused::Failed(format!("{proxy} is not where this weir's proxy may listen")));
        }
        let (interface, mut warnings) = find_interface(asked)?;
        let lock = self.lock()?;
        let folder = self.settings.state_dir.clone();
        if let Some(left) = state::load(&folder).map_err(Refused::Failed)? {
            warnings.extend(
                give_back(&folder, left).map_err(|unrestored| Refused::Failed(unrestored.failures))?.warnings,
            );
        }
        let session = Session::find(self.settings.user.as_deref()).map_err(Refused::Failed)?;
        let wanted =
            Wanted { proxy, interface: interface.as_deref(), settings: &self.settings, session: &session };
        let plans = self.plans(&wanted, &mut warnings)?;
        let snapshot = Snapshot {
            system_proxy_configured: true,
            system_proxy_interface: interface.clone(),
            proxy_target: wanted.url(),
            original_state: original_state(interface.as_deref(), &plans),
            entries: entries(&plans),
            session,
        };
        state::save(&folder, &snapshot).map_err(Refused::Failed)?;
        let (snapshot, backends) = self.apply(snapshot, &plans, &mut warnings)?;
        let configured = Configured {
            interface,
            proxy_target: snapshot.proxy_target.clone(),
            original_state: snapshot.original_state.clone(),
            backends,
            warnings,
        };
        self.held = Some((lock, snapshot));
        Ok(configured)
    }

    /// Gives back what there was.
    pub(super) fn unconfigure(&mut self) -> Result<Restored, Refused> {
        let (lock, snapshot) = self.held.take().ok_or(Refused::NotOurs)?;
        give_back(&self.settings.state_dir, snapshot).map_err(|unrestored| {
            self.held = Some((lock, *unrestored.rest));
            Refused::Failed(unrestored.failures)
        })
    }

    fn lock(&self) -> Result<Lock, Refused> {
        let folder = &self.settings.state_dir;
        state::lock(folder, BUSY).map_err(|error| {
            Refused::Failed(match error.kind() {
                std::io::ErrorKind::WouldBlock => format!(
                    "another weir has set the system's proxy (it holds {}/state.lock)",
                    folder.display()
                ),
                _ => format!("system_proxy.state_dir: {}: {error}", folder.display()),
            })
        })
    }

    /// Of each backend that is wanted and there.
    fn plans(
        &self,
        wanted: &Wanted<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<(&'static dyn Backend, Plan)>, Refused> {
        let (mut plans, mut absent) = (Vec::new(), Vec::new());
        for &backend in BACKENDS.iter().filter(|backend| self.settings.wants(backend.name())) {
            let name = backend.name();
            match backend.plan(wanted) {
                Ok(plan) => plans.push((backend, plan)),
                Err(NotHere::Absent(why) | NotHere::Failed(why)) if self.settings.names(name) => {
                    return Err(Refused::Failed(format!("{name}: {why}")));
                }
                Err(NotHere::Absent(why)) => absent.push(format!("{name}: {why}")),
                Err(NotHere::Failed(why)) => warnings.push(format!("{name}: {why}")),
            }
        }
        if plans.is_empty() {
            absent.append(warnings);
            return Err(Refused::Failed(match absent.is_empty() {
                true => "system_proxy.backends is empty: there is nothing to change".to_owned(),
                false => format!("nothing here takes a proxy setting: {}", absent.join("; ")),
            }));
        }
        Ok(plans)
    }

    /// Makes the changes. A backend that fails is given back: alone, if it was found, or with all others if it was named.
    fn apply(
        &self,
        mut snapshot: Snapshot,
        plans: &[(&'static dyn Backend, Plan)],
        warnings: &mut Vec<String>,
    ) -> Result<(Snapshot, Vec<String>), Refused> {
        let folder = &self.settings.state_dir;
        let mut done = Vec::new();
        for (backend, plan) in plans {
            let name = backend.name();
            let Err(why) = make(*backend, &plan.changes, &snapshot.session) else {
                backend.tell(&snapshot.session);
                done.push(name.to_owned());
                continue;
            };
            let why = format!("{name}: {why}");
            let is_alone = !self.settings.names(name);
            let (failed, rest) =
                snapshot.entries.into_iter().partition(|entry| !is_alone || entry.backend == name);
            snapshot.entries = rest;
            if let Err(Unrestored { failures, .. }) = undo(Snapshot { entries: failed, ..snapshot.clone() }) {
                // It stays written down, for the next one who asks, and for the next start.
                return Err(Refused::Failed(format!("{why}; and it could not be given back: {failures}")));
            }
            if snapshot.entries.is_empty() {
                warnings.push(why);
                state::forget(folder).map_err(Refused::Failed)?;
                return Err(Refused::Failed(warnings.join("; ")));
            }
            state::save(folder, &snapshot).map_err(Refused::Failed)?;
            warnings.push(why);
        }
        Ok((snapshot, done))
    }
}

fn find_interface(asked: Option<&str>) -> Result<(Option<String>, Vec<String>), Refused> {
    let mut warnings = Vec::new();
    let interface = match asked {
        Some(name) if interface::exists(name) => Some(name.to_owned()),
        Some(name) => return Err(Refused::NoInterface(name.to_owned())),
        None => interface::active(),
    };
    match &interface {
        None => warnings.push("there is no default route: no interface is active".to_owned()),
        Some(name) if interface::is_vpn(name) => warnings.push(format!(
            "{name} is a tunnel: what the VPN sets for its own connection may come before these settings"
        )),
        Some(_) => {}
    }
    Ok((interface, warnings))
}

fn entries(plans: &[(&'static dyn Backend, Plan)]) -> Vec<Entry> {
    let all = plans.iter().flat_map(|(backend, plan)| {
        plan.changes.iter().map(|change| Entry { backend: backend.name().to_owned(), change: change.clone() })
    });
    all.collect()
}

/// What there was, as the first backend that has a proxy says, or else the first.
fn original_state(interface: Option<&str>, plans: &[(&'static dyn Backend, Plan)]) -> Value {
    let has_one = plans.iter().find(|(_, plan)| plan.before.http.is_some() || plan.before.https.is_some());
    let mut state = has_one.or(plans.first()).map_or(Value::Null, |(_, plan)| plan.before.fields());
    state["interface"] = json!(interface);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    state["timestamp"] = json!(now.as_secs());
    for (backend, plan) in plans {
        state["backends"][backend.name()] = plan.before.more.clone();
    }
    state
}

/// Files and values, in their order; values at once, and looked at afterwards.
fn make(backend: &dyn Backend, changes: &[Change], session: &Session) -> Result<(), String> {
    let mut values = Vec::new();
    for change in changes {
        match change {
            Change::File(file) => files::apply(file, session)?,
            Change::Value(value) => values.push(value),
        }
    }
    if values.is_empty() {
        return Ok(());
    }
    let wanted: Vec<(&str, Option<&str>)> =
        values.iter().map(|value| (value.key.as_str(), value.ours.as_deref())).collect();
    backend.write(session, &wanted)?;
    let now = read(backend, session, &values)?.unwrap_or_default();
    match values.iter().find(|value| now.get(&value.key).cloned().flatten() != value.ours) {
        Some(value) => Err(format!("{} was set, but it is not what was set", value.key)),
        None => Ok(()),
    }
}

impl Settings {
    /// Whether there may be anything to change without a look at this machine.
    #[must_use]
    pub fn has_named(&self) -> bool {
        self.backends.iter().any(|backend| backend != AUTO)
    }
}
