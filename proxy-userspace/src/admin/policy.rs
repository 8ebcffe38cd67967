//! POST /policy/reload: the configuration is read again, and its `security` section put in force, lists included. SIGHUP
//! does the same. GET /policy tells what is in force.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::problem::Problem;
use super::resources::{About, Resources, object};
use crate::config::{self, ConfigErrors};
use crate::policy::{Policy, PolicyError};
use crate::running::Running;

pub(super) fn questions() -> Resources {
    let about = About::new("What rules and lists are in force")
        .answers(object(&json!({ "rules": { "type": "array" }, "filtering": { "type": "object" } })));
    Resources::new().get("/policy", state, about)
}

pub(super) fn changes() -> Resources {
    let about = About::new("Reads `security` again, lists included")
        .answers(object(&json!({ "rules": { "type": "array" }, "filtering": { "type": "object" } })));
    Resources::new().post("/policy/reload", answer, about)
}

/// Why the policy in force stayed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("the configuration is wrong, and the policy in force stays:\n{0}")]
    Config(#[from] ConfigErrors),
    #[error("{0}; the policy in force stays")]
    Policy(#[from] PolicyError),
    #[error("the policy was not read again: weir is stopping")]
    Stopping,
}

async fn state(State(running): State<Arc<Running>>) -> Json<Value> {
    Json(show(&running.policy.latest()))
}

async fn answer(State(running): State<Arc<Running>>) -> Result<Json<Value>, Problem> {
    let failed = |error: ReloadError| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
    reload(&running).await.map_err(failed)?;
    Ok(state(State(running)).await)
}

fn show(policy: &Policy) -> Value {
    let (blocked, allowed, left_out) = policy.filtering.counts();
    json!({
        "rules": policy.rule_names(),
        "filtering": {
            "mode": if policy.filtering.is_allowlist() { "allowlist" } else { "blocklist" },
            "blocked": blocked, "allowed": allowed, "lines_left_out": left_out,
        },
        "inspection": policy.inspection.as_ref().map(|inspection| json!({
            "rules": inspection.rules(), "clamd": inspection.asks_clamd(),
        })),
    })
}

/// Reads the configuration's policy again and puts it in force.
///
/// # Errors
/// What is wrong with it. The policy in force stays.
pub async fn reload(running: &Arc<Running>) -> Result<(), ReloadError> {
    let one_at_a_time = running.reloading.lock().await;
    let reading = Arc::clone(running);
    // A million entries take a second to read: not on the thread that answers.
    let reloaded = tokio::task::spawn_blocking(move || {
        let running = reading;
        let security = config::load(&running.sources)?.security;
        let policy = Policy::load(&security)?;
        tracing::info!("the policy was read again: {}", show(&policy));
        running.policy.replace(policy);
        Ok(())
    });
    let reloaded = reloaded.await;
    drop(one_at_a_time);
    reloaded.unwrap_or(Err(ReloadError::Stopping))
}
