//! Which services a server offers, and how a method number finds its service.

use std::{collections::BTreeMap, fmt};

use crate::{
    rpc::{Method, ReplyFuture, Request, Service, no_such_method},
    stubs::method,
};

/// The services of one server.
#[derive(Default)]
pub struct Router {
    services: BTreeMap<u8, Box<dyn Service>>,
}

impl Router {
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers one more service.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "it adds a service, not a number")]
    pub fn add(mut self, service: impl Service) -> Self {
        let before = self.services.insert(service.number(), Box::new(service));
        assert!(before.is_none(), "a service is offered once");
        self
    }

    /// The method, if a service here has it.
    pub(super) fn method(&self, number: u16) -> Option<Method> {
        let known = method::ALL.iter().find(|method| method.number == number)?;
        self.services.contains_key(&service_of(number)).then_some(*known)
    }

    pub(super) fn call(&self, request: Request) -> ReplyFuture {
        match self.services.get(&service_of(request.method)) {
            Some(service) => service.call(request),
            None => Box::pin(async move { Err(no_such_method(request.method)) }),
        }
    }
}

fn service_of(method: u16) -> u8 {
    method.to_be_bytes()[0]
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.services.keys()).finish()
    }
}
