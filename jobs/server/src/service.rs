//! The model that is served, and the way of a request through it: tokens in, an answer out.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{http::HeaderName, response::Response};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ff2_engine::{Constraint, Engine, EngineError, EngineOptions, Refused, Request};
use ff2_model::Model;
use futures::stream;
use serde_json::Value;

use crate::{
    api::{
        error::ApiError,
        parameters::Parameters,
        reply::{Reply, ReplyOptions},
        sse::{self, Dialect, Head, Steps},
    },
    constraint::{Grammar, Grammars},
    guard::permit::Permit,
    metrics::RequestMetrics,
    text::{
        choice::Reading,
        template::{ChatTemplate, TemplateError},
        tokenizer::{Tokenizer, TokenizerError},
    },
};

/// Header of an answer: tokens of all its prompts. A router counts them for the key that it checked, as soon as there
/// is an answer.
pub const PROMPT_TOKENS: HeaderName = HeaderName::from_static("ff2-prompt-tokens");

/// See the module.
#[derive(Debug)]
pub struct Service {
    pub engine: Engine,
    pub tokenizer: Arc<Tokenizer>,
    pub template: Option<ChatTemplate>,
    /// Or why nothing can be constrained: the model cannot end a text.
    pub grammars: Result<Grammars, String>,
    /// The first is the one that answers name.
    pub names: Vec<String>,
    /// Tokens that end a text.
    pub ends: Vec<u32>,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// Choices that are generated at once.
    pub slots: usize,
    /// Streams tell a router what they used.
    pub tells_use: bool,
    pub metrics: Arc<RequestMetrics>,
    pub started: SystemTime,
}

/// What an operator chooses of a service.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// One at least.
    pub names: Vec<String>,
    /// None: what the model was made for. The KV cache may allow less.
    pub context: Option<usize>,
    /// Streams tell a router what they used.
    pub tells_use: bool,
    pub engine: EngineOptions,
}

/// Why a model is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A request as read: what the engine is asked, and how its tokens are told.
#[derive(Debug)]
pub struct Asked {
    /// The field of the request that prompts come from.
    pub field: &'static str,
    pub prompts: Vec<Vec<u32>>,
    pub parameters: Parameters,
    pub logprobs: Option<usize>,
    pub grammar: Option<Grammar>,
    pub reading: Reading,
    /// The prompt is told before the answer.
    pub echo: bool,
}

impl Asked {
    pub fn choices(&self) -> usize {
        self.prompts.len() * self.parameters.n
    }

    /// Likeliest tokens that are wanted beside each of the prompt's: in a field of their own, in the echo, or both.
    fn prompt_logprobs(&self) -> Option<usize> {
        self.parameters.prompt_logprobs.max(self.logprobs.filter(|_| self.echo))
    }
}

impl Service {
    /// Reads what else is in the model's folder and starts the engine.
    ///
    /// # Errors
    /// A tokenizer or template that cannot be used, options that the engine refuses.
    pub fn open(
        folder: &Path,
        model: Arc<Model>,
        options: ServiceOptions,
    ) -> Result<Self, ServiceError> {
        let tokenizer = Arc::new(Tokenizer::read(folder, model.config().vocab)?);
        let template = ChatTemplate::read(folder)?;
        let ends = ends(folder, &model, &tokenizer);
        let grammars = Grammars::new(tokenizer.clone(), &ends);
        let most = model.config().max_positions;
        let slots = options.engine.max_running;
        let engine = Engine::start(model, options.engine)?;
        let context = options.context.unwrap_or(most).min(most).min(engine.tokens_max());
        let (names, metrics, started) = (options.names, Arc::default(), SystemTime::now());
        Ok(Self {
            engine,
            tokenizer,
            template,
            grammars,
            names,
            ends,
            context,
            slots,
            tells_use: options.tells_use,
            metrics,
            started,
        })
    }

    /// # Errors
    /// A text (of this field) that the tokenizer does not take, or one too long even before it is tokens.
    pub fn encode(&self, field: &str, text: &str, special: bool) -> Result<Vec<u32>, ApiError> {
        // The longest token bounds the context in bytes; what is longer would cost time for nothing.
        let longest = self.tokenizer.all_bytes().iter().map(Vec::len).max().unwrap_or(1);
        if text.len() > self.context.saturating_mul(longest) {
            return Err(self.too_long(field, text.len() / longest));
        }
        self.tokenizer
            .encode(text, special)
            .map_err(|error| ApiError::invalid(field, "invalid_value", error))
    }

    /// A name that is not served is told from a wrong request.
    ///
    /// # Errors
    /// 404.
    pub fn check_name(&self, name: Option<&str>) -> Result<(), ApiError> {
        let Some(name) = name.filter(|name| !self.names.iter().any(|served| served == name)) else {
            return Ok(());
        };
        let message = format!("there is no model {name:?}; served is {}", self.names.join(", "));
        let status = axum::http::StatusCode::NOT_FOUND;
        let error = ApiError::new(status, "invalid_request_error", "model_not_found", message);
        Err(ApiError { param: Some("model".to_owned()), ..error })
    }

    fn too_long(&self, field: &str, tokens: usize) -> ApiError {
        let message = format!(
            "the prompt has {tokens} tokens or more; this model's context is {} tokens, the answer included",
            self.context
        );
        ApiError::invalid(field, "context_length_exceeded", message)
    }

    /// Puts all prompts to the engine and answers.
    ///
    /// # Errors
    /// What is refused, or failed before anything was told.
    pub async fn answer(
        self: &Arc<Self>,
        asked: Asked,
        head: Head,
        dialect: impl Dialect,
        permit: Permit,
    ) -> Result<Response, ApiError> {
        let begun = Instant::now();
        let constraint = self.compile(&asked).await?;
        let (stream, include_usage) = (asked.parameters.stream, asked.parameters.include_usage);
        let mut replies: Vec<Steps> = Vec::new();
        for (number, prompt) in asked.prompts.iter().enumerate() {
            let room = self.context.saturating_sub(prompt.len());
            if room == 0 {
                return Err(self.too_long(asked.field, prompt.len()));
            }
            let request = self.request(&asked, prompt.clone(), room, constraint.as_deref());
            let generation = self
                .engine
                .submit(request)
                .map_err(|refused| self.refused(asked.field, refused))?;
            permit.charge(prompt.len());
            let reply = Reply::new(
                generation,
                ReplyOptions {
                    tokenizer: self.tokenizer.clone(),
                    ends: self.ends_of(&asked.parameters),
                    first: number * asked.parameters.n,
                    n: asked.parameters.n,
                    wants_logprobs: asked.logprobs.is_some(),
                    reading: asked.reading.clone(),
                    permit: permit.clone(),
                    metrics: self.metrics.clone(),
                    begun,
                },
            );
            replies.push(Box::pin(reply.steps()));
        }
        let steps: Steps = Box::pin(stream::select_all(replies));
        let mut response = match stream {
            true => {
                let counted = self.tells_use.then_some(permit);
                sse::stream(head, steps, dialect, include_usage, counted)
            }
            false => sse::whole(head, steps, dialect).await?,
        };
        let tokens: usize = asked.prompts.iter().map(Vec::len).sum();
        response.headers_mut().insert(PROMPT_TOKENS, tokens.into());
        Ok(response)
    }

    /// Compiling is arithmetic for milliseconds: not on a thread that serves connections.
    async fn compile(
        self: &Arc<Self>,
        asked: &Asked,
    ) -> Result<Option<Box<dyn Constraint>>, ApiError> {
        let Some(grammar) = asked.grammar.clone() else { return Ok(None) };
        let service = self.clone();
        let thinking = asked.reading.reasoning.as_ref().is_some_and(|it| it.is_thinking());
        let compiled = tokio::task::spawn_blocking(move || {
            let grammars = service.grammars.as_ref().map_err(Clone::clone)?;
            grammars.compile(&grammar, thinking)
        });
        let compiled = compiled.await.map_err(|error| ApiError::internal(error.to_string()))?;
        let refused = |error| ApiError::invalid("response_format", "invalid_grammar", error);
        compiled.map(Some).map_err(refused)
    }

    fn ends_of(&self, parameters: &Parameters) -> BTreeSet<u32> {
        let eos = self.ends.iter().filter(|_| !parameters.ignore_eos);
        eos.chain(&parameters.stop_token_ids).copied().collect()
    }

    fn request(
        &self,
        asked: &Asked,
        prompt: Vec<u32>,
        room: usize,
        constraint: Option<&dyn Constraint>,
    ) -> Request {
        let it = &asked.parameters;
        let max_tokens = it.max_tokens.unwrap_or(room).min(room);
        Request {
            prompt,
            n: it.n,
            max_tokens,
            min_tokens: it.min_tokens.min(max_tokens),
            ignore_eos: it.ignore_eos,
            stop_tokens: self.ends_of(it).into_iter().collect(),
            logprobs: asked.logprobs,
            prompt_logprobs: asked.prompt_logprobs(),
            sampling: it.sampling.clone(),
            constraint: constraint.map(Constraint::boxed_clone),
        }
    }

    fn refused(&self, field: &str, refused: Refused) -> ApiError {
        match refused {
            Refused::QueueFull { retry_after } => ApiError::too_many(
                "queue_full",
                "the server is at its limit of waiting requests",
                retry_after,
            ),
            Refused::TooLong { tokens, .. } => self.too_long(field, tokens),
            Refused::Stopping => ApiError::unavailable("this server is stopping"),
            Refused::Invalid(why) => ApiError::invalid(field, "invalid_value", why),
        }
    }

    /// `prefix` is `chatcmpl-` or `cmpl-`.
    pub fn head(&self, prefix: &str, objects: (&'static str, &'static str)) -> Head {
        let mut bytes = [0; 12];
        // Without randomness an id is not unique, which only logs of clients would notice.
        let _ = getrandom::fill(&mut bytes);
        let id = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes));
        Head { id, created: seconds(SystemTime::now()), model: self.names[0].clone(), objects }
    }
}

/// Tokens that end a text: those of config.json, and those of generation_config.json, where tuned models have more.
fn ends(folder: &Path, model: &Model, tokenizer: &Tokenizer) -> Vec<u32> {
    let file = std::fs::read(folder.join("generation_config.json")).unwrap_or_default();
    let value: Value = serde_json::from_slice(&file).unwrap_or_default();
    let more = match &value["eos_token_id"] {
        Value::Array(all) => all.iter().filter_map(Value::as_u64).collect(),
        one => one.as_u64().into_iter().collect::<Vec<_>>(),
    };
    let more = more.into_iter().filter_map(|id| u32::try_from(id).ok());
    let all: BTreeSet<u32> = model.config().eos.iter().copied().chain(more).collect();
    all.into_iter().filter(|id| (*id as usize) < tokenizer.vocab()).collect()
}

/// Since 1970.
pub fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
