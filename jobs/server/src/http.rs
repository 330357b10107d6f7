//! The routes. A request passes, in this order: whose key is it, may it ask now, its body, what it asks, the engine.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;

use crate::{
    api::{chat, completions, error::ApiError, models, tokens},
    exposition,
    guard::{accounts::Accounts, gate::Gate, permit::Permit},
    limits,
    metrics::ServerMetrics,
    net::body::BodyBounds,
    route::replicas::Load,
    service::{Asked, Service},
};

const PAGE: &str = include_str!("http/chat.html");
/// The page brings its own script and style, and talks to nobody but this server.
const POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// What all handlers share.
#[derive(Debug)]
pub struct App {
    pub service: Arc<Service>,
    pub gate: Gate,
    pub metrics: Arc<ServerMetrics>,
    pub body: BodyBounds,
    /// Set once it stops: health says so before connections are refused.
    pub stopping: AtomicBool,
}

pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/load", get(load))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/v1/models", get(list))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(complete))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

pub(crate) async fn page() -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)];
    (headers, PAGE).into_response()
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let stopping = app.stopping.load(Ordering::Relaxed);
    let (status, word) = if stopping {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else {
        (StatusCode::OK, "ok")
    };
    (status, [(CACHE_CONTROL, "no-store")], Json(json!({"status": word}))).into_response()
}

/// What a router wants to know; nothing in it that `/metrics` does not tell.
async fn load(State(app): State<Arc<App>>) -> Response {
    let figures = app.service.engine.figures();
    let load = Load {
        stopping: app.stopping.load(Ordering::Relaxed),
        slots: app.service.slots,
        running: figures.running,
        waiting: figures.waiting,
        keeps_tokens: figures.blocks * figures.block_tokens,
        generated: figures.tokens_generated,
        looked_up: figures.prefix_queries,
        found: figures.prefix_hits,
    };
    ([(CACHE_CONTROL, "no-store")], Json(load)).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], app.metrics.encode()).into_response()
}

pub(crate) async fn version() -> Response {
    Json(json!({"version": env!("CARGO_PKG_VERSION")})).into_response()
}

async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    app.told(app.gate.permit(&request).map(|_| models::list(&app.service).into_response()))
}

async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let found = app.gate.permit(&request).and_then(|_| models::one(&app.service, &name));
    app.told(found.map(IntoResponse::into_response))
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Response {
    let outcome = async {
        let (permit, asked) = app.ask(request, chat::read).await?;
        let head = app.service.head("chatcmpl-", ("chat.completion.chunk", "chat.completion"));
        let dialect = chat::Chat::new(&app.service, &asked, &head.id);
        app.service.answer(asked, head, dialect, permit).await
    };
    app.told(outcome.await)
}

async fn complete(State(app): State<Arc<App>>, request: Request) -> Response {
    let outcome = async {
        let (permit, asked) = app.ask(request, completions::read).await?;
        let head = app.service.head("cmpl-", ("text_completion", "text_completion"));
        let dialect = completions::Completion::new(&app.service, &asked);
        app.service.answer(asked, head, dialect, permit).await
    };
    app.told(outcome.await)
}

async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Response {
    let outcome = app.read(request, tokens::tokenize).await;
    app.told(outcome.map(|(_, answer)| answer.into_response()))
}

async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Response {
    let outcome = app.read(request, tokens::detokenize).await;
    app.told(outcome.map(|(_, answer)| answer.into_response()))
}

async fn nowhere(State(app): State<Arc<App>>, request: Request) -> Response {
    app.told(Err(ApiError::nowhere(request.uri().path())))
}

async fn wrong_method(State(app): State<Arc<App>>, request: Request) -> Response {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    let status = StatusCode::METHOD_NOT_ALLOWED;
    app.told(Err(ApiError::new(status, "invalid_request_error", "method_not_allowed", message)))
}

impl App {
    /// Reads a request that the engine will answer.
    async fn ask(
        &self,
        request: Request,
        read: fn(&Service, &[u8]) -> Result<Asked, ApiError>,
    ) -> Result<(Permit, Asked), ApiError> {
        let (permit, asked) = self.read(request, read).await?;
        self.service.check_name(asked.parameters.model.as_deref())?;
        Ok((permit, asked))
    }

    async fn read<T: Send + 'static>(
        &self,
        request: Request,
        read: fn(&Service, &[u8]) -> Result<T, ApiError>,
    ) -> Result<(Permit, T), ApiError> {
        let permit = self.gate.permit(&request)?;
        let body = self.body.read(request.into_body()).await?;
        // Templates and tokenizers compute for milliseconds on long prompts: not on a thread of connections.
        let service = self.service.clone();
        let read = tokio::task::spawn_blocking(move || read(&service, &body)).await;
        let read = read.map_err(|error| ApiError::internal(error.to_string()))?;
        Ok((permit, read?))
    }

    /// The outcome for the client, counted.
    fn told(&self, outcome: Result<Response, ApiError>) -> Response {
        outcome.unwrap_or_else(|error| {
            self.metrics.refused(error.code);
            refused(error)
        })
    }
}

/// A stranger is told that keys are asked for.
pub(crate) fn refused(error: ApiError) -> Response {
    let is_stranger = error.status == StatusCode::UNAUTHORIZED;
    let mut response = error.into_response();
    if is_stranger {
        response.headers_mut().insert(WWW_AUTHENTICATE, "Bearer".parse().expect("a word"));
    }
    response
}

/// Bodies larger than this are refused, unless the operator says otherwise.
pub const BODY_BYTES_MAX: usize = 4 << 20;

impl App {
    /// With bounds that need no thought.
    pub fn new(
        service: Arc<Service>,
        accounts: Option<Arc<Accounts>>,
        metrics: Arc<ServerMetrics>,
    ) -> Self {
        Self {
            service,
            gate: Gate::new(accounts),
            metrics,
            body: BodyBounds { bytes_max: BODY_BYTES_MAX, timeout: limits::BODY_TIMEOUT },
            stopping: AtomicBool::new(false),
        }
    }
}
