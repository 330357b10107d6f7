//! Stop strings, found across the borders of tokens; nothing that may become one is shown before it is none.

use super::held_back;

/// Of one choice.
#[derive(Debug, Clone)]
pub struct Stops {
    strings: Vec<String>,
    /// Whether a found string belongs to the text (vLLM's `include_stop_str_in_output`).
    shown: bool,
    held: String,
}

/// What a text came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    Text(String),
    /// A stop string was found: the text before it, and nothing comes after.
    Stop(String),
}

impl Stops {
    /// Empty strings must have been refused: they would be found at once.
    pub fn new(strings: Vec<String>, shown: bool) -> Self {
        Self { strings, shown, held: String::new() }
    }

    pub fn push(&mut self, text: &str) -> Scan {
        self.held.push_str(text);
        // The one that begins first; of those the shorter, which was whole first.
        let found = self
            .strings
            .iter()
            .filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.len())))
            .min();
        if let Some((at, len)) = found {
            self.held.truncate(if self.shown { at + len } else { at });
            return Scan::Stop(std::mem::take(&mut self.held));
        }
        let held = held_back(&self.held, self.strings.iter().map(String::as_str));
        let rest = self.held.split_off(self.held.len() - held);
        Scan::Text(std::mem::replace(&mut self.held, rest))
    }

    /// The generation ended otherwise: what was held back is text after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], shown: bool, pieces: &[&str]) -> (String, bool) {
        let mut stops = Stops::new(stops.iter().map(|s| (*s).to_owned()).collect(), shown);
        let mut all = String::new();
        for piece in pieces {
            match stops.push(piece) {
                Scan::Text(text) => all.push_str(&text),
                Scan::Stop(text) => return (all + &text, true),
            }
        }
        (all + &stops.finish(), false)
    }

    #[test]
    fn every_cut_of_a_text_finds_the_same_stop() {
        let text = "one ENEND two";
        for first in 0..text.len() {
            for second in first..text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(
                    run(&["END"], false, &pieces),
                    ("one EN".to_owned(), true),
                    "{pieces:?}"
                );
                assert_eq!(run(&["END"], true, &pieces), ("one ENEND".to_owned(), true));
                assert_eq!(run(&["ENDS", "two!"], false, &pieces), (text.to_owned(), false));
                assert_eq!(run(&["ö", "two", "e E"], false, &pieces), ("on".to_owned(), true));
            }
        }
    }

    #[test]
    fn a_beginning_of_a_stop_is_held_back() {
        let mut stops = Stops::new(vec!["</s>".to_owned()], false);
        assert_eq!(stops.push("a<"), Scan::Text("a".to_owned()));
        assert_eq!(stops.push("/s"), Scan::Text(String::new()));
        assert_eq!(stops.push("o<"), Scan::Text("</so".to_owned()));
        assert_eq!(stops.finish(), "<");
    }
}
