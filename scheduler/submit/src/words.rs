//! The words of a line, and where each of their characters stands.

use crate::problem::Place;

/// A word without its quotes. Problems inside of it are told by character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    /// Of each character; of words of a command line one for all of it.
    places: Vec<Place>,
}

impl Word {
    pub(crate) fn argument(index: usize, text: &str) -> Self {
        Self { text: text.to_owned(), places: vec![Place::argument(index)] }
    }

    /// Of the character that begins at a byte of the text.
    pub(crate) fn place(&self, byte: usize) -> Place {
        let index = self.text.char_indices().take_while(|(at, _)| *at < byte).count();
        let place = self.places.get(index).or(self.places.last());
        place.copied().unwrap_or(Place::Whole)
    }
}

/// A quote that is open at the end of its line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unclosed {
    pub(crate) at: Place,
    pub(crate) quote: char,
}

/// Splits a line at blanks from its character `from` on (both from 0), up to a `#` that begins a word.
/// Quotes and backslashes hold together what is one word, as Slurm reads `#SBATCH` lines.
pub(crate) fn split(text: &str, line: usize, from: usize) -> Result<Vec<Word>, Unclosed> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<(char, Place)> = None;
    let mut chars = text.chars().enumerate().skip(from).peekable();
    while let Some((index, c)) = chars.next() {
        let at = Place::line(line + 1, index + 1);
        let kept = match (quote, c) {
            (Some((open, _)), c) if c == open => {
                quote = None;
                continue;
            }
            (None, '"' | '\'') => {
                // Nothing between quotes is a word, too. Its place is behind them.
                word.get_or_insert_with(|| Word { text: String::new(), places: Vec::new() });
                quote = Some((c, at));
                continue;
            }
            (None, c) if c.is_whitespace() => {
                words.extend(word.take().map(|word| closed(word, at)));
                continue;
            }
            (None, '#') if word.is_none() => break,
            (quote, '\\') if quote.is_none_or(|(open, _)| open == '"') => {
                chars.next().map_or('\\', |(_, escaped)| escaped)
            }
            (_, c) => c,
        };
        let word = word.get_or_insert_with(|| Word { text: String::new(), places: Vec::new() });
        word.text.push(kept);
        word.places.push(at);
    }
    if let Some((quote, at)) = quote {
        return Err(Unclosed { at, quote });
    }
    let end = Place::line(line + 1, text.chars().count() + 1);
    words.extend(word.map(|word| closed(word, end)));
    Ok(words)
}

/// What is missing at the end of a word stands where it ends.
fn closed(mut word: Word, end: Place) -> Word {
    word.places.push(end);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        split(line, 0, 0).unwrap().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_split_as_in_slurm() {
        assert_eq!(texts("  -n 4\t--mem=4G "), ["-n", "4", "--mem=4G"]);
        assert_eq!(
            texts(r#"--comment="two words" -J 'a "b"'"#),
            ["--comment=two words", "-J", "a \"b\""]
        );
        assert_eq!(texts(r"-J a\ b -o \\x"), ["-J", "a b", "-o", r"\x"]);
        assert_eq!(texts("-n 4 # four ranks"), ["-n", "4"]);
        assert_eq!(texts("--comment=a#b \"\""), ["--comment=a#b", ""]);
        assert_eq!(split("a 'b", 2, 0), Err(Unclosed { at: Place::line(3, 3), quote: '\'' }));
    }

    #[test]
    fn characters_keep_their_places() {
        let words = split("é --x='ab' c", 4, 0).unwrap();
        assert_eq!(words[1].text, "--x=ab");
        assert_eq!(words[1].place(0), Place::line(5, 3));
        assert_eq!(words[1].place(4), Place::line(5, 8));
        assert_eq!(words[1].place(99), Place::line(5, 11));
        assert_eq!(words[2].place(0), Place::line(5, 12));
    }
}
