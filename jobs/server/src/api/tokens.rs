//! `/tokenize` and `/detokenize`, as vLLM has them.

use axum::Json;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    error::ApiError,
    messages::{self, SentMessage},
    parameters::known,
    read,
};
use crate::{
    service::Service,
    text::template::{Context, TemplateError},
};

#[derive(Debug, Deserialize)]
struct Tokenize {
    model: Option<String>,
    prompt: Option<String>,
    messages: Option<Vec<SentMessage>>,
    add_special_tokens: Option<bool>,
    add_generation_prompt: Option<bool>,
    tools: Option<Value>,
    chat_template_kwargs: Option<Map<String, Value>>,
    return_token_strs: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Detokenize {
    model: Option<String>,
    tokens: Vec<u64>,
}

/// # Errors
/// Neither a prompt nor messages, or messages that no prompt can be made of.
pub fn tokenize(service: &Service, body: &[u8]) -> Result<Json<Value>, ApiError> {
    let request: Tokenize = read::json(body)?;
    service.check_name(request.model.as_deref())?;
    let tokens = match (request.prompt, request.messages) {
        (Some(prompt), None) => {
            service.encode("prompt", &prompt, request.add_special_tokens.unwrap_or(true))?
        }
        (None, Some(messages)) => {
            let context = Context {
                tools: request.tools,
                add_generation_prompt: request.add_generation_prompt.unwrap_or(true),
                extra: request.chat_template_kwargs.unwrap_or_default(),
            };
            let messages = messages::read(messages)?;
            let template = service.template.as_ref().ok_or(TemplateError::None);
            let prompt = template.and_then(|template| template.render(&messages, &context));
            let wrong = |error: TemplateError| {
                ApiError::invalid("messages", "chat_template", error.to_string())
            };
            service.encode(
                "messages",
                &prompt.map_err(wrong)?,
                request.add_special_tokens.unwrap_or(false),
            )?
        }
        _ => {
            return Err(ApiError::invalid(
                "prompt",
                "invalid_value",
                "expected either prompt or messages",
            ));
        }
    };
    let mut answer =
        json!({"count": tokens.len(), "max_model_len": service.context, "tokens": tokens});
    if request.return_token_strs.unwrap_or(false) {
        answer["token_strs"] =
            tokens.iter().map(|token| service.tokenizer.decode(&[*token], false)).collect();
    }
    Ok(Json(answer))
}

/// # Errors
/// Tokens that the model has not.
pub fn detokenize(service: &Service, body: &[u8]) -> Result<Json<Value>, ApiError> {
    let request: Detokenize = read::json(body)?;
    service.check_name(request.model.as_deref())?;
    let vocab = service.tokenizer.vocab();
    let tokens: Result<Vec<u32>, _> =
        request.tokens.iter().map(|id| known("tokens", *id, vocab)).collect();
    Ok(Json(json!({"prompt": service.tokenizer.decode(&tokens?, false)})))
}
