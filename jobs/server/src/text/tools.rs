//! Calls of tools in what a model answers, in the forms that models of this family and their descendants write.

use serde_json::Value;

use super::held_back;

/// A form: its marks, and how a call is written between them.
struct Form {
    open: &'static str,
    close: &'static str,
    read: fn(&str) -> Option<ToolCall>,
}

/// DeepSeek V3, R1 and V3.1 have these marks as tokens; Hermes' XML is what small models are tuned on.
const FORMS: [Form; 2] = [
    Form {
        open: "<｜tool▁call▁begin｜>", close: "<｜tool▁call▁end｜>", read: deepseek
    },
    Form { open: "<tool_call>", close: "</tool_call>", read: object },
];
/// Marks around all calls, which are shown to nobody.
const AROUND: [&str; 2] = ["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"];

/// A call: a name and arguments as a JSON text, not checked against the tool's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    pub name: String,
    pub arguments: String,
}

/// Of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Call(ToolCall),
}

/// Of one choice. A call appears when it is whole. What is between marks and is no call is shown as it is: silence
/// would hide what the model did.
#[derive(Debug, Clone, Default)]
pub struct ToolParser {
    held: String,
}

impl ToolParser {
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        let mut parts = Vec::new();
        loop {
            for mark in AROUND {
                // Only those before the first call; later ones are met as the text goes on.
                if let Some(at) = self.held.find(mark) {
                    self.held.replace_range(at..at + mark.len(), "");
                }
            }
            let found = FORMS.iter().filter_map(|form| Some((self.held.find(form.open)?, form)));
            let Some((at, form)) = found.min_by_key(|(at, _)| *at) else {
                let marks = FORMS.iter().map(|form| form.open).chain(AROUND);
                let held = held_back(&self.held, marks);
                let rest = self.held.split_off(self.held.len() - held);
                add(&mut parts, std::mem::replace(&mut self.held, rest));
                return parts;
            };
            add(&mut parts, self.held.drain(..at).collect());
            let Some(end) = self.held.find(form.close) else { return parts };
            let whole: String = self.held.drain(..end + form.close.len()).collect();
            match (form.read)(&whole[form.open.len()..end]) {
                Some(call) => parts.push(Part::Call(call)),
                None => add(&mut parts, whole),
            }
        }
    }

    /// A call that was cut is text.
    pub fn finish(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        add(&mut parts, std::mem::take(&mut self.held));
        parts
    }
}

/// White space between calls is nobody's.
fn add(parts: &mut Vec<Part>, text: String) {
    let is_between = matches!(parts.last(), Some(Part::Call(_))) && text.trim().is_empty();
    if !text.is_empty() && !is_between {
        parts.push(Part::Text(text));
    }
}

/// `function<｜tool▁sep｜>NAME` with the arguments fenced as JSON (V3, R1), or `NAME<｜tool▁sep｜>ARGUMENTS` (V3.1).
fn deepseek(inside: &str) -> Option<ToolCall> {
    let (before, after) = inside.split_once("<｜tool▁sep｜>")?;
    let (name, arguments) = match after.split_once("```json") {
        Some((name, fenced)) => (name, fenced.trim_end().strip_suffix("```")?),
        None => (before, after),
    };
    let arguments = arguments.trim();
    serde_json::from_str::<Value>(arguments).ok()?.as_object()?;
    Some(ToolCall { name: name.trim().to_owned(), arguments: arguments.to_owned() })
}

/// `{"name": NAME, "arguments": {...}}`.
pub fn object(inside: &str) -> Option<ToolCall> {
    let value: Value = serde_json::from_str(inside.trim()).ok()?;
    let arguments = value.get("arguments").or_else(|| value.get("parameters"))?;
    Some(ToolCall {
        name: value.get("name")?.as_str()?.to_owned(),
        arguments: arguments.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, cut: usize) -> (String, Vec<(String, String)>) {
        let mut parser = ToolParser::default();
        let (first, second) = text.split_at(cut);
        let mut parts = parser.push(first);
        parts.extend(parser.push(second));
        parts.extend(parser.finish());
        let (mut shown, mut calls) = (String::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text(text) => shown.push_str(&text),
                Part::Call(call) => calls.push((call.name, call.arguments)),
            }
        }
        (shown, calls)
    }

    #[test]
    fn every_form_is_read_at_every_cut() {
        let v3 = "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n\
                  {\"a\": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n\
                  {\"a\": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
        let v31 = "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>\
                   <｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
        let hermes = "Let me see.<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>\n\
                      <tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 2}}</tool_call>";
        for text in [v3, v31, hermes] {
            for cut in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
                let (shown, calls) = parse(text, cut);
                assert_eq!(shown.trim_end(), "Let me see.", "{text} at {cut}");
                let flat: Vec<_> =
                    calls.iter().map(|(n, a)| (n.as_str(), a.replace(' ', ""))).collect();
                assert_eq!(
                    flat,
                    [("add", "{\"a\":1}".to_owned()), ("add", "{\"a\":2}".to_owned())]
                );
            }
        }
    }

    #[test]
    fn what_is_no_call_is_text() {
        for text in [
            "<tool_call>{\"name\": </tool_call>",
            "a <tool_call>{\"name\"",
            "1 < 2 <tool",
            "<｜tool▁",
        ] {
            assert_eq!(parse(text, text.len()), (text.to_owned(), Vec::new()));
        }
    }
}
