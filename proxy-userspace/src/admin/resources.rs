//! The routes of the API, each with what is said of it: no route can be had without. `openapi` tells it.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use serde_json::{Value, json};

use crate::running::Running;

/// Some routes.
#[derive(Default)]
pub(super) struct Resources {
    router: Router<Arc<Running>>,
    operations: Vec<Operation>,
}

/// What can be asked, and how.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) about: About,
    /// It is answered on the Unix socket, and for the holder of the token.
    pub(super) for_owner: bool,
}

/// What is said of it.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) summary: &'static str,
    /// Name, JSON Schema, and what it means.
    pub(super) queries: Vec<(&'static str, Value, &'static str)>,
    /// JSON Schema of the body. It may be left out unless it has required keys.
    pub(super) body: Option<Value>,
    pub(super) status: u16,
    pub(super) or_status: Option<u16>,
    pub(super) media_type: &'static str,
    /// JSON Schema of the answer.
    pub(super) answer: Value,
    /// Further statuses, from 500 on; those below are problems like any.
    pub(super) failures: Vec<u16>,
}

const JSON: &str = "application/json";

impl About {
    pub(super) fn new(summary: &'static str) -> Self {
        Self {
            summary,
            queries: Vec::new(),
            body: None,
            status: 200,
            or_status: None,
            media_type: JSON,
            answer: json!({}),
            failures: Vec::new(),
        }
    }

    pub(super) fn query(mut self, name: &'static str, schema: Value, meaning: &'static str) -> Self {
        self.queries.push((name, schema, meaning));
        self
    }

    pub(super) fn body(self, schema: Value) -> Self {
        Self { body: Some(schema), ..self }
    }

    pub(super) fn answers(self, schema: Value) -> Self {
        Self { answer: schema, ..self }
    }

    pub(super) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// It may have this status as well, and says the same then.
    pub(super) fn or_status(self, status: u16) -> Self {
        Self { or_status: Some(status), ..self }
    }

    pub(super) fn with_media(self, media_type: &'static str) -> Self {
        Self { media_type, answer: json!({ "type": "string" }), ..self }
    }

    pub(super) fn may_fail(self, failures: &[u16]) -> Self {
        Self { failures: failures.to_vec(), ..self }
    }
}

impl Resources {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn get<T: 'static>(
        self,
        path: &'static str,
        handler: impl Handler<T, Arc<Running>>,
        about: About,
    ) -> Self {
        self.add((MethodFilter::GET, "get"), path, handler, about)
    }

    pub(super) fn post<T: 'static>(
        self,
        path: &'static str,
        handler: impl Handler<T, Arc<Running>>,
        about: About,
    ) -> Self {
        self.add((MethodFilter::POST, "post"), path, handler, about)
    }

    pub(super) fn delete<T: 'static>(
        self,
        path: &'static str,
        handler: impl Handler<T, Arc<Running>>,
        about: About,
    ) -> Self {
        self.add((MethodFilter::DELETE, "delete"), path, handler, about)
    }

    fn add<T: 'static>(
        mut self,
        (filter, method): (MethodFilter, &'static str),
        path: &'static str,
        handler: impl Handler<T, Arc<Running>>,
        about: About,
    ) -> Self {
        self.operations.push(Operation { method, path, about, for_owner: false });
        Self { router: self.router.route(path, on(filter, handler)), ..self }
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        self.operations.extend(other.operations);
        Self { router: self.router.merge(other.router), ..self }
    }

    /// These, of which it is said that they are not for everybody. Who has to see to it is whoever serves them.
    pub(super) fn for_owner(mut self) -> Self {
        self.operations.iter_mut().for_each(|operation| operation.for_owner = true);
        self
    }

    pub(super) fn into_parts(self) -> (Router<Arc<Running>>, Vec<Operation>) {
        (self.router, self.operations)
    }
}

/// An object with these keys, and perhaps others.
pub(super) fn object(keys: &Value) -> Value {
    json!({ "type": "object", "properties": keys })
}

/// An object for weir: it takes these keys and no others.
pub(super) fn asked(keys: &Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": keys, "required": required, "additionalProperties": false })
}
