//! GET /openapi.json: the API as an OpenAPI document (3.1), made of the routes themselves. GET /docs: the same for people,
//! without anything from elsewhere.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use serde_json::{Map, Value, json};

use super::resources::{About, Operation, Resources};

/// The routes that tell of these.
pub(super) fn documents(told_of: Resources) -> Resources {
    let (_, mut operations) = told_of.into_parts();
    // They tell of themselves, too.
    operations.extend(own(Arc::default(), Arc::from("")).into_parts().1);
    own(Arc::new(document(&operations)), page(&operations).into())
}

fn own(document: Arc<Value>, page: Arc<str>) -> Resources {
    Resources::new().get("/openapi.json", async move || Json(document), About::new("This document")).get(
        "/docs",
        async move || answer(&page),
        About::new("This document, for people").with_media("text/html"),
    )
}

/// A page that runs nothing and asks for nothing.
fn answer(page: &str) -> impl IntoResponse + use<> {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(page.to_owned()))
}

fn document(operations: &[Operation]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "weir",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The admin API. docs/admin.md says who may ask for what.",
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": { "Problem": {
                "type": "object",
                "description": "RFC 9457",
                "properties": {
                    "type": { "type": "string" }, "title": { "type": "string" },
                    "status": { "type": "integer" }, "detail": { "type": "string" },
                },
                "required": ["type", "title", "status", "detail"],
            } },
            "securitySchemes": { "token": {
                "type": "http", "scheme": "bearer",
                "description": "The secret of admin.token_file; not needed on the Unix socket.",
            } },
        },
    })
}

fn described(operation: &Operation) -> Value {
    let About { summary, queries, body, status, or_status, media_type, answer, failures } = &operation.about;
    let queries = queries.iter().map(|(name, schema, meaning)| {
        json!({ "name": name, "in": "query", "schema": schema, "description": meaning })
    });
    let in_path = names(operation.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let parameters: Vec<Value> = queries.chain(in_path).collect();
    let problem = || {
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        json!({ "description": "A problem", "content": { "application/problem+json": { "schema": schema } } })
    };
    let mut responses = Map::new();
    for status in [Some(*status), *or_status].into_iter().flatten() {
        let content = json!({ *media_type: { "schema": answer } });
        responses.insert(status.to_string(), json!({ "description": summary, "content": content }));
    }
    responses.insert("4XX".to_owned(), problem());
    failures.iter().for_each(|status| drop(responses.insert(status.to_string(), problem())));
    let mut described = json!({
        "summary": summary, "operationId": operation_id(operation),
        "parameters": parameters, "responses": responses,
    });
    if let Some(schema) = body {
        let required = schema["required"].as_array().is_some_and(|keys| !keys.is_empty());
        described["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": schema } } });
    }
    if operation.for_owner {
        described["security"] = json!([{ "token": [] }]);
    }
    described
}

/// What stands in braces.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// `post_proxy_start`
fn operation_id(operation: &Operation) -> String {
    let path = operation.path.replace(['/', '-', '.'], "_").replace(['{', '}'], "");
    format!("{}{path}", operation.method)
}

fn page(operations: &[Operation]) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><title>weir: the admin API</title><style>\
         body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
         h2{font-size:1rem;margin:2rem 0 .3rem}code,pre{font:14px/1.4 ui-monospace,monospace}\
         pre{background:#8881;padding:.6rem;overflow:auto}small{opacity:.7}</style>\
         <h1>weir: the admin API</h1><p>The same for programs: <a href=/openapi.json>/openapi.json</a>. What is marked \
         <small>owner</small> is answered on the Unix socket, and for the holder of the token. Errors are problem documents \
         (RFC 9457).",
    );
    for operation in operations {
        let About { summary, queries, body, status, media_type, answer, .. } = &operation.about;
        let owner = if operation.for_owner { " <small>owner</small>" } else { "" };
        // Writing to a String does not fail.
        let _ = write!(
            page,
            "<h2><code>{} {}</code>{owner}</h2>{}",
            operation.method.to_uppercase(),
            escaped(operation.path),
            escaped(summary)
        );
        for (name, schema, meaning) in queries {
            let kind = schema["type"].as_str().unwrap_or_default();
            let _ = write!(page, "<br><code>{name}</code> ({kind}): {}", escaped(meaning));
        }
        if let Some(body) = body {
            let _ = write!(page, "<pre>{}</pre>", escaped(&format!("{:#}", body["properties"])));
        }
        if media_type.ends_with("json") && !answer["properties"].is_null() {
            let _ = write!(page, "{status}:<pre>{}</pre>", escaped(&format!("{:#}", answer["properties"])));
        }
    }
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
