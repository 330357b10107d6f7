//! What clients of a router meet: the interface of a replica, with keys and bounds in front of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Request, State},
    http::{
        HeaderMap, Method, StatusCode,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde_json::json;

use super::{
    figures::Figures,
    forward::{Asked, forward},
    prompt::Prompt,
    replicas::Replicas,
    upstream::{Outgoing, Upstream},
};
use crate::{
    api::error::ApiError,
    exposition,
    guard::gate::Gate,
    http::{page, refused, version},
    net::body::BodyBounds,
};

/// What all handlers share.
#[derive(Debug)]
pub struct Route {
    pub gate: Gate,
    pub body: BodyBounds,
    pub replicas: Arc<Replicas>,
    pub upstream: Upstream,
    pub figures: Figures,
    /// Set once it stops.
    pub stopping: AtomicBool,
}

pub fn router(route: Arc<Route>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/v1/{*path}", any(pass))
        .route("/tokenize", any(pass))
        .route("/detokenize", any(pass))
        .fallback(nowhere)
        .with_state(route)
}

async fn health(State(route): State<Arc<Route>>) -> Response {
    let ready = route.replicas.members().iter().filter(|it| it.is_ready).count();
    let (status, word) = match (route.stopping.load(Ordering::Relaxed), ready) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, 0) => (StatusCode::SERVICE_UNAVAILABLE, "no replica"),
        (false, _) => (StatusCode::OK, "ok"),
    };
    let body = json!({"status": word, "replicas": ready});
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn metrics(State(route): State<Arc<Route>>) -> Response {
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], route.figures.encode()).into_response()
}

async fn pass(State(route): State<Arc<Route>>, request: Request) -> Response {
    let outcome = async {
        let permit = route.gate.permit(&request)?;
        let (head, body) = request.into_parts();
        let body = route.body.read(body).await?;
        let mut headers = HeaderMap::new();
        for name in [CONTENT_TYPE, ACCEPT] {
            if let Some(value) = head.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let prompt = prompt(&head.method, body.clone()).await?;
        let request = Outgoing { method: head.method, path, headers, body };
        forward(&route, Asked { request, prompt, permit }).await
    };
    route.told(outcome.await)
}

/// Reading a long body takes milliseconds: not on a thread of connections.
async fn prompt(method: &Method, body: Bytes) -> Result<Prompt, ApiError> {
    if method != Method::POST {
        return Ok(Prompt::default());
    }
    let read =
        move || serde_json::from_slice(&body).map(|body| Prompt::of(&body)).unwrap_or_default();
    tokio::task::spawn_blocking(read).await.map_err(|error| ApiError::internal(error.to_string()))
}

async fn nowhere(State(route): State<Arc<Route>>, request: Request) -> Response {
    route.told(Err(ApiError::nowhere(request.uri().path())))
}

impl Route {
    fn told(&self, outcome: Result<Response, ApiError>) -> Response {
        outcome.unwrap_or_else(|error| {
            self.figures.refused(error.code);
            refused(error)
        })
    }
}
