//! The chat template of a model: Jinja in `tokenizer_config.json`, rendered the way Python `transformers` sets it up
//! (blocks trimmed, loop controls, `tojson` as `json.dumps`, `raise_exception`, `strftime_now`).

use std::{fs, path::Path};

use minijinja::{
    Environment, Error, ErrorKind, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, ser::Formatter};

/// Name of the template within its environment; without `.html`, so nothing is escaped.
const NAME: &str = "chat";

/// What keeps a template from being used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("cannot read {path}: {detail}")]
    Read { path: String, detail: String },
    #[error("the chat template is no Jinja that is understood here: {0:#}")]
    Syntax(#[source] Error),
    #[error("{0}")]
    Render(String),
    #[error("this model has no chat template (tokenizer_config.json): use /v1/completions")]
    None,
}

/// A message as templates see it. Content is text: this family reads no images.
#[derive(Debug, Clone, Serialize)]
pub struct Message {
    pub role: String,
    pub content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// What a template is rendered with, beside the messages.
#[derive(Debug, Default)]
pub struct Context {
    pub tools: Option<serde_json::Value>,
    /// Begin the assistant's turn.
    pub add_generation_prompt: bool,
    /// `chat_template_kwargs` of a request: flags that a template asks for, such as `thinking`.
    pub extra: Map<String, serde_json::Value>,
}

/// See the module.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token` and so on, by name.
    special: Map<String, serde_json::Value>,
}

/// The parts of `tokenizer_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    chat_template: Option<Templates>,
    #[serde(flatten)]
    rest: Map<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    template: String,
}

impl ChatTemplate {
    /// Of a model's folder: `chat_template.jinja`, or that in `tokenizer_config.json`. None: the model has none.
    ///
    /// # Errors
    /// Files that cannot be read, a template that is no Jinja.
    pub fn read(folder: &Path) -> Result<Option<Self>, TemplateError> {
        let path = folder.join("tokenizer_config.json");
        let error = |path: &Path, detail: String| TemplateError::Read {
            path: path.display().to_string(),
            detail,
        };
        let config: TokenizerConfig = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| error(&path, e.to_string()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => TokenizerConfig::default(),
            Err(e) => return Err(error(&path, e.to_string())),
        };
        let file = folder.join("chat_template.jinja");
        let source = match (fs::read_to_string(&file), config.chat_template) {
            (Ok(source), _) | (Err(_), Some(Templates::One(source))) => source,
            (Err(_), Some(Templates::Named(all))) => {
                let default = all.into_iter().find(|it| it.name == "default");
                default
                    .ok_or_else(|| error(&path, "no template named `default`".to_owned()))?
                    .template
            }
            (Err(_), None) => return Ok(None),
        };
        let special = config.rest.into_iter().filter_map(|(key, value)| {
            let text = value.get("content").cloned().unwrap_or(value);
            (key.ends_with("_token") && text.is_string()).then_some((key, text))
        });
        Self::new(source, special.collect()).map(Some)
    }

    /// `special` are the tokens by the names that templates use.
    ///
    /// # Errors
    /// A source that is no Jinja.
    pub fn new(
        source: String,
        special: Map<String, serde_json::Value>,
    ) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(TemplateError::Syntax)?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", strftime_now);
        environment.add_template_owned(NAME, source).map_err(TemplateError::Syntax)?;
        Ok(Self { environment, special })
    }

    /// The prompt. Special tokens are in it by name; it is encoded without adding any.
    ///
    /// # Errors
    /// What the template raises, for example roles that do not alternate: its words are meant for the caller.
    pub fn render(&self, messages: &[Message], context: &Context) -> Result<String, TemplateError> {
        let mut all = self.special.clone();
        all.extend(context.extra.clone());
        let messages = serde_json::to_value(messages).expect("messages are JSON");
        all.insert("messages".to_owned(), messages);
        all.insert("add_generation_prompt".to_owned(), context.add_generation_prompt.into());
        // Defined also where there are none, as transformers has it.
        all.insert("tools".to_owned(), context.tools.clone().unwrap_or_default());
        all.entry("documents").or_insert(serde_json::Value::Null);
        let template = self.environment.get_template(NAME).expect("it was added above");
        template.render(Value::from(Serde(&all))).map_err(|error| {
            let detail = error.detail().map_or_else(|| error.to_string(), str::to_owned);
            TemplateError::Render(detail)
        })
    }
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn tojson(value: Value, indent: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let indent = options.get::<Option<usize>>("indent")?.or(indent);
    let mut written = Vec::new();
    let outcome = match indent {
        Some(indent) => {
            let spaces = vec![b' '; indent];
            let pretty = serde_json::ser::PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut written, pretty))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut written, Spaced)),
    };
    let wrong = |detail: String| Error::new(ErrorKind::BadSerialization, detail);
    outcome.map_err(|error| wrong(error.to_string()))?;
    String::from_utf8(written).map_err(|error| wrong(error.to_string()))
}

/// Python's separators: a space behind commas and colons.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
    ) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

fn strftime_now(format: &str) -> Result<String, Error> {
    let wrong = |detail: String| Error::new(ErrorKind::InvalidOperation, detail);
    let parsed =
        time::format_description::parse_strftime_owned(format).map_err(|e| wrong(e.to_string()))?;
    // UTC: the local zone of a server means nothing to who asks.
    time::OffsetDateTime::now_utc().format(&parsed).map_err(|e| wrong(e.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(role: &str, content: &str) -> Message {
        let (role, content) = (role.to_owned(), Some(content.to_owned()));
        Message {
            role,
            content,
            reasoning_content: None,
            name: None,
            tool_calls: None,
            tool_call_id: None,
        }
    }

    fn special() -> Map<String, serde_json::Value> {
        Map::from_iter([("bos_token".to_owned(), json!("<s>"))])
    }

    #[test]
    fn templates_render_as_transformers_renders_them() {
        let source = "{{ bos_token }}{% for m in messages %}\n    {% if m['role'] == 'user' %}\n[{{ m.content.strip() \
                      }}]{% else %}\n({{ m['content'].split('</think>')[-1] }}){% endif %}\n{% endfor %}\n\
                      {% if tools is defined %}{{ tools | tojson }}{% endif %}\
                      {% if add_generation_prompt %}>{% endif %}";
        let template = ChatTemplate::new(source.to_owned(), special()).unwrap();
        let messages = [message("user", " hi "), message("assistant", "<think>x</think>yo")];
        // `render_jinja_template` of transformers 5.24 gives exactly these.
        let context = Context { add_generation_prompt: true, ..Context::default() };
        assert_eq!(template.render(&messages, &context).unwrap(), "<s>[hi](yo)null>");
        let tools = json!([{"type": "function", "function": {"name": "ä<b", "a": [1, 2.0, null]}}]);
        let context = Context { tools: Some(tools), ..Context::default() };
        let shown = "<s>[hi](yo)[{\"type\": \"function\", \"function\": {\"name\": \"ä<b\", \"a\": [1, 2.0, null]}}]";
        assert_eq!(template.render(&messages, &context).unwrap(), shown);
    }

    #[test]
    fn what_a_template_raises_reaches_the_caller() {
        let source = "{{ raise_exception('roles must alternate') }}".to_owned();
        let error = ChatTemplate::new(source, special()).unwrap().render(&[], &Context::default());
        assert_eq!(error.unwrap_err().to_string(), "roles must alternate");
        assert!(ChatTemplate::new("{% for".to_owned(), special()).is_err());
    }

    #[test]
    fn today_is_told() {
        let template =
            ChatTemplate::new("{{ strftime_now('%d %b %Y') }}".to_owned(), special()).unwrap();
        let shown = template.render(&[], &Context::default()).unwrap();
        assert!(shown.len() == 11 && shown.ends_with(|c: char| c.is_ascii_digit()), "{shown}");
    }
}
