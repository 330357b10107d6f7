//! Errors as OpenAI's interface words them: `{"error": {"message", "type", "param", "code"}}`. Beside that there is
//! `"type": "error"`, by which a client of Anthropic's interface that came here by mistake knows what it has.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// What went wrong, for who asked. `param` is the field of the request, `code` a word for programs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub status: StatusCode,
    pub kind: &'static str,
    pub message: String,
    pub param: Option<String>,
    pub code: &'static str,
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// A request that is wrong as it stands.
    pub fn invalid(
        param: impl Into<String>,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message);
        Self { param: Some(param.into()).filter(|param| !param.is_empty()), ..error }
    }

    pub fn new(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { status, kind, message: message.into(), param: None, code, retry_after: None }
    }

    /// Too much of something, for so long.
    pub fn too_many(code: &'static str, message: impl Into<String>, after: Duration) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", code, message);
        Self { retry_after: Some(after), ..error }
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        let error =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "unavailable", message);
        Self { retry_after: Some(Duration::from_secs(5)), ..error }
    }

    /// A path that is none.
    pub fn nowhere(path: &str) -> Self {
        let message = match path {
            // Of Anthropic's interface.
            "/v1/messages" => format!(
                "there is no {path}: this server speaks OpenAI's interface, /v1/chat/completions"
            ),
            _ => format!("there is no {path}"),
        };
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "not_found", message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error", message)
    }

    pub fn body(&self) -> Value {
        let Self { kind, message, param, code, .. } = self;
        let error = json!({"message": message, "type": kind, "param": param, "code": code});
        json!({"type": "error", "error": error})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(after) = self.retry_after {
            // Whole seconds, never 0: a client would be back at once.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}
