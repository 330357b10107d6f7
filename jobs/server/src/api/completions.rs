//! `/v1/completions`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    error::ApiError,
    parameters::{self, Fields},
    read,
    reply::{Step, TokenLogprob},
    sse::Dialect,
    structured::{self, Structured},
};
use crate::{
    limits,
    service::{Asked, Service},
    text::{
        choice::{Piece, Reading},
        tokenizer::Tokenizer,
    },
};

/// What OpenAI gives when nobody says how much.
const DEFAULT_TOKENS: usize = 16;

#[derive(Debug, Deserialize)]
struct CompletionRequest {
    prompt: Prompt,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    logprobs: Option<Value>,
    #[serde(default)]
    add_special_tokens: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a text, a list of texts, a list of token ids or a list of such lists"
)]
enum Prompt {
    Text(String),
    Tokens(Vec<u64>),
    Texts(Vec<String>),
    Lists(Vec<Vec<u64>>),
}

/// Reads a request into what the engine is asked and how its tokens are read.
///
/// # Errors
/// What is wrong with the request, by field.
pub fn read(service: &Service, body: &[u8]) -> Result<Asked, ApiError> {
    let mut parameters = read::json::<Fields>(body)?.check(service.tokenizer.vocab())?;
    let grammar = structured::grammar(read::json::<Structured>(body)?)?;
    let request: CompletionRequest = read::json(body)?;
    if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(parameters::unsupported("suffix"));
    }
    let logprobs = parameters::logprobs("logprobs", request.logprobs.as_ref(), None)?;
    let echo = request.echo.unwrap_or(false);
    if echo && logprobs.is_some() {
        return Err(parameters::unsupported("echo together with logprobs"));
    }
    parameters.max_tokens.get_or_insert(DEFAULT_TOKENS);
    let special = request.add_special_tokens.unwrap_or(true);
    let text = |text: &String| service.encode("prompt", text, special);
    let vocab = service.tokenizer.vocab();
    let tokens =
        |ids: &Vec<u64>| ids.iter().map(|id| parameters::known("prompt", *id, vocab)).collect();
    let prompts: Vec<Vec<u32>> = match &request.prompt {
        Prompt::Text(one) => vec![text(one)?],
        Prompt::Texts(all) => all.iter().map(text).collect::<Result<_, _>>()?,
        Prompt::Tokens(one) => vec![tokens(one)?],
        Prompt::Lists(all) => all.iter().map(tokens).collect::<Result<_, _>>()?,
    };
    if prompts.is_empty() || prompts.len() > limits::PROMPTS_MAX {
        let message = format!("{} prompts, expected 1 to {}", prompts.len(), limits::PROMPTS_MAX);
        return Err(ApiError::invalid("prompt", "invalid_value", message));
    }
    let reading = Reading {
        stops: parameters.stop.clone(),
        show_stop: parameters.show_stop,
        show_special: parameters.show_special,
        ..Reading::default()
    };
    Ok(Asked { field: "prompt", prompts, parameters, logprobs, grammar, reading, echo })
}

/// How completions are worded.
#[derive(Debug)]
pub struct Completion {
    tokenizer: Arc<Tokenizer>,
    wants_logprobs: bool,
    choices: Vec<Gathered>,
    /// Texts of prompts that are told before the answers, one for each choice.
    echoed: Vec<String>,
}

#[derive(Debug, Default)]
struct Gathered {
    text: String,
    logprobs: Vec<TokenLogprob>,
    /// Characters of all tokens told so far.
    offset: usize,
    reason: Option<&'static str>,
}

impl Completion {
    pub fn new(service: &Service, asked: &Asked) -> Self {
        let n = asked.parameters.n;
        let echoed = |prompt: &Vec<u32>| vec![service.tokenizer.decode(prompt, true); n];
        let echoed =
            if asked.echo { asked.prompts.iter().flat_map(echoed).collect() } else { Vec::new() };
        let choices = (0..asked.choices()).map(|_| Gathered::default()).collect();
        Self {
            tokenizer: service.tokenizer.clone(),
            wants_logprobs: asked.logprobs.is_some(),
            choices,
            echoed,
        }
    }

    fn logprobs(&mut self, choice: usize, tokens: &[TokenLogprob]) -> Value {
        let text = |token: u32| self.tokenizer.decode(&[token], false);
        let (mut texts, mut logprobs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
        let mut offset = self.choices[choice].offset;
        for it in tokens {
            let shown = text(it.token);
            offsets.push(offset);
            offset += shown.chars().count();
            texts.push(shown);
            logprobs.push(it.logprob.max(-9999.0));
            let top =
                it.top.iter().map(|(token, logprob)| (text(*token), json!(logprob.max(-9999.0))));
            tops.push(Value::Object(top.collect::<Map<_, _>>()));
        }
        self.choices[choice].offset = offset;
        json!({"tokens": texts, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets})
    }
}

impl Dialect for Completion {
    fn opening(&mut self) -> Vec<Value> {
        let mut opening = Vec::new();
        for (index, text) in std::mem::take(&mut self.echoed).into_iter().enumerate() {
            opening.push(
                json!({"index": index, "text": text, "logprobs": null, "finish_reason": null}),
            );
        }
        opening
    }

    fn chunk(&mut self, step: &Step) -> Option<Value> {
        match step {
            Step::Said { choice, pieces, logprobs } => {
                let wants = self.wants_logprobs;
                let logprobs = wants.then(|| self.logprobs(*choice, logprobs));
                let text = text_of(pieces);
                Some(
                    json!({"index": choice, "text": text, "logprobs": logprobs, "finish_reason": null}),
                )
            }
            Step::Finished { choice, reason } => Some(
                json!({"index": choice, "text": "", "logprobs": null, "finish_reason": reason}),
            ),
            Step::Used(_) | Step::Failed(_) => None,
        }
    }

    fn gather(&mut self, step: &Step) {
        match step {
            Step::Said { choice, pieces, logprobs } => {
                self.choices[*choice].text.push_str(&text_of(pieces));
                self.choices[*choice].logprobs.extend(logprobs.iter().cloned());
            }
            Step::Finished { choice, reason } => self.choices[*choice].reason = Some(reason),
            Step::Used(_) | Step::Failed(_) => {}
        }
    }

    fn choices(&mut self) -> Vec<Value> {
        let mut entries = Vec::new();
        for index in 0..self.choices.len() {
            let tokens = std::mem::take(&mut self.choices[index].logprobs);
            let logprobs =
                if self.wants_logprobs { self.logprobs(index, &tokens) } else { Value::Null };
            let echoed = self.echoed.get(index).map_or("", String::as_str);
            let gathered = &self.choices[index];
            let text = format!("{echoed}{}", gathered.text);
            entries.push(json!({
                "index": index, "text": text, "logprobs": logprobs, "finish_reason": gathered.reason,
            }));
        }
        entries
    }
}

/// Completions know neither thought nor calls.
fn text_of(pieces: &[Piece]) -> String {
    let text = |piece: &Piece| match piece {
        Piece::Text(text) | Piece::Reasoning(text) => text.clone(),
        Piece::Call(call) => call.arguments.clone(),
    };
    pieces.iter().map(text).collect()
}
