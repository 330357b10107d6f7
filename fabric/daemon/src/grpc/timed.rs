//! Lists and times each gRPC call of a service, in one place for all of them.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::http::{Request, Response};
use tonic::{Code, body::Body, codegen::Service, server::NamedService};

use crate::Operations;

/// The service `S` with its calls timed.
#[derive(Clone, Debug)]
pub struct Timed<S> {
    pub inner: S,
    pub operations: Operations,
    /// gRPC's method names, and the same in the words of metrics; the last is that of any other.
    pub calls: &'static [(&'static str, &'static str)],
}

impl<S: NamedService> NamedService for Timed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, R> Service<Request<Body>> for Timed<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let operation = self.operations.begin(operation(self.calls, request.uri().path()), "");
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // Our calls answer once, so a failure is in the headers already.
            let status = answer.headers().get("grpc-status");
            if status.is_some_and(|status| Code::from_bytes(status.as_bytes()) != Code::Ok) {
                operation.failed();
            }
            Ok(answer)
        })
    }
}

/// `/package.Service/Method` as an operation's name.
fn operation(calls: &'static [(&'static str, &'static str)], path: &str) -> &'static str {
    let method = path.rsplit('/').next().unwrap_or_default();
    let known = calls.iter().find(|(call, _)| *call == method).or(calls.last());
    known.map_or("unknown", |(_, operation)| operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_their_names() {
        let calls: &[(&str, &str)] = &[("Submit", "submit"), ("", "other")];
        assert_eq!(operation(calls, "/ff2.v1.X/Submit"), "submit");
        assert_eq!(operation(calls, "/x/Y"), "other");
    }
}
