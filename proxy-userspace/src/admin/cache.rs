//! /admin/cache: what is in the cache, why something is or is not, and its removal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::cache::entry::Stored;
use crate::cache::key::Key;
use crate::cache::not_stored::Note;
use crate::cache::purge::Purge;
use crate::cache::store::Report;
use crate::cache::{self, Cache};
use crate::running::Running;
use crate::telemetry::metrics::{self, sum};

/// Numbers, which say nothing of anybody.
pub(super) fn questions() -> Router<Arc<Running>> {
    Router::new().route("/admin/cache/stats", get(stats))
}

/// URLs tell what everybody's programs have asked for.
pub(super) fn for_owner() -> Router<Arc<Running>> {
    Router::new().route("/admin/cache/entries", get(entries)).route("/admin/cache", delete(purge))
}

/// The metrics of what is stored, which no worker counts.
pub(super) fn write_metrics(running: &Running, text: &mut String) {
    let Some(cache) = &running.cache else { return };
    let (keys, bytes) = cache.memory().size();
    let write = metrics::write_metric;
    write(text, "cache_keys", "URLs of which something is stored.", "gauge", keys);
    write(text, "cache_stored_bytes", "Memory that stored responses take.", "gauge", bytes);
    let help = "URLs dropped from store for want of room.";
    write(text, "cache_evictions_total", help, "counter", cache.memory().evictions());
    let reports: Vec<_> = cache.lower().iter().map(|tier| tier.report()).collect();
    for (name, kind, help, value) in SERIES {
        write_series(text, (name, kind, help), &reports, value);
    }
}

/// A number of a store below memory.
type Value64 = fn(&Report) -> Option<u64>;

/// Name, kind, help, and where it is found.
const SERIES: &[(&str, &str, &str, Value64)] = &[
    ("cache_store_keys", "gauge", "URLs of which a store has something.", |report| report.keys),
    ("cache_store_bytes", "gauge", "Bytes that a store takes up.", |report| report.bytes),
    ("cache_store_hits_total", "counter", "Responses found in a store below memory.", |report| {
        Some(report.hits)
    }),
    ("cache_store_stores_total", "counter", "Responses written to a store.", |report| Some(report.stores)),
    ("cache_store_read_bytes_total", "counter", "Bytes of content read from a store.", |report| {
        Some(report.bytes_read)
    }),
    ("cache_store_evictions_total", "counter", "URLs dropped by a store for want of room.", |report| {
        report.evictions
    }),
    ("cache_store_dropped_total", "counter", "Responses that a store could not take.", |report| {
        Some(report.dropped)
    }),
    ("cache_store_errors_total", "counter", "What failed in a store; each was a miss.", |report| {
        Some(report.errors)
    }),
    ("cache_store_damaged_total", "counter", "What was found not to be as it was stored.", |report| {
        Some(report.damaged)
    }),
    (
        "cache_store_breaker_opened_total",
        "counter",
        "How often a store was given up on for a while.",
        |report| report.opened,
    ),
    ("cache_store_up", "gauge", "1 if the store is read from and written to.", |report| {
        Some((report.state == "ready").into())
    }),
];

fn write_series(
    text: &mut String,
    (name, kind, help): (&str, &str, &str),
    reports: &[Report],
    value: &Value64,
) {
    let values: Vec<_> = reports.iter().filter_map(|report| Some((report.store, value(report)?))).collect();
    if values.is_empty() {
        return;
    }
    // Writing to a String does not fail.
    let _ = writeln!(text, "# HELP weir_{name} {help}\n# TYPE weir_{name} {kind}");
    for (store, value) in values {
        let _ = writeln!(text, "weir_{name}{{store=\"{store}\"}} {value}");
    }
}

async fn stats(State(running): State<Arc<Running>>) -> Json<Value> {
    let Some(cache) = &running.cache else { return Json(json!({ "enabled": false })) };
    let (keys, bytes) = cache.memory().size();
    let hits = sum(|worker| &worker.cache_hits) + sum(|worker| &worker.cache_stale_hits);
    let others = sum(|worker| &worker.cache_misses);
    Json(json!({
        "enabled": true,
        "memory": {
            "keys": keys,
            "bytes": bytes,
            "max_bytes": running.config().cache.max_memory,
            "evictions": cache.memory().evictions(),
        },
        "stores": cache.lower().iter().map(|tier| store(&tier.report())).collect::<Vec<_>>(),
        "hits": sum(|worker| &worker.cache_hits),
        "stale_hits": sum(|worker| &worker.cache_stale_hits),
        "revalidated": sum(|worker| &worker.cache_revalidations),
        "collapsed": sum(|worker| &worker.cache_collapsed),
        "forwarded": others,
        "stored": sum(|worker| &worker.cache_stores),
        "bytes_from_store": sum(|worker| &worker.cache_bytes),
        "hit_ratio": if hits + others == 0 { Value::Null } else { json!(hits as f64 / (hits + others) as f64) },
    }))
}

/// A store below memory; what it does not know is null.
fn store(report: &Report) -> Value {
    json!({
        "store": report.store,
        "state": report.state,
        "keys": report.keys,
        "bytes": report.bytes,
        "max_bytes": report.max_bytes,
        "hits": report.hits,
        "stored": report.stores,
        "bytes_read": report.bytes_read,
        "evictions": report.evictions,
        "breaker_opened": report.opened,
        "dropped": report.dropped,
        "errors": report.errors,
        "damaged": report.damaged,
    })
}

#[derive(Debug, Deserialize)]
struct Wanted {
    /// As for purging.
    pattern: String,
    #[serde(default = "some")]
    count: usize,
}

fn some() -> usize {
    100
}

/// What is stored for the URLs of a pattern.
async fn entries(
    State(running): State<Arc<Running>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(wanted) = wanted?;
    let cache = enabled(&running)?;
    let pattern = pattern(&wanted.pattern)?;
    let now = cache::now();
    let found = cache.memory().select(wanted.count, |key, variants| pattern.wants(key, variants));
    let mut entries: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    for (key, variants) in &found {
        let described = variants.iter().map(|entry| {
            let mut described =
                describe(&entry.stored, entry.body.len(), Some(entry.weight()), ("memory", now));
            described["part"] = entry.part.map_or(
                Value::Null,
                |(span, length)| json!({ "first": span.start, "last": span.end - 1, "of": length }),
            );
            described
        });
        entries.insert(key.clone(), described.collect());
    }
    for tier in cache.lower() {
        for (key, stored) in tier.select(wanted.count, &pattern).await {
            let variant = describe(&stored.stored, stored.bytes, None, (tier.name(), now));
            entries.entry(key).or_default().push(variant);
        }
    }
    let mut notes: BTreeMap<Key, Note> =
        cache.notes().select(wanted.count, |key| pattern.wants_key(key)).into_iter().collect();
    for key in notes.keys() {
        entries.entry(key.clone()).or_default();
    }
    let entries = entries.iter().map(|(key, variants)| {
        let not_stored = notes.remove(key).map(|note| describe_note(&note, now));
        json!({ "key": key.as_str(), "variants": variants, "not_stored": not_stored })
    });
    Ok(Json(entries.collect()))
}

/// Why the last response that was not stored was not.
fn describe_note(note: &Note, now: u64) -> Value {
    json!({
        "seconds_ago": now.saturating_sub(note.at) / 1000,
        "status": note.status,
        "detail": note.why.to_string(),
        "explanation": note.why.explanation(),
    })
}

fn describe(stored: &Stored, bytes: u64, memory: Option<u64>, (store, now): (&str, u64)) -> Value {
    let freshness = &stored.freshness;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let selected: Vec<_> = stored
        .selection
        .fields()
        .map(|(name, value)| json!({ "field": name, "value": value.map(text) }))
        .collect();
    json!({
        "store": store,
        "status": stored.head.status(),
        "bytes": bytes,
        "memory": memory,
        "selected_by": selected,
        "age_seconds": freshness.age(now) / 1000,
        "fresh_for_seconds": freshness.left(now).div_euclid(1000),
        "lifetime_is_a_guess": freshness.heuristic,
        "always_validated": freshness.always_validate,
        "never_used_stale": freshness.forbids_stale,
        "stale_while_revalidate_seconds": freshness.while_revalidate / 1000,
        "stale_if_error_seconds": freshness.if_error / 1000,
        "etag": stored.validators.etag.as_deref().map(text),
        "last_modified": stored.validators.last_modified.as_deref().map(text),
    })
}

#[derive(Debug, Deserialize)]
struct Unwanted {
    /// `*`, a host, `*.host`, or a URL with `*` for any text.
    pattern: Option<String>,
    /// Of Surrogate-Key or Cache-Tag.
    tag: Option<String>,
}

async fn purge(
    State(running): State<Arc<Running>>,
    unwanted: Result<Query<Unwanted>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(unwanted) = unwanted?;
    let cache = enabled(&running)?;
    let purge = match (unwanted.pattern, unwanted.tag) {
        (Some(text), None) => pattern(&text)?,
        (None, Some(tag)) if !tag.is_empty() => Purge::Tag(tag),
        _ => {
            let detail = "give either `pattern` (a host, *.host, a URL with *, or *) or `tag`";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
    };
    Ok(Json(json!({ "removed": cache.purge(&purge).await })))
}

fn pattern(text: &str) -> Result<Purge, Problem> {
    Purge::of_pattern(text)
        .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "the pattern is empty; * stands for everything"))
}

fn enabled(running: &Running) -> Result<&Cache, Problem> {
    running.cache.as_deref().ok_or_else(|| {
        Problem::new(StatusCode::CONFLICT, "nothing is cached: cache.enabled is false in the configuration")
    })
}
