//! Giving back what there was, in the reverse order, but for what somebody else has changed meanwhile: that is theirs.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::backend::{Backend, Change, Unreadable, ValueChange, Values};
use super::files::{self, Outcome};
use super::session::Session;
use super::state::{self, Entry, Snapshot};
use super::{BACKENDS, Restored};

/// What went wrong, and what is left to be done.
pub(super) struct Unrestored {
    pub(super) failures: String,
    pub(super) rest: Box<Snapshot>,
}

/// Gives back what a weir that is gone has left. None: there is nothing.
///
/// # Errors
/// What could not be given back, and stays written down; or that another weir, which runs, has set it (`None`).
pub fn restore(folder: &Path, patience: Duration) -> Result<Option<Restored>, Option<String>> {
    if !state::is_there(folder) {
        return Ok(None);
    }
    let _lock = state::lock(folder, patience).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => None,
        _ => Some(format!("{}: {error}", folder.display())),
    })?;
    match state::load(folder).map_err(Some)? {
        Some(left) => give_back(folder, left).map(Some).map_err(|unrestored| Some(unrestored.failures)),
        None => Ok(None),
    }
}

/// None: what they belong to has vanished.
pub(super) fn read(
    backend: &dyn Backend,
    session: &Session,
    values: &[&ValueChange],
) -> Result<Option<Values>, String> {
    let keys: Vec<&str> = values.iter().map(|value| value.key.as_str()).collect();
    match backend.read(session, &keys) {
        Ok(now) => Ok(Some(now)),
        Err(Unreadable::Vanished(_)) => Ok(None),
        Err(Unreadable::Failed(why)) => Err(why),
    }
}

/// Gives all of it back, and forgets it. What can't be given back stays written down.
pub(super) fn give_back(folder: &Path, snapshot: Snapshot) -> Result<Restored, Unrestored> {
    let (interface, mut restored_to) =
        (snapshot.system_proxy_interface.clone(), snapshot.original_state.clone());
    let again = Snapshot { session: snapshot.session.clone().again(), ..snapshot };
    let whole = again.clone();
    match undo(again) {
        Ok(warnings) => {
            state::forget(folder).map_err(|failures| Unrestored { failures, rest: Box::new(whole) })?;
            restored_to["kept"] = json!(warnings);
            Ok(Restored { interface, restored_to, warnings })
        }
        Err(unrestored) => {
            // Where that can't be written, all of it is tried again: what is restored already is seen to be.
            let _ = state::save(folder, &unrestored.rest);
            Err(unrestored)
        }
    }
}

/// Gives back what is in the snapshot: warnings; or what went wrong, and what is left to be done.
pub(super) fn undo(snapshot: Snapshot) -> Result<Vec<String>, Unrestored> {
    let (mut warnings, mut failures, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for &backend in BACKENDS.iter().rev() {
        let entries: Vec<&Entry> =
            snapshot.entries.iter().filter(|entry| entry.backend == backend.name()).collect();
        if entries.is_empty() {
            continue;
        }
        match undo_one(backend, &entries, &snapshot.session) {
            Ok(told) => {
                warnings.extend(told.into_iter().map(|told| format!("{}: {told}", backend.name())));
                backend.tell(&snapshot.session);
            }
            Err(why) => {
                failures.push(format!("{}: {why}", backend.name()));
                rest.extend(entries.into_iter().cloned());
            }
        }
    }
    if failures.is_empty() {
        return Ok(warnings);
    }
    let rest = Box::new(Snapshot { entries: rest, ..snapshot });
    Err(Unrestored { failures: failures.join("; "), rest })
}

fn undo_one(backend: &dyn Backend, entries: &[&Entry], session: &Session) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    let values: Vec<&ValueChange> = entries
        .iter()
        .filter_map(|entry| if let Change::Value(value) = &entry.change { Some(value) } else { None })
        .collect();
    if !values.is_empty() {
        match read(backend, session, &values)? {
            Some(now) => {
                let (write, kept) = to_write(&values, &now);
                warnings.extend(kept);
                if !write.is_empty() {
                    backend.write(session, &write)?;
                }
            }
            None => warnings.push("what was to be restored is not there any more".to_owned()),
        }
    }
    for entry in entries.iter().rev() {
        if let Change::File(file) = &entry.change
            && let Outcome::Kept(told) = files::restore(file, backend, session)?
        {
            warnings.push(told);
        }
    }
    Ok(warnings)
}

/// Switches first, so that the others don't count while they are given back; and what is told of those that are kept.
fn to_write<'a>(values: &[&'a ValueChange], now: &Values) -> (Vec<(&'a str, Option<&'a str>)>, Vec<String>) {
    let current = |value: &ValueChange| now.get(&value.key).cloned().flatten();
    let is_others = |value: &&ValueChange| {
        let current = current(value);
        current != value.ours && current != value.before
    };
    let told = |value: &&ValueChange| {
        let current = current(value).unwrap_or_else(|| "unset".to_owned());
        format!("{} was changed to {current} by somebody else meanwhile; that was kept", value.key)
    };
    let kept = values.iter().copied().filter(is_others).map(|value| told(&value)).collect();
    let keeps_switch = values.iter().copied().any(|value| !value.is_switch && is_others(&value));
    let (switches, others): (Vec<&ValueChange>, Vec<&ValueChange>) =
        values.iter().copied().partition(|value| value.is_switch);
    let all = switches.into_iter().filter(|_| !keeps_switch).chain(others.into_iter().rev());
    let ours = all.filter(|value| current(value) == value.ours && value.ours != value.before);
    (ours.map(|value| (value.key.as_str(), value.before.as_deref())).collect(), kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &str, before: Option<&str>, ours: &str, is_switch: bool) -> ValueChange {
        let before = before.map(str::to_owned);
        ValueChange { key: key.to_owned(), before, ours: Some(ours.to_owned()), is_switch }
    }

    #[track_caller]
    fn check(now: &[(&str, Option<&str>)], write: &[(&str, Option<&str>)], kept: usize) {
        let changes = [
            value("host", Some("corp"), "weir", false),
            value("port", None, "1", false),
            value("mode", None, "on", true),
        ];
        let now = now.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
        let (written, told) = to_write(&changes.iter().collect::<Vec<_>>(), &now);
        assert_eq!((written.as_slice(), told.len()), (write, kept), "{now:?} {told:?}");
    }

    #[test]
    fn what_somebody_else_has_changed_is_theirs() {
        let ours = [("host", Some("weir")), ("port", Some("1")), ("mode", Some("on"))];
        check(&ours, &[("mode", None), ("port", None), ("host", Some("corp"))], 0);
        // Stopped on the way: the rest is as it was before.
        check(&[("host", Some("weir")), ("port", None), ("mode", None)], &[("host", Some("corp"))], 0);
        check(&[("host", Some("corp")), ("port", None), ("mode", None)], &[], 0);
        // Another proxy: that one is to go on being used, and weir's part of it is not.
        let others = [("host", Some("new")), ("port", Some("1")), ("mode", Some("on"))];
        check(&others, &[("port", None)], 1);
        // Switched off by hand.
        let off = [("host", Some("weir")), ("port", Some("1")), ("mode", Some("off"))];
        check(&off, &[("port", None), ("host", Some("corp"))], 1);
    }
}
