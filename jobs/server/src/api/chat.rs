//! `/v1/chat/completions`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    error::ApiError,
    logprobs::{self, TokenLogprob},
    messages::{self, SentMessage},
    parameters, read,
    reply::Step,
    sse::Dialect,
    structured::{self, Structured},
};
use crate::{
    constraint::Grammar,
    service::{Asked, Service},
    text::{
        choice::{Piece, Reading, Tools},
        reasoning::Reasoning,
        template::Context,
        tokenizer::Tokenizer,
    },
};

#[derive(Debug, Deserialize)]
struct ChatRequest {
    messages: Vec<SentMessage>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    logprobs: Option<Value>,
    #[serde(default)]
    top_logprobs: Option<i64>,
    #[serde(default)]
    add_generation_prompt: Option<bool>,
    #[serde(default)]
    chat_template_kwargs: Option<Map<String, Value>>,
    /// Whether thought is told apart (`reasoning_content`); as vLLM, it is unless refused.
    #[serde(default)]
    include_reasoning: Option<bool>,
}

/// Reads a request into what the engine is asked and how its tokens are read.
///
/// # Errors
/// What is wrong with the request, by field.
pub fn read(service: &Service, body: &[u8]) -> Result<Asked, ApiError> {
    let parameters = parameters::read(service, body)?;
    let structured = read::json::<Structured>(body)?;
    let request: ChatRequest = read::json(body)?;
    let logprobs =
        parameters::logprobs("logprobs", request.logprobs.as_ref(), request.top_logprobs)?;
    let messages = messages::read(request.messages)?;
    let choice = tool_choice(request.tools, request.tool_choice)?;
    let mut grammar = structured::grammar(structured)?;
    if let ToolChoice::Forced(tools) = &choice {
        if grammar.is_some() {
            let message =
                "a forced call has its own schema: leave out response_format and guided_*";
            return Err(ApiError::invalid("tool_choice", "invalid_value", message));
        }
        grammar = Some(Grammar::Json(call_schema(tools)));
    }
    let (tools, reads_tools) = match choice {
        ToolChoice::None => (None, Tools::None),
        ToolChoice::Auto(tools) => (Some(tools), Tools::Marked),
        ToolChoice::Forced(tools) => (Some(tools), Tools::Whole),
    };
    let context = Context {
        tools: tools.map(Value::Array),
        add_generation_prompt: request.add_generation_prompt.unwrap_or(true),
        extra: request.chat_template_kwargs.unwrap_or_default(),
    };
    let template = service.template.as_ref().ok_or(crate::text::template::TemplateError::None);
    let prompt = template.and_then(|template| template.render(&messages, &context));
    let prompt = prompt
        .map_err(|error| ApiError::invalid("messages", "chat_template", error.to_string()))?;
    let tokens = service.encode("messages", &prompt, false)?;
    let splits = request.include_reasoning.unwrap_or(true);
    let reading = Reading {
        stops: parameters.stop.clone(),
        show_stop: parameters.show_stop,
        min_tokens: parameters.min_tokens,
        show_special: parameters.show_special,
        reasoning: splits.then(|| Reasoning::behind(&prompt)),
        tools: reads_tools,
    };
    Ok(Asked {
        field: "messages",
        prompts: vec![tokens],
        parameters,
        logprobs,
        grammar,
        reading,
        echo: false,
    })
}

enum ToolChoice {
    None,
    Auto(Vec<Value>),
    /// One of these must be called.
    Forced(Vec<Value>),
}

fn tool_choice(tools: Option<Vec<Value>>, choice: Option<Value>) -> Result<ToolChoice, ApiError> {
    let tools = tools.unwrap_or_default();
    for (at, tool) in tools.iter().enumerate() {
        if name(tool).is_none() {
            let message = "expected {\"type\": \"function\", \"function\": {\"name\": ..., \"parameters\": {...}}}";
            return Err(ApiError::invalid(format!("tools[{at}]"), "invalid_value", message));
        }
    }
    let wrong = |message: String| Err(ApiError::invalid("tool_choice", "invalid_value", message));
    match choice.unwrap_or(Value::Null) {
        Value::Null if tools.is_empty() => Ok(ToolChoice::None),
        Value::Null => Ok(ToolChoice::Auto(tools)),
        Value::String(word) if word == "none" || (word == "auto" && tools.is_empty()) => {
            Ok(ToolChoice::None)
        }
        Value::String(word) if word == "auto" => Ok(ToolChoice::Auto(tools)),
        Value::String(word) if word == "required" && tools.is_empty() => {
            wrong("required, but no tools".to_owned())
        }
        Value::String(word) if word == "required" => Ok(ToolChoice::Forced(tools)),
        choice => {
            let wanted = name(&choice).map(str::to_owned);
            let Some(wanted) = wanted else {
                return wrong(format!(
                    "{choice}, expected none, auto, required or a function's name"
                ));
            };
            let found: Vec<Value> =
                tools.into_iter().filter(|tool| name(tool) == Some(&wanted)).collect();
            if found.is_empty() {
                return wrong(format!("{wanted} is none of the tools"));
            }
            Ok(ToolChoice::Forced(found))
        }
    }
}

fn name(tool: &Value) -> Option<&str> {
    tool["function"]["name"].as_str().filter(|name| !name.is_empty())
}

/// An answer that is a call of one of the tools.
fn call_schema(tools: &[Value]) -> Value {
    let calls = tools.iter().map(|tool| {
        let any = json!({"type": "object"});
        let parameters =
            tool["function"].get("parameters").filter(|it| it.is_object()).unwrap_or(&any);
        json!({
            "type": "object",
            "properties": {"name": {"const": name(tool)}, "arguments": parameters},
            "required": ["name", "arguments"],
            "additionalProperties": false,
        })
    });
    json!({"anyOf": calls.collect::<Vec<_>>()})
}

/// How chats are worded.
#[derive(Debug)]
pub struct Chat {
    pub tokenizer: std::sync::Arc<Tokenizer>,
    pub wants_logprobs: bool,
    /// Makes ids of calls.
    pub id: String,
    pub messages: Vec<Gathered>,
    /// How many likeliest tokens are told beside each of the prompt's, and what was.
    prompt_logprobs: Option<usize>,
    prompt: Value,
}

/// What a choice said so far.
#[derive(Debug, Default)]
pub struct Gathered {
    content: Option<String>,
    reasoning: Option<String>,
    calls: Vec<Value>,
    logprobs: Vec<Value>,
    reason: Option<&'static str>,
}

impl Chat {
    pub fn new(service: &Service, asked: &Asked, id: &str) -> Self {
        let messages = (0..asked.choices()).map(|_| Gathered::default()).collect();
        let (tokenizer, wants_logprobs) = (service.tokenizer.clone(), asked.logprobs.is_some());
        let prompt_logprobs = asked.parameters.prompt_logprobs;
        let (id, prompt) = (id.to_owned(), Value::Null);
        Self { tokenizer, wants_logprobs, id, messages, prompt_logprobs, prompt }
    }

    fn logprobs(&self, tokens: &[TokenLogprob]) -> Vec<Value> {
        let one = |token: u32, logprob: f32| {
            let bytes = self.tokenizer.bytes(token).unwrap_or_default();
            json!({"token": String::from_utf8_lossy(bytes), "logprob": logprobs::told(logprob), "bytes": bytes})
        };
        let entry = |it: &TokenLogprob| {
            let mut entry = one(it.token, it.logprob.unwrap_or_default());
            entry["top_logprobs"] =
                it.top.iter().map(|(token, logprob)| one(*token, *logprob)).collect();
            entry
        };
        tokens.iter().map(entry).collect()
    }

    fn call(&self, choice: usize, number: usize, piece: &crate::text::tools::ToolCall) -> Value {
        json!({
            "id": format!("call_{}_{choice}_{number}", self.id.trim_start_matches("chatcmpl-")),
            "type": "function",
            "function": {"name": piece.name, "arguments": piece.arguments},
        })
    }
}

impl Dialect for Chat {
    fn opening(&mut self) -> Vec<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        let choice = |index| json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
        (0..self.messages.len()).map(choice).collect()
    }

    fn chunk(&mut self, step: &Step) -> Option<Value> {
        let (index, delta, logprobs, reason) = match step {
            Step::Said { choice, pieces, logprobs } => {
                let mut delta = Map::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => append(&mut delta, "content", text),
                        Piece::Reasoning(text) => append(&mut delta, "reasoning_content", text),
                        Piece::Call(call) => {
                            let number = self.messages[*choice].calls.len();
                            let mut call = self.call(*choice, number, call);
                            self.messages[*choice].calls.push(Value::Null);
                            call["index"] = number.into();
                            let calls = delta.entry("tool_calls").or_insert_with(|| json!([]));
                            calls.as_array_mut().expect("made above").push(call);
                        }
                    }
                }
                (choice, Value::Object(delta), self.logprobs(logprobs), Value::Null)
            }
            Step::Finished { choice, reason } => (choice, json!({}), Vec::new(), json!(reason)),
            Step::Prompt { .. } | Step::Quiet | Step::Used(_) | Step::Failed(_) => return None,
        };
        let logprobs = if logprobs.is_empty() { Value::Null } else { json!({"content": logprobs}) };
        Some(json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}))
    }

    fn gather(&mut self, step: &Step) {
        match step {
            Step::Prompt { logprobs, .. } => {
                let count = self.prompt_logprobs.unwrap_or(0);
                self.prompt = logprobs::of_prompt(&self.tokenizer, logprobs, count);
            }
            Step::Said { choice, pieces, logprobs } => {
                let logprobs = self.logprobs(logprobs);
                self.messages[*choice].logprobs.extend(logprobs);
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => {
                            self.messages[*choice].content.get_or_insert_default().push_str(text);
                        }
                        Piece::Reasoning(text) => {
                            self.messages[*choice].reasoning.get_or_insert_default().push_str(text);
                        }
                        Piece::Call(call) => {
                            let call = self.call(*choice, self.messages[*choice].calls.len(), call);
                            self.messages[*choice].calls.push(call);
                        }
                    }
                }
            }
            Step::Finished { choice, reason } => self.messages[*choice].reason = Some(reason),
            Step::Quiet | Step::Used(_) | Step::Failed(_) => {}
        }
    }

    fn beside(&mut self) -> Option<(&'static str, Value)> {
        self.prompt_logprobs.map(|_| ("prompt_logprobs", self.prompt.take()))
    }

    fn choices(&mut self) -> Vec<Value> {
        let wants_logprobs = self.wants_logprobs;
        let messages = std::mem::take(&mut self.messages);
        let choice = |(index, gathered): (usize, Gathered)| {
            // Content is null only beside calls: clients take its length.
            let content = gathered.content.or_else(|| gathered.calls.is_empty().then(String::new));
            let mut message = json!({"role": "assistant", "content": content});
            if let Some(reasoning) = gathered.reasoning {
                message["reasoning_content"] = reasoning.into();
            }
            if !gathered.calls.is_empty() {
                message["tool_calls"] = gathered.calls.into();
            }
            let logprobs = wants_logprobs.then(|| json!({"content": gathered.logprobs}));
            json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": gathered.reason})
        };
        messages.into_iter().enumerate().map(choice).collect()
    }
}

fn append(delta: &mut Map<String, Value>, key: &str, text: &str) {
    let before = delta.get(key).and_then(Value::as_str).unwrap_or_default();
    let both = format!("{before}{text}");
    delta.insert(key.to_owned(), both.into());
}
