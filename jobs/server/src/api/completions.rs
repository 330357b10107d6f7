//! `/v1/completions`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    error::ApiError,
    logprobs::{self, TokenLogprob},
    parameters, read,
    reply::Step,
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
    let mut parameters = parameters::read(service, body)?;
    let grammar = structured::grammar(read::json::<Structured>(body)?)?;
    let request: CompletionRequest = read::json(body)?;
    if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(parameters::unsupported("suffix"));
    }
    let logprobs = parameters::logprobs("logprobs", request.logprobs.as_ref(), None)?;
    let echo = request.echo.unwrap_or(false);
    parameters.max_tokens.get_or_insert(DEFAULT_TOKENS.max(parameters.min_tokens));
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
        min_tokens: parameters.min_tokens,
        show_special: parameters.show_special,
        ..Reading::default()
    };
    Ok(Asked { field: "prompt", prompts, parameters, logprobs, grammar, reading, echo })
}

/// How completions are worded.
#[derive(Debug)]
pub struct Completion {
    tokenizer: Arc<Tokenizer>,
    /// How many likeliest tokens are told beside each.
    logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    choices: Vec<Gathered>,
    /// Texts of prompts that are told before the answers, one for each choice.
    echoed: Vec<String>,
}

#[derive(Debug, Default)]
struct Gathered {
    text: String,
    /// Of the prompt, if they were asked for.
    prompt: Arc<[TokenLogprob]>,
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
            logprobs: asked.logprobs,
            prompt_logprobs: asked.parameters.prompt_logprobs,
            choices,
            echoed,
        }
    }

    /// None where they were not asked for.
    fn logprobs<'a>(
        &mut self,
        choice: usize,
        tokens: impl IntoIterator<Item = &'a TokenLogprob>,
    ) -> Option<Value> {
        let count = self.logprobs?;
        let text = |token: u32| self.tokenizer.decode(&[token], false);
        let (mut texts, mut values, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
        let mut offset = self.choices[choice].offset;
        for it in tokens {
            let shown = text(it.token);
            offsets.push(offset);
            offset += shown.chars().count();
            texts.push(shown);
            values.push(it.logprob.map(logprobs::told));
            let top = it.top.iter().take(count);
            let top = top.map(|(token, logprob)| (text(*token), json!(logprobs::told(*logprob))));
            tops.push(it.logprob.map(|_| top.collect::<Map<_, _>>()));
        }
        self.choices[choice].offset = offset;
        Some(
            json!({"tokens": texts, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}),
        )
    }
}

impl Dialect for Completion {
    fn opening(&mut self) -> Vec<Value> {
        let mut opening = Vec::new();
        if self.logprobs.is_some() {
            // The prompt is told once its log-probabilities are there.
            return opening;
        }
        for (index, text) in std::mem::take(&mut self.echoed).into_iter().enumerate() {
            opening.push(
                json!({"index": index, "text": text, "logprobs": null, "finish_reason": null}),
            );
        }
        opening
    }

    fn chunk(&mut self, step: &Step) -> Option<Value> {
        match step {
            Step::Prompt { choice, logprobs } => {
                let text = std::mem::take(self.echoed.get_mut(*choice)?);
                let logprobs = self.logprobs(*choice, logprobs.iter());
                Some(
                    json!({"index": choice, "text": text, "logprobs": logprobs, "finish_reason": null}),
                )
            }
            Step::Said { choice, pieces, logprobs } => {
                let logprobs = self.logprobs(*choice, logprobs);
                let text = text_of(pieces);
                Some(
                    json!({"index": choice, "text": text, "logprobs": logprobs, "finish_reason": null}),
                )
            }
            Step::Finished { choice, reason } => Some(
                json!({"index": choice, "text": "", "logprobs": null, "finish_reason": reason}),
            ),
            Step::Quiet | Step::Used(_) | Step::Failed(_) => None,
        }
    }

    fn gather(&mut self, step: &Step) {
        match step {
            Step::Prompt { choice, logprobs } => self.choices[*choice].prompt = logprobs.clone(),
            Step::Said { choice, pieces, logprobs } => {
                self.choices[*choice].text.push_str(&text_of(pieces));
                self.choices[*choice].logprobs.extend(logprobs.iter().cloned());
            }
            Step::Finished { choice, reason } => self.choices[*choice].reason = Some(reason),
            Step::Quiet | Step::Used(_) | Step::Failed(_) => {}
        }
    }

    fn choices(&mut self) -> Vec<Value> {
        let mut entries = Vec::new();
        for index in 0..self.choices.len() {
            let said = std::mem::take(&mut self.choices[index].logprobs);
            let prompt = std::mem::take(&mut self.choices[index].prompt);
            let shown = if self.echoed.is_empty() { &[] } else { &prompt[..] };
            let logprobs = self.logprobs(index, shown.iter().chain(&said));
            let echoed = self.echoed.get(index).map_or("", String::as_str);
            let gathered = &self.choices[index];
            let text = format!("{echoed}{}", gathered.text);
            let mut entry = json!({
                "index": index, "text": text, "logprobs": logprobs, "finish_reason": gathered.reason,
            });
            if let Some(count) = self.prompt_logprobs {
                entry["prompt_logprobs"] = logprobs::of_prompt(&self.tokenizer, &prompt, count);
            }
            entries.push(entry);
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
