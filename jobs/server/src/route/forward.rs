//! The way of one request to a replica and back. Until an answer has begun it may be sent to another one: generating
//! changes nothing, so twice is as good as once. A whole answer has begun when all of it is there, a stream with its
//! first event.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    http::{StatusCode, response::Parts},
    response::Response,
};
use serde_json::Value;
use tokio::time::Instant;

use super::{http::Route, prompt::Prompt, relay, replicas::Seat, upstream::Outgoing};
use crate::{
    api::{error::ApiError, tally::Tally},
    guard::permit::Permit,
    limits,
    route::figures::UnderWay,
    service::PROMPT_TOKENS,
};

/// Replicas that one request may fail at: it might be what they fail of.
const ATTEMPTS_MAX: u32 = 3;
/// Between two looks for a replica, where no news comes.
const LOOK: Duration = Duration::from_millis(200);

/// A request that was let in.
#[derive(Debug)]
pub struct Asked {
    pub request: Outgoing,
    pub prompt: Prompt,
    pub permit: Permit,
}

/// What came of one replica.
enum Outcome {
    Answer(Response),
    /// It has too much to do; what it said.
    Full(Response),
    NotBegun(&'static str),
}

/// # Errors
/// No replica took it in time, or those that did broke off before they answered.
pub async fn forward(route: &Arc<Route>, asked: Asked) -> Result<Response, ApiError> {
    let under_way = route.figures.begin();
    let deadline = Instant::now() + limits::REPLICA_WAIT;
    let (mut full, mut refusal, mut failures) = (BTreeSet::new(), None, 0);
    while failures < ATTEMPTS_MAX {
        let seat = match refusal {
            None => wait_for_seat(route, &asked.prompt, deadline).await,
            Some(_) => route.replicas.pick(&asked.prompt, &full),
        };
        let Some(seat) = seat else { break };
        let id = seat.id.clone();
        match attempt(route, &asked, seat, &under_way).await {
            Outcome::Answer(response) => return Ok(response),
            Outcome::Full(response) => {
                refusal = Some(response);
                full.insert(id);
            }
            Outcome::NotBegun(why) => {
                tracing::info!(id, why, "a request goes to another replica");
                route.figures.retried.inc();
                failures += 1;
            }
        }
    }
    match refusal {
        Some(response) => Ok(response),
        None if failures == ATTEMPTS_MAX => Err(relay::broke_off()),
        None => Err(ApiError::unavailable("no replica of the model takes requests now")),
    }
}

async fn wait_for_seat(route: &Arc<Route>, prompt: &Prompt, deadline: Instant) -> Option<Seat> {
    let mut waits = None;
    loop {
        let news = route.replicas.news.notified();
        let seat = route.replicas.pick(prompt, &BTreeSet::new());
        if seat.is_some() || Instant::now() >= deadline {
            return seat;
        }
        waits.get_or_insert_with(|| route.figures.wait());
        // The error only says that there was no news.
        let _ = tokio::time::timeout(LOOK, news).await;
    }
}

async fn attempt(route: &Arc<Route>, asked: &Asked, seat: Seat, under_way: &UnderWay) -> Outcome {
    let lost = seat.lost.clone();
    tokio::select! {
        outcome = ask(route, asked, seat, under_way) => outcome,
        () = lost.cancelled() => Outcome::NotBegun("it is silent"),
    }
}

async fn ask(route: &Arc<Route>, asked: &Asked, mut seat: Seat, under_way: &UnderWay) -> Outcome {
    let (head, mut body) = match route.upstream.send(seat.address, &asked.request).await {
        Ok(answer) => answer.into_parts(),
        Err(error) => {
            tracing::debug!(id = seat.id, %error, "no answer");
            route.replicas.refused(&seat.id, "no answer");
            return Outcome::NotBegun("it broke off");
        }
    };
    match head.status {
        StatusCode::SERVICE_UNAVAILABLE => {
            route.replicas.refused(&seat.id, "it stops");
            return Outcome::NotBegun("it stops");
        }
        StatusCode::UNAUTHORIZED => {
            tracing::error!(id = seat.id, "a replica does not know the key of its service");
            route.replicas.refused(&seat.id, "it is none of ours");
            return Outcome::NotBegun("it is none of ours");
        }
        _ => {}
    }
    if relay::is_stream(&head) {
        let mut tally = Tally::default();
        let first = loop {
            let Some(Ok(bytes)) = relay::next(&mut body).await else {
                return Outcome::NotBegun("it broke off");
            };
            let left = tally.take(&bytes);
            if !left.is_empty() {
                break left.into();
            }
        };
        charge_prompt(route, asked, &head);
        seat.began();
        let (lost, permit, under_way) =
            (seat.lost.clone(), asked.permit.clone(), under_way.clone());
        // What was charged already is the prompt.
        let mut charged = permit.charged();
        let counted = move |bytes: Bytes| {
            // They are held until the answer's end.
            let _ = (&seat, &under_way);
            let left = tally.take(&bytes);
            permit.charge(tally.tokens.saturating_sub(charged));
            charged = charged.max(tally.tokens);
            left.into()
        };
        let body = relay::events(first, body, lost, counted);
        return Outcome::Answer(relay::response(&head, body));
    }
    let Some(whole) = relay::whole(body).await else {
        return Outcome::NotBegun("it broke off");
    };
    charge_prompt(route, asked, &head);
    if head.headers.contains_key(PROMPT_TOKENS) {
        asked.permit.charge(completion_tokens(&whole));
    }
    let is_full = head.status == StatusCode::TOO_MANY_REQUESTS;
    let response = relay::response(&head, whole.into());
    if is_full { Outcome::Full(response) } else { Outcome::Answer(response) }
}

fn charge_prompt(route: &Route, asked: &Asked, head: &Parts) {
    let said = head.headers.get(PROMPT_TOKENS).and_then(|it| it.to_str().ok()?.parse().ok());
    if let Some(tokens) = said {
        asked.permit.charge(tokens);
        route.replicas.measured(asked.prompt.bytes, tokens);
    }
}

fn completion_tokens(answer: &[u8]) -> usize {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    answer["usage"]["completion_tokens"].as_u64().unwrap_or(0) as usize
}
