//! The routes of the admin endpoints.

use std::{future::Future, io, path::Path};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Admin, socket};
use crate::bounded::BoundedListener;

/// The content type that Prometheus' own clients send with this format.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds `<data_dir>/admin.sock`, then answers until `stop`. The caller holds the folder's pid lock,
/// so an old socket belongs to nobody.
pub(crate) fn serve_socket(
    data_dir: &Path,
    admin: Admin,
    stop: CancellationToken,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
    let listener = socket::bind(data_dir)?;
    let router = Router::new()
        .route("/status", get(status))
        .route("/config", get(config))
        .route("/inflight", get(inflight))
        .route("/dump", get(dump))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .with_state(admin);
    Ok(
        async move {
            axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
        },
    )
}

/// Answers on TCP what anybody may read, until `stop`.
pub(crate) async fn serve_tcp(
    listener: TcpListener,
    admin: Admin,
    stop: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .fallback(pages)
        .with_state(admin);
    let listener = BoundedListener::new(listener);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn status(State(admin): State<Admin>) -> Response {
    Json(admin.show_status().await).into_response()
}

async fn config(State(admin): State<Admin>) -> Response {
    Json(&admin.shared.config).into_response()
}

async fn inflight(State(admin): State<Admin>) -> Response {
    Json(admin.shared.inflight.dump()).into_response()
}

async fn dump(State(admin): State<Admin>) -> Response {
    Json(admin.show_dump().await).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], admin.shared.metrics.encode()).into_response()
}

async fn unknown() -> Response {
    let text = "try /status, /config, /inflight, /dump or /metrics\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

/// The daemon's own pages; they may be added while this serves.
async fn pages(State(admin): State<Admin>, request: Request) -> Response {
    let pages = admin.shared.pages.read().clone();
    pages.oneshot(request).await.into_response()
}
