//! The way of a request from a router that does not lead to the one that does. What that one has not begun to answer
//! goes to the next that leads, as with replicas.

use std::{sync::Arc, time::Duration};

use axum::{
    http::{HeaderName, HeaderValue},
    response::Response,
};
use tokio::time::Instant;

use super::{http::Route, relay, routers::Leader, upstream::Outgoing};
use crate::{api::error::ApiError, limits};

/// The client's own `Authorization`, where a router's own stands in its place.
pub const CLIENT: HeaderName = HeaderName::from_static("ff2-client-authorization");

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// None: this router leads now, and is to answer itself.
///
/// # Errors
/// Whoever leads does not answer, for as long as a request may wait.
pub(super) async fn hand_on(
    route: &Arc<Route>,
    request: &Outgoing,
    client: Option<HeaderValue>,
) -> Result<Option<Response>, ApiError> {
    let mut request = request.clone();
    if let Some(client) = client {
        request.headers.insert(CLIENT, client);
    }
    let mut failing: Option<Instant> = None;
    while let Some(leader) = route.routers.leader() {
        let lost = leader.lost.clone();
        let answer = tokio::select! {
            answer = ask(route, &request, leader) => answer,
            () = lost.cancelled() => None,
        };
        if let Some(response) = answer {
            route.figures.handed_on.inc();
            return Ok(Some(response));
        }
        if failing.get_or_insert_with(Instant::now).elapsed() >= limits::REPLICA_WAIT {
            return Err(ApiError::unavailable("no router of the service leads now"));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(None)
}

/// None: it broke off before it answered.
async fn ask(route: &Arc<Route>, request: &Outgoing, leader: Leader) -> Option<Response> {
    let answer = route.upstream.send(leader.inside, request).await;
    let answer = answer.inspect_err(|error| tracing::debug!(url = leader.url, %error, "no answer"));
    let (head, mut body) = answer.ok()?.into_parts();
    let body = if relay::is_stream(&head) {
        let first = relay::next(&mut body).await?.ok()?;
        relay::events(first, body, leader.lost, |bytes| bytes)
    } else {
        relay::whole(body).await?.into()
    };
    Some(relay::response(&head, body))
}
