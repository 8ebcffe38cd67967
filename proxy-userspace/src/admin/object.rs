//! What callers send: JSON objects. From an array serde would take a structure's fields in their order, and nobody who
//! sends one means that.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, JsonRejection};
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The body of a request.
#[derive(Debug, Default)]
pub(super) struct Object<T>(pub(super) T);

/// Why a body is not taken.
#[derive(Debug)]
pub(super) enum BadObject {
    Bytes(BytesRejection),
    Json(JsonRejection),
    NoObject,
}

impl BadObject {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Bytes(rejection) => rejection.status(),
            Self::Json(rejection) => rejection.status(),
            Self::NoObject => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    pub(super) fn body_text(&self) -> String {
        match self {
            Self::Bytes(rejection) => rejection.body_text(),
            Self::Json(rejection) => rejection.body_text(),
            Self::NoObject => "the body is JSON, but no object: it begins with `{`".to_owned(),
        }
    }
}

impl IntoResponse for BadObject {
    fn into_response(self) -> Response {
        Problem::new(self.status(), self.body_text()).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Object<T> {
    type Rejection = BadObject;

    async fn from_request(request: Request, state: &S) -> Result<Self, BadObject> {
        let (parts, body) = request.into_parts();
        let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), state).await;
        let bytes = bytes.map_err(BadObject::Bytes)?;
        let begins = bytes.trim_ascii_start().first().copied();
        let again = Request::from_parts(parts, Body::from(bytes));
        let read = <Json<T> as FromRequest<S>>::from_request(again, state).await;
        let Json(value) = read.map_err(BadObject::Json)?;
        if begins == Some(b'{') { Ok(Self(value)) } else { Err(BadObject::NoObject) }
    }
}

/// None where nothing is said: there is no Content-Type, as with [`Json`].
impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Object<T> {
    type Rejection = BadObject;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, BadObject> {
        if !request.headers().contains_key(header::CONTENT_TYPE) {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}
