//! An answer on its way back: its head for the client, and its events as they come.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
        response::Parts,
    },
    response::{IntoResponse, Response},
};
use futures::stream;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::{api::error::ApiError, limits};

pub(super) fn is_stream(head: &Parts) -> bool {
    let kind = head.headers.get(CONTENT_TYPE);
    kind.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"))
}

/// With what concerns the client.
pub(super) fn response(head: &Parts, body: Body) -> Response {
    let mut headers = HeaderMap::new();
    for name in [CONTENT_TYPE, CACHE_CONTROL, RETRY_AFTER] {
        if let Some(value) = head.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    (head.status, headers, body).into_response()
}

/// A whole answer; none if it breaks off.
pub(super) async fn whole(body: Incoming) -> Option<Bytes> {
    let body = Limited::new(body, limits::ANSWER_BYTES_MAX).collect().await.ok()?;
    Some(body.to_bytes())
}

/// The next bytes of a body; none at its end.
pub(super) async fn next(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        match body.frame().await? {
            // Trailers tell nothing here.
            Ok(frame) => match frame.into_data() {
                Ok(bytes) => return Some(Ok(bytes)),
                Err(_) => continue,
            },
            Err(error) => return Some(Err(error)),
        }
    }
}

/// A stream of events: its first bytes, and all others passed through `through`, which lives as long as the stream.
/// Whoever drops it ends the generation. One that breaks off, or whose sender is lost, ends with an event that says so.
pub(super) fn events(
    first: Bytes,
    body: Incoming,
    lost: CancellationToken,
    through: impl FnMut(Bytes) -> Bytes + Send + 'static,
) -> Body {
    let relay = Relay { first: Some(first), body, lost, through };
    Body::from_stream(stream::unfold(Some(relay), Relay::next))
}

struct Relay<F> {
    first: Option<Bytes>,
    body: Incoming,
    lost: CancellationToken,
    through: F,
}

impl<F: FnMut(Bytes) -> Bytes> Relay<F> {
    async fn next(relay: Option<Self>) -> Option<(Result<Bytes, Infallible>, Option<Self>)> {
        let mut relay = relay?;
        if let Some(first) = relay.first.take() {
            return Some((Ok(first), Some(relay)));
        }
        let bytes = tokio::select! {
            bytes = next(&mut relay.body) => bytes?.ok(),
            () = relay.lost.cancelled() => None,
        };
        let Some(bytes) = bytes else {
            // The status is long sent: what can still be told is told in the stream.
            let told = format!("data: {}\n\n", broke_off().body());
            return Some((Ok(told.into()), None));
        };
        let bytes = (relay.through)(bytes);
        Some((Ok(bytes), Some(relay)))
    }
}

pub(super) fn broke_off() -> ApiError {
    let message = "the replica that answered broke off; ask again";
    ApiError::new(StatusCode::BAD_GATEWAY, "server_error", "replica_lost", message)
}
