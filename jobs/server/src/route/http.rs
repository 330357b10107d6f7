//! What clients of a router meet: the interface of a replica, with keys and bounds in front of it; and what the other
//! routers of the service meet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Request, State},
    http::{
        HeaderMap, Method, StatusCode,
        header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde_json::json;

use super::{
    figures::Figures,
    forward::{Asked, forward},
    hand_on::{self, hand_on},
    prompt::Prompt,
    replicas::Replicas,
    report::Rate,
    routers::Routers,
    upstream::{Outgoing, Upstream},
};
use crate::{
    api::error::ApiError,
    exposition,
    guard::{gate::Gate, permit::Permit},
    http::{page, refused, version},
    net::body::BodyBounds,
};

/// What all handlers share.
#[derive(Debug)]
pub struct Route {
    pub gate: Gate,
    /// Of those that have the service's own key.
    pub inside: Gate,
    pub body: BodyBounds,
    pub replicas: Arc<Replicas>,
    pub upstream: Upstream,
    pub routers: Routers,
    pub figures: Figures,
    pub rate: Rate,
    /// Replicas that there should be; 0: nobody said, or not known yet.
    pub wanted: AtomicU32,
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

/// For routers that do not lead, which hand on what they are asked, and for whoever wants to know how the service does.
pub fn inside(route: Arc<Route>) -> Router {
    Router::new().route("/report", get(report)).fallback(handed_on).with_state(route)
}

async fn report(State(route): State<Arc<Route>>, request: Request) -> Response {
    let permitted = route.inside.permit(&request);
    let said = permitted.map(|_| ([(CACHE_CONTROL, "no-store")], Json(route.report())));
    route.told(said.map(IntoResponse::into_response))
}

/// Who is asked by a router answers itself, so nothing is handed on in circles.
async fn handed_on(State(route): State<Arc<Route>>, mut request: Request) -> Response {
    let outcome = async {
        route.inside.permit(&request)?;
        request.headers_mut().remove(AUTHORIZATION);
        if let Some(client) = request.headers_mut().remove(hand_on::CLIENT) {
            request.headers_mut().insert(AUTHORIZATION, client);
        }
        let permit = route.gate.permit(&request)?;
        let request = route.read(request).await?;
        route.answer(request, permit).await
    };
    route.told(outcome.await)
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
        let client = request.headers().get(AUTHORIZATION).cloned();
        let request = route.read(request).await?;
        match hand_on(&route, &request, client).await? {
            Some(response) => Ok(response),
            None => route.answer(request, permit).await,
        }
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
    /// Whether this router says what is to be done; of one that stops the next one does, if there is another.
    pub fn decides(&self) -> bool {
        let stops = self.stopping.load(Ordering::Relaxed) && self.routers.has_other();
        self.routers.leads() && !stops
    }

    async fn read(&self, request: Request) -> Result<Outgoing, ApiError> {
        let (head, body) = request.into_parts();
        let body = self.body.read(body).await?;
        let mut headers = HeaderMap::new();
        for name in [CONTENT_TYPE, ACCEPT] {
            if let Some(value) = head.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Outgoing { method: head.method, path, headers, body })
    }

    async fn answer(
        self: &Arc<Self>,
        request: Outgoing,
        permit: Permit,
    ) -> Result<Response, ApiError> {
        let prompt = prompt(&request.method, request.body.clone()).await?;
        forward(self, Asked { request, prompt, permit }).await
    }

    fn told(&self, outcome: Result<Response, ApiError>) -> Response {
        outcome.unwrap_or_else(|error| {
            self.figures.refused(error.code);
            refused(error)
        })
    }
}
