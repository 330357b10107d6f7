//! Where requests come in: whose each is, and whether it may be made now. Before its body is read.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::Request,
    http::{StatusCode, header::AUTHORIZATION},
};

use super::{accounts::Accounts, permit::Permit, strangers::Strangers};
use crate::{api::error::ApiError, net::serve::Peer};

/// See the module.
#[derive(Debug, Default)]
pub struct Gate {
    /// None: anybody who reaches the port may ask.
    pub accounts: Option<Arc<Accounts>>,
    pub strangers: Strangers,
}

impl Gate {
    pub fn new(accounts: Option<Arc<Accounts>>) -> Self {
        Self { accounts, strangers: Strangers::default() }
    }

    /// # Errors
    /// 401 without a key that is known, 429 at any limit of the key, and for addresses that try many.
    pub fn permit(&self, request: &Request) -> Result<Permit, ApiError> {
        let Some(accounts) = &self.accounts else { return Ok(Permit::open()) };
        let now = Instant::now();
        let from = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        if let Some(Err(after)) = from.map(|from| self.strangers.ask(from, now)) {
            return Err(ApiError::too_many(
                "too_many_wrong_keys",
                "too many wrong keys from this address",
                after,
            ));
        }
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = header
            .and_then(|value| value.split_once(' '))
            .filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
        let unauthorized = |code, message: &str| {
            ApiError::new(StatusCode::UNAUTHORIZED, "invalid_request_error", code, message)
        };
        let Some((_, key)) = key else {
            return Err(unauthorized(
                "missing_api_key",
                "expected a header `Authorization: Bearer KEY`",
            ));
        };
        let Some(account) = accounts.find(key.trim()) else {
            if let Some(from) = from {
                self.strangers.was_wrong(from, now);
            }
            return Err(unauthorized("invalid_api_key", "this API key is unknown"));
        };
        Permit::of(account)
    }
}
