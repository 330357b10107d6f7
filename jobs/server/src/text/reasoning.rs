//! Splits what a model thinks, between think tags, from what it answers.

use super::held_back;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// A piece of either.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Reasoning(String),
    Answer(String),
}

/// Of one choice. Thinking is the prompt's last tag or the text's first; tags elsewhere are text.
#[derive(Debug, Clone)]
pub struct Reasoning {
    state: State,
    held: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// White space only so far.
    Start,
    Thinking,
    /// Thought is over, white space before the answer is not its.
    Between,
    Answering,
}

impl Reasoning {
    /// Behind this prompt: templates of reasoning models end it with an open tag.
    pub fn behind(prompt: &str) -> Self {
        let is_open = prompt.trim_end().ends_with(OPEN);
        Self { state: if is_open { State::Thinking } else { State::Start }, held: String::new() }
    }

    pub fn is_thinking(&self) -> bool {
        self.state == State::Thinking
    }

    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        let mut parts = Vec::new();
        loop {
            match self.state {
                State::Start => {
                    let begun = self.held.trim_start();
                    if let Some(rest) = begun.strip_prefix(OPEN) {
                        self.held = rest.to_owned();
                        self.state = State::Thinking;
                    } else if OPEN.starts_with(begun) {
                        break;
                    } else {
                        self.state = State::Answering;
                    }
                }
                State::Thinking => {
                    if let Some(at) = self.held.find(CLOSE) {
                        let rest = self.held.split_off(at);
                        add(&mut parts, Part::Reasoning(std::mem::take(&mut self.held)));
                        self.held = rest[CLOSE.len()..].to_owned();
                        self.state = State::Between;
                    } else {
                        let held = held_back(&self.held, [CLOSE]);
                        let rest = self.held.split_off(self.held.len() - held);
                        add(&mut parts, Part::Reasoning(std::mem::replace(&mut self.held, rest)));
                        break;
                    }
                }
                State::Between => {
                    self.held = self.held.trim_start().to_owned();
                    if self.held.is_empty() {
                        break;
                    }
                    self.state = State::Answering;
                }
                State::Answering => {
                    add(&mut parts, Part::Answer(std::mem::take(&mut self.held)));
                    break;
                }
            }
        }
        parts
    }

    /// What was held back belongs to where it was found.
    pub fn finish(&mut self) -> Vec<Part> {
        let rest = std::mem::take(&mut self.held);
        let mut parts = Vec::new();
        add(
            &mut parts,
            if self.is_thinking() { Part::Reasoning(rest) } else { Part::Answer(rest) },
        );
        parts
    }
}

fn add(parts: &mut Vec<Part>, part: Part) {
    let (Part::Reasoning(text) | Part::Answer(text)) = &part;
    if !text.is_empty() {
        parts.push(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(prompt: &str, pieces: &[&str]) -> (String, String) {
        let mut reasoning = Reasoning::behind(prompt);
        let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| reasoning.push(piece)).collect();
        parts.extend(reasoning.finish());
        let (mut thought, mut answer) = (String::new(), String::new());
        for part in parts {
            match part {
                Part::Reasoning(text) => thought.push_str(&text),
                Part::Answer(text) => answer.push_str(&text),
            }
        }
        (thought, answer)
    }

    #[test]
    fn every_cut_of_a_text_splits_alike() {
        let text = "\n<think>why</think>\n\nso <think>";
        for first in 0..text.len() {
            for second in first..text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(
                    split("hi", &pieces),
                    ("why".to_owned(), "so <think>".to_owned()),
                    "{pieces:?}"
                );
                let opened = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(split("hi <think>\n", &opened).1, "so <think>");
            }
        }
        assert_eq!(split("hi", &["plain <think>x</think>"]).1, "plain <think>x</think>");
        assert_eq!(split("<think>", &["cut </thi"]), ("cut </thi".to_owned(), String::new()));
        assert_eq!(split("", &["<thi"]), (String::new(), "<thi".to_owned()));
    }
}
