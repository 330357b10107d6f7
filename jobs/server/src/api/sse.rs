//! An answer: whole, or as server-sent events while it is generated.

use std::{convert::Infallible, pin::Pin};

use axum::{
    Json,
    body::Body,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};

use super::{error::ApiError, reply::Step, tally, usage::Usage};
use crate::guard::permit::Permit;

/// The steps of all prompts of a request.
pub type Steps = Pin<Box<dyn Stream<Item = Step> + Send>>;

/// How one of OpenAI's interfaces words an answer.
pub trait Dialect: Send + 'static {
    /// What the choices of a stream begin with, if anything.
    fn opening(&mut self) -> Vec<Value>;
    /// A step as an entry of `choices` of a chunk.
    fn chunk(&mut self, step: &Step) -> Option<Value>;
    /// Puts a step into the whole answer.
    fn gather(&mut self, step: &Step);
    /// Entries of `choices` of the whole answer.
    fn choices(&mut self) -> Vec<Value>;
    /// What a whole answer has beside its choices, if anything.
    fn beside(&mut self) -> Option<(&'static str, Value)> {
        None
    }
}

/// What is beside the choices.
#[derive(Debug, Clone)]
pub struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    /// `object` of a chunk and of a whole answer.
    pub objects: (&'static str, &'static str),
}

impl Head {
    fn body(&self, object: &str, choices: &[Value]) -> Value {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }
}

/// The whole answer.
///
/// # Errors
/// A generation that failed.
pub async fn whole(
    head: Head,
    mut steps: Steps,
    mut dialect: impl Dialect,
) -> Result<Response, ApiError> {
    let mut usage = Usage::default();
    while let Some(step) = steps.next().await {
        match step {
            Step::Used(used) => usage.add(used),
            Step::Quiet => {}
            Step::Failed(error) => return Err(error),
            step => dialect.gather(&step),
        }
    }
    let mut body = head.body(head.objects.1, &dialect.choices());
    body["usage"] = usage.body();
    if let Some((name, value)) = dialect.beside() {
        body[name] = value;
    }
    Ok(Json(body).into_response())
}

/// Events as they come. The peer's pace is the stream's: what it does not take is not made into text. With `counted`,
/// comments between them tell how much the request used so far (`tally`).
pub fn stream(
    head: Head,
    steps: Steps,
    mut dialect: impl Dialect,
    include_usage: bool,
    counted: Option<Permit>,
) -> Response {
    let opening: Vec<Bytes> = dialect
        .opening()
        .into_iter()
        .map(|choice| event(&head.body(head.objects.0, &[choice])))
        .collect();
    let state = (head, steps, dialect, Usage::default(), false);
    let rest = stream::unfold(state, move |(head, mut steps, mut dialect, mut usage, done)| {
        let counted = counted.clone();
        async move {
            if done {
                return None;
            }
            loop {
                let (bytes, done) = match steps.next().await {
                    Some(Step::Used(used)) => {
                        usage.add(used);
                        continue;
                    }
                    Some(Step::Quiet) if counted.is_none() => continue,
                    Some(Step::Quiet) => (Bytes::new(), false),
                    // The status is long sent: what can still be told is told in the stream.
                    Some(Step::Failed(error)) => (event(&error.body()), true),
                    Some(step) => match dialect.chunk(&step) {
                        Some(choice) => (event(&head.body(head.objects.0, &[choice])), false),
                        None => continue,
                    },
                    None => (ending(&head, usage, include_usage), true),
                };
                let bytes = match &counted {
                    Some(permit) => [&tally::comment(permit.charged()), &*bytes].concat().into(),
                    None => bytes,
                };
                return Some((bytes, (head, steps, dialect, usage, done)));
            }
        }
    });
    let events = stream::iter(opening).chain(rest).map(Ok::<_, Infallible>);
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}

fn ending(head: &Head, usage: Usage, include_usage: bool) -> Bytes {
    let mut bytes = Vec::new();
    if include_usage {
        let mut body = head.body(head.objects.0, &[]);
        body["usage"] = usage.body();
        bytes.extend(event(&body));
    }
    bytes.extend(b"data: [DONE]\n\n");
    bytes.into()
}

fn event(body: &Value) -> Bytes {
    format!("data: {body}\n\n").into()
}
