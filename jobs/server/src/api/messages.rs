//! The messages of a chat, from OpenAI's form to that of templates.

use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;
use crate::text::template::Message;

#[derive(Debug, Clone, Deserialize)]
pub struct SentMessage {
    role: String,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    tool_calls: Option<Value>,
    #[serde(default)]
    tool_call_id: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of parts")]
enum Content {
    Text(String),
    Parts(Vec<Value>),
}

/// The messages as the template sees them. `developer` is what OpenAI calls `system` now.
///
/// # Errors
/// No messages, an unknown role, content that is no text.
pub fn read(sent: Vec<SentMessage>) -> Result<Vec<Message>, ApiError> {
    if sent.is_empty() {
        return Err(ApiError::invalid(
            "messages",
            "invalid_value",
            "messages is empty, expected one at least",
        ));
    }
    sent.into_iter()
        .enumerate()
        .map(|(at, message)| one(&format!("messages[{at}]"), message))
        .collect()
}

fn one(path: &str, sent: SentMessage) -> Result<Message, ApiError> {
    let role = match sent.role.as_str() {
        "developer" => "system".to_owned(),
        "system" | "user" | "assistant" | "tool" => sent.role,
        other => {
            let message =
                format!("role {other:?}, expected system, developer, user, assistant or tool");
            return Err(ApiError::invalid(format!("{path}.role"), "invalid_value", message));
        }
    };
    let content = match sent.content {
        None => None,
        Some(Content::Text(text)) => Some(text),
        Some(Content::Parts(parts)) => Some(text_of(path, &parts)?),
    };
    let calls =
        sent.tool_calls.filter(|calls| calls.as_array().is_some_and(|calls| !calls.is_empty()));
    if content.is_none() && (role != "assistant" || calls.is_none()) {
        let message = format!("a message of role {role} needs content");
        return Err(ApiError::invalid(format!("{path}.content"), "invalid_value", message));
    }
    let (reasoning_content, name, tool_call_id) =
        (sent.reasoning_content, sent.name, sent.tool_call_id);
    Ok(Message { role, content, reasoning_content, name, tool_calls: calls, tool_call_id })
}

fn text_of(path: &str, parts: &[Value]) -> Result<String, ApiError> {
    let mut texts = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let path = format!("{path}.content[{at}]");
        match (part["type"].as_str(), part["text"].as_str(), part.as_str()) {
            (_, _, Some(text)) | (Some("text"), Some(text), _) => texts.push(text),
            (Some(kind), _, _) if kind != "text" => {
                let message = format!("a part of type {kind:?}, but this model reads text only");
                return Err(ApiError::invalid(
                    format!("{path}.type"),
                    "unsupported_content",
                    message,
                ));
            }
            _ => {
                let message = "expected {\"type\": \"text\", \"text\": ...}";
                return Err(ApiError::invalid(path, "invalid_value", message));
            }
        }
    }
    Ok(texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Deserialize)]
    struct Request {
        messages: Vec<SentMessage>,
    }

    fn messages(sent: Value) -> Result<Vec<Message>, ApiError> {
        let body = json!({ "messages": sent }).to_string();
        read(crate::api::read::json::<Request>(body.as_bytes())?.messages)
    }

    #[test]
    fn text_in_any_form_is_text() {
        let read = messages(json!([
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "content": "4", "tool_call_id": "1"},
        ]));
        let read = read.unwrap();
        assert_eq!(read[0].role, "system");
        assert_eq!(read[1].content.as_deref(), Some("a\nb"));
        assert_eq!(read[3].tool_call_id.as_deref(), Some("1"));
    }

    #[test]
    fn what_is_no_text_is_refused_by_its_place() {
        let image = json!({"type": "image_url", "image_url": {"url": "data:,x"}});
        for (sent, param) in [
            (json!([]), "messages"),
            (json!([{"role": "user", "content": [image]}]), "messages[0].content[0].type"),
            (
                json!([{"role": "user", "content": "a"}, {"role": "wizard", "content": "b"}]),
                "messages[1].role",
            ),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": 5}]), "messages[0].content"),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0]"),
        ] {
            let error = messages(sent.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{sent}");
        }
    }
}
