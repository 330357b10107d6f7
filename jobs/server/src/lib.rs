//! An OpenAI-compatible server of one model. Owns text (templates, tokens, reasoning, tools), HTTP, API keys and their
//! limits, the chat page and the metrics; never owns arithmetic or the order in which requests run, which are
//! `ff2-engine`'s. The program `ff2-serve` calls it, and tests do.
//!
//! The story of a request: `net` accepts a connection, `http` finds whose key it is (`guard`) and reads the body, `api`
//! makes it tokens and parameters, `service` submits them to the engine, `api::reply` makes tokens text again (`text`),
//! and `api::sse` tells it, whole or as it comes. Whoever goes away drops the reply, which frees what it held.
//!
//! `route` is a program of its own before several such servers: one address, and a choice who answers.

pub mod api;
pub mod constraint;
pub mod exposition;
pub mod guard;
pub mod http;
pub mod limits;
pub mod load;
pub mod metrics;
pub mod net;
pub mod route;
pub mod service;
pub mod text;
