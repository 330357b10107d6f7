//! A request's body: bounded in size and in time.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};
use http_body_util::{BodyExt, Limited};

use crate::api::error::ApiError;

/// What a body may take up.
#[derive(Debug, Clone, Copy)]
pub struct BodyBounds {
    pub bytes_max: usize,
    /// From the head to its end.
    pub timeout: Duration,
}

impl BodyBounds {
    /// # Errors
    /// A body that is too long, too slow, or breaks off.
    pub async fn read(&self, body: Body) -> Result<Bytes, ApiError> {
        let collected =
            tokio::time::timeout(self.timeout, Limited::new(body, self.bytes_max).collect());
        match collected.await {
            Ok(Ok(whole)) => Ok(whole.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                let message = format!("the body is longer than {} bytes", self.bytes_max);
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                Err(ApiError::new(status, "invalid_request_error", "body_too_large", message))
            }
            Ok(Err(error)) => {
                Err(ApiError::invalid("", "broken_body", format!("the body broke off: {error}")))
            }
            Err(_) => {
                let message = format!("the body did not come within {:?}", self.timeout);
                let status = StatusCode::REQUEST_TIMEOUT;
                Err(ApiError::new(status, "invalid_request_error", "body_timeout", message))
            }
        }
    }
}
