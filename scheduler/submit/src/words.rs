//! The words of a line, and where each of their characters stands.

use crate::problem::{Findings, Place, shown};

/// A word without its quotes. Problems inside of it are told by character.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// Splits a line at blanks from its character `from` on (both from 0), up to a `#`. Quotes and backslashes
/// hold together what is one word, as Slurm reads `#SBATCH` lines. A line with an open quote has no words.
pub(crate) fn split(text: &str, line: usize, from: usize, findings: &mut Findings) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<(char, Place)> = None;
    let mut end = text.chars().count();
    let mut chars = text.chars().enumerate().skip(from);
    while let Some((index, c)) = chars.next() {
        let at = Place::line(line + 1, index + 1);
        let kept = match (quote, c) {
            (_, '\\') => chars.next().map_or('\\', |(_, escaped)| escaped),
            (Some((open, _)), c) if c == open => {
                quote = None;
                continue;
            }
            (None, '"' | '\'') => {
                // Nothing between quotes is a word, too. Its place is behind them.
                word.get_or_insert_default();
                quote = Some((c, at));
                continue;
            }
            (None, c) if c.is_whitespace() => {
                words.extend(word.take().map(|word| closed(word, at)));
                continue;
            }
            (None, '#') => {
                if word.is_some() {
                    let comment: String = text.chars().skip(index).collect();
                    let warning =
                        format!("{:?} is a comment, as in Slurm: quotes keep a #", shown(&comment));
                    findings.warn(at, warning);
                }
                end = index;
                break;
            }
            (_, c) => c,
        };
        let word = word.get_or_insert_default();
        word.text.push(kept);
        word.places.push(at);
    }
    if let Some((quote, at)) = quote {
        let problem = format!("the quote {quote} has no end: expected another one on its line");
        findings.problem(at, problem);
        return Vec::new();
    }
    words.extend(word.map(|word| closed(word, Place::line(line + 1, end + 1))));
    words
}

/// What is missing at the end of a word stands where it ends.
fn closed(mut word: Word, end: Place) -> Word {
    word.places.push(end);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> (Vec<String>, Vec<String>) {
        let mut findings = Findings::default();
        let words = split(line, 0, 0, &mut findings).into_iter().map(|word| word.text).collect();
        let told =
            findings.end().expect("no problem").iter().map(|told| told.to_string()).collect();
        (words, told)
    }

    #[test]
    fn words_split_as_in_slurm() {
        let table: [(&str, &[&str]); 5] = [
            ("  -n 4\t--mem=4G ", &["-n", "4", "--mem=4G"]),
            (r#"--comment="two words" -J 'a "b"'"#, &["--comment=two words", "-J", "a \"b\""]),
            (r"-J a\ b -o \\x 'it\'s' \", &["-J", "a b", "-o", r"\x", "it's", r"\"]),
            ("-n 4 # four ranks", &["-n", "4"]),
            ("--comment='a#b' \"\" \\#", &["--comment=a#b", "", "#"]),
        ];
        for (line, words) in table {
            let (found, told) = texts(line);
            assert_eq!(found, words, "{line}");
            assert_eq!(told, [""; 0], "{line}");
        }
        let (found, told) = texts("-J run#3 -n 4");
        assert_eq!(found, ["-J", "run"]);
        assert_eq!(
            told,
            ["line 1, column 7: \"#3 -n 4\" is a comment, as in Slurm: quotes keep a #"]
        );
    }

    #[test]
    fn quotes_have_ends() {
        let mut findings = Findings::default();
        assert_eq!(split("a 'b", 2, 0, &mut findings), []);
        assert_eq!(
            findings.end().unwrap_err().to_string(),
            "line 3, column 3: the quote ' has no end: expected another one on its line"
        );
    }

    #[test]
    fn characters_keep_their_places() {
        let words = split("é --x='ab' c", 4, 0, &mut Findings::default());
        assert_eq!(words[1].text, "--x=ab");
        assert_eq!(words[1].place(0), Place::line(5, 3));
        assert_eq!(words[1].place(4), Place::line(5, 8));
        assert_eq!(words[1].place(99), Place::line(5, 11));
        assert_eq!(words[2].place(0), Place::line(5, 12));
    }
}
