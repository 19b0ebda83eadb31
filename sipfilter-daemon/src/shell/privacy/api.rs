//! The control sockets' way out: every string of an answer is redacted, numbers and the answer's form are not touched.
//!
//! What the operator wrote (answers about configurations) does not come this way.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt};
use hyper::body::Bytes;
use serde_json::Value;

use super::Redactor;

/// A middleware.
pub async fn redact(State(redactor): State<Redactor>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if redactor.is_idle() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).cloned();
    let is = |wanted: &str| kind.as_ref().is_some_and(|kind| kind == wanted);
    if is("application/json") {
        let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::from(told(&redactor, &bytes)));
    }
    if is("application/x-ndjson") {
        // Each piece is one line.
        let lines = body.into_data_stream();
        let lines = lines.map_ok(move |line| told(&redactor, &line)).boxed();
        return Response::from_parts(parts, Body::from_stream(lines));
    }
    Response::from_parts(parts, body)
}

/// JSON as it may be read; what is none is not told.
fn told(redactor: &Redactor, json: &[u8]) -> Bytes {
    let Ok(mut value) = serde_json::from_slice::<Value>(json) else {
        return Bytes::new();
    };
    walk(redactor, &mut value);
    let mut told = value.to_string().into_bytes();
    if json.ends_with(b"\n") {
        told.push(b'\n');
    }
    told.into()
}

fn walk(redactor: &Redactor, value: &mut Value) {
    match value {
        Value::String(text) => *text = redactor.text(text).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(|value| walk(redactor, value)),
        Value::Object(fields) => {
            let told = std::mem::take(fields).into_iter().map(|(name, mut value)| {
                walk(redactor, &mut value);
                (redactor.text(&name).into_owned(), value)
            });
            *fields = told.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Redact;

    #[test]
    fn every_string_is_redacted_and_nothing_else() {
        let redactor = Redactor::new([1, 2], Redact::UsersAndAddresses);
        let json = br#"{"calls":[{"number":4930123456,"call_id":"4930123456@198.51.100.7","media":["198.51.100.7:4000"],"sip:a@b":{"end":null}}]}
"#;
        let told = String::from_utf8(told(&redactor, json).to_vec()).expect("text");
        assert!(
            told.contains(r#""number":4930123456,"#) && told.ends_with("}]}\n"),
            "{told}"
        );
        for gone in ["4930123456@", "198.51.100.7", "sip:a@b"] {
            assert!(!told.contains(gone), "{told}");
        }
    }
}
