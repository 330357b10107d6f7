//! The routes. A request passes, in this order: whose key is it, may it ask now, its body, what it asks, the engine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{
        StatusCode,
        header::{
            AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE,
        },
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt, Limited};
use serde_json::json;

use crate::{
    api::{chat, completions, error::ApiError, models, tokens},
    guard::{accounts::Accounts, permit::Permit, strangers::Strangers},
    limits,
    metrics::ServerMetrics,
    net::serve::Peer,
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
    /// None: anybody who reaches the port may ask.
    pub accounts: Option<Arc<Accounts>>,
    pub strangers: Strangers,
    pub metrics: Arc<ServerMetrics>,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
    /// Set once it stops: health says so before connections are refused.
    pub stopping: AtomicBool,
}

pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
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

async fn page() -> Response {
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

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.metrics.encode()).into_response()
}

async fn version() -> Response {
    Json(json!({"version": env!("CARGO_PKG_VERSION")})).into_response()
}

async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    app.told(app.permit(&request).map(|_| models::list(&app.service).into_response()))
}

async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let found = app.permit(&request).and_then(|_| models::one(&app.service, &name));
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
    let message = format!("there is no {}", request.uri().path());
    app.told(Err(ApiError::new(
        StatusCode::NOT_FOUND,
        "invalid_request_error",
        "not_found",
        message,
    )))
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
        let permit = self.permit(&request)?;
        let body = self.body(request.into_body()).await?;
        // Templates and tokenizers compute for milliseconds on long prompts: not on a thread of connections.
        let service = self.service.clone();
        let read = tokio::task::spawn_blocking(move || read(&service, &body)).await;
        let read = read.map_err(|error| ApiError::internal(error.to_string()))?;
        Ok((permit, read?))
    }

    /// Whose request this is, and whether it may be made now. Before its body is read.
    fn permit(&self, request: &Request) -> Result<Permit, ApiError> {
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

    async fn body(&self, body: Body) -> Result<Bytes, ApiError> {
        let collected = tokio::time::timeout(
            self.body_timeout,
            Limited::new(body, self.body_bytes_max).collect(),
        );
        match collected.await {
            Ok(Ok(whole)) => Ok(whole.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                let message = format!("the body is longer than {} bytes", self.body_bytes_max);
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                Err(ApiError::new(status, "invalid_request_error", "body_too_large", message))
            }
            Ok(Err(error)) => {
                Err(ApiError::invalid("", "broken_body", format!("the body broke off: {error}")))
            }
            Err(_) => {
                let message = format!("the body did not come within {:?}", self.body_timeout);
                let status = StatusCode::REQUEST_TIMEOUT;
                Err(ApiError::new(status, "invalid_request_error", "body_timeout", message))
            }
        }
    }

    /// The outcome for the client, counted.
    fn told(&self, outcome: Result<Response, ApiError>) -> Response {
        outcome.unwrap_or_else(|error| {
            self.metrics.refused(error.code);
            let is_stranger = error.status == StatusCode::UNAUTHORIZED;
            let mut response = error.into_response();
            if is_stranger {
                response.headers_mut().insert(WWW_AUTHENTICATE, "Bearer".parse().expect("a word"));
            }
            response
        })
    }
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
            accounts,
            strangers: Strangers::default(),
            metrics,
            body_bytes_max: BODY_BYTES_MAX,
            body_timeout: limits::BODY_TIMEOUT,
            stopping: AtomicBool::new(false),
        }
    }
}
