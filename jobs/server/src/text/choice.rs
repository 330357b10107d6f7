//! What one choice of an answer has said: tokens go in, pieces of text, thought and calls come out.

use super::{
    detokenizer::Detokenizer,
    reasoning::{self, Reasoning},
    stops::{Scan, Stops},
    tokenizer::Tokenizer,
    tools::{self, ToolCall, ToolParser},
};

/// A piece of an answer, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Reasoning(String),
    Call(ToolCall),
}

/// How tokens are read. The default gives plain text.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    pub stops: Vec<String>,
    pub show_stop: bool,
    /// Stop strings are looked for behind so many tokens.
    pub min_tokens: usize,
    /// Show control tokens by name.
    pub show_special: bool,
    pub reasoning: Option<Reasoning>,
    pub tools: Tools,
}

/// How calls of tools are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tools {
    #[default]
    None,
    /// Between marks, if the model likes.
    Marked,
    /// The whole answer is the object of one call; a constraint saw to that.
    Whole,
}

/// See the module.
#[derive(Debug)]
pub struct Choice {
    detokenizer: Detokenizer,
    stops: Stops,
    show_special: bool,
    reasoning: Option<Reasoning>,
    tools: Tools,
    parser: ToolParser,
    /// The answer so far, where it is read as a whole.
    whole: String,
    stopped: bool,
    called: bool,
    tokens: usize,
    min_tokens: usize,
}

impl Choice {
    pub fn new(reading: &Reading) -> Self {
        Self {
            detokenizer: Detokenizer::default(),
            stops: Stops::new(reading.stops.clone(), reading.show_stop),
            // The marks of calls may be control tokens.
            show_special: reading.show_special || reading.tools == Tools::Marked,
            reasoning: reading.reasoning.clone(),
            tools: reading.tools,
            parser: ToolParser::default(),
            whole: String::new(),
            stopped: false,
            called: false,
            tokens: 0,
            min_tokens: reading.min_tokens,
        }
    }

    /// A stop string was found: what comes after is none of the answer.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether the next token belongs to what the model thinks.
    pub fn is_thinking(&self) -> bool {
        self.reasoning.as_ref().is_some_and(Reasoning::is_thinking)
    }

    pub fn has_called(&self) -> bool {
        self.called
    }

    /// What one more token shows; nothing after a stop string.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Vec<Piece> {
        self.tokens += 1;
        if self.stopped || (tokenizer.is_special(token) && !self.show_special) {
            return Vec::new();
        }
        let text = self.detokenizer.push(tokenizer, token);
        if self.tokens <= self.min_tokens {
            return self.split(&text);
        }
        match self.stops.push(&text) {
            Scan::Text(text) => self.split(&text),
            Scan::Stop(text) => {
                self.stopped = true;
                self.split(&text)
            }
        }
    }

    /// The generation ended: whatever was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if !self.stopped {
            let open = self.detokenizer.finish();
            let text = match self.stops.push(&open) {
                Scan::Text(text) => text + &self.stops.finish(),
                Scan::Stop(text) => text,
            };
            pieces = self.split(&text);
        }
        let parts = self.reasoning.as_mut().map(Reasoning::finish).unwrap_or_default();
        for part in parts {
            self.add(part, &mut pieces);
        }
        let rest = match self.tools {
            Tools::None => Vec::new(),
            Tools::Marked => self.parser.finish(),
            Tools::Whole => {
                let whole = std::mem::take(&mut self.whole);
                vec![tools::object(&whole).map_or(tools::Part::Text(whole), tools::Part::Call)]
            }
        };
        self.parts(rest, &mut pieces);
        pieces
    }

    fn split(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let parts = match &mut self.reasoning {
            Some(reasoning) => reasoning.push(text),
            None => vec![reasoning::Part::Answer(text.to_owned())],
        };
        for part in parts {
            self.add(part, &mut pieces);
        }
        pieces
    }

    fn add(&mut self, part: reasoning::Part, pieces: &mut Vec<Piece>) {
        let answer = match part {
            reasoning::Part::Reasoning(text) => return pieces.push(Piece::Reasoning(text)),
            reasoning::Part::Answer(text) => text,
        };
        let parts = match self.tools {
            Tools::None => vec![tools::Part::Text(answer)],
            Tools::Marked => self.parser.push(&answer),
            Tools::Whole => {
                self.whole.push_str(&answer);
                Vec::new()
            }
        };
        self.parts(parts, pieces);
    }

    fn parts(&mut self, parts: Vec<tools::Part>, pieces: &mut Vec<Piece>) {
        for part in parts {
            match part {
                tools::Part::Text(text) if text.is_empty() => {}
                tools::Part::Text(text) => pieces.push(Piece::Text(text)),
                tools::Part::Call(call) => {
                    self.called = true;
                    pieces.push(Piece::Call(call));
                }
            }
        }
    }
}
