//! Text files as documents, and which of them are held out.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use walkdir::WalkDir;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Train,
    Heldout,
}

#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Text(String),
    Chat(Vec<Message>),
}

impl Content {
    /// In bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Chat(messages) => messages.iter().map(|message| message.content.len()).sum(),
        }
    }
}

#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Message {
    pub(super) role: Role,
    pub(super) content: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    System,
    User,
    Assistant,
}

/// One line of a `.jsonl`.
#[derive(Debug, Deserialize)]
struct Line {
    text: Option<String>,
    messages: Option<Vec<Message>>,
}

#[derive(Debug)]
pub(super) struct Corpus {
    files: Vec<PathBuf>,
    heldout: f64,
    has_chats: bool,
}

impl Corpus {
    /// All files, those in folders by name, so that equal trees give equal datasets. Links in folders are left out:
    /// they mostly lead to a file beside them.
    pub(super) fn find(paths: &[PathBuf], heldout: f64) -> Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            for entry in WalkDir::new(path).sort_by_file_name() {
                let entry = entry.with_context(|| format!("look into {}", path.display()))?;
                if entry.file_type().is_file() {
                    files.push(entry.into_path());
                }
            }
        }
        ensure!(!files.is_empty(), "no files in {paths:?}");
        let mut corpus = Self { files, heldout, has_chats: false };
        let mut lines = corpus.files.iter().filter(|path| is_jsonl(path));
        corpus.has_chats = lines.try_fold(false, |found, path| {
            let is_blank = |line: &std::io::Result<String>| {
                line.as_ref().is_ok_and(|line| line.trim().is_empty())
            };
            let Some(first) = BufReader::new(open(path)?).lines().find(|line| !is_blank(line))
            else {
                return Ok(found);
            };
            let first = first.with_context(|| format!("read {}", path.display()))?;
            anyhow::Ok(found || matches!(parse(&first, path, 0)?, Content::Chat(_)))
        })?;
        Ok(corpus)
    }

    /// Whether there are conversations, of which only the answers are learned.
    pub(super) fn has_chats(&self) -> bool {
        self.has_chats
    }

    /// Every document in order; an error of `document` ends it.
    pub(super) fn each(&self, document: &mut dyn FnMut(Part, Content) -> Result<()>) -> Result<()> {
        let mut lines = 0u64;
        for path in &self.files {
            if is_jsonl(path) {
                self.lines(path, &mut lines, document)?;
            } else {
                self.plain(path, document)?;
            }
        }
        Ok(())
    }

    fn lines(
        &self,
        path: &Path,
        before: &mut u64,
        document: &mut dyn FnMut(Part, Content) -> Result<()>,
    ) -> Result<()> {
        for (number, line) in BufReader::new(open(path)?).lines().enumerate() {
            let line = line.with_context(|| format!("read {}:{}", path.display(), number + 1))?;
            if line.trim().is_empty() {
                continue;
            }
            let content = parse(&line, path, number)?;
            if matches!(content, Content::Chat(_)) && !self.has_chats {
                bail!(
                    "{}:{}: a conversation, expected `text` as in the first line",
                    path.display(),
                    number + 1
                );
            }
            // Of each 1 / share lines the last.
            let share = |line: u64| (line as f64 * self.heldout) as u64;
            let is_heldout = share(*before + 1) > share(*before);
            *before += 1;
            document(if is_heldout { Part::Heldout } else { Part::Train }, content)?;
        }
        Ok(())
    }

    fn plain(
        &self,
        path: &Path,
        document: &mut dyn FnMut(Part, Content) -> Result<()>,
    ) -> Result<()> {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let mut text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            anyhow::anyhow!("{}: byte {at} is no UTF-8, expected UTF-8 text", path.display())
        })?;
        // Cut behind a line, the later the better: what is held out is never more than asked for.
        let from = (text.len() as f64 * (1.0 - self.heldout)) as usize;
        let line = text.as_bytes()[from..].iter().position(|byte| *byte == b'\n');
        let heldout = line.map(|line| text.split_off(from + line + 1)).unwrap_or_default();
        for (part, text) in [(Part::Train, text), (Part::Heldout, heldout)] {
            if !text.is_empty() {
                document(part, Content::Text(text))?;
            }
        }
        Ok(())
    }
}

fn is_jsonl(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("open {}", path.display()))
}

/// `number` counts from 0.
fn parse(line: &str, path: &Path, number: usize) -> Result<Content> {
    let place = || format!("{}:{}", path.display(), number + 1);
    let expected =
        "expected {\"text\": ...} or {\"messages\": [{\"role\": ..., \"content\": ...}]}";
    let line: Line =
        serde_json::from_str(line).with_context(|| format!("{}: {expected}", place()))?;
    match (line.text, line.messages) {
        (Some(text), None) => Ok(Content::Text(text)),
        (None, Some(messages)) if !messages.is_empty() => Ok(Content::Chat(messages)),
        _ => bail!("{}: {expected}", place()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn all(corpus: &Corpus) -> Result<Vec<(Part, Content)>> {
        let mut found = Vec::new();
        corpus.each(&mut |part, content| {
            found.push((part, content));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn ends_of_files_and_each_tenth_line_are_held_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.txt"), "0123456\n".repeat(20)).unwrap();
        let lines: String = (0..25).map(|n| format!("{{\"text\": \"line {n}\"}}\n")).collect();
        fs::write(folder.path().join("a.jsonl"), lines).unwrap();
        let corpus = Corpus::find(&[folder.path().to_owned()], 0.1).unwrap();
        let found = all(&corpus).unwrap();
        let heldout: Vec<_> = found.iter().filter(|(part, _)| *part == Part::Heldout).collect();
        let text = |text: &str| (Part::Heldout, Content::Text(text.to_owned()));
        assert_eq!(heldout, [&text("line 9"), &text("line 19"), &text("0123456\n")]);
        assert_eq!(
            found.iter().map(|(_, content)| content.len()).sum::<usize>(),
            25 * 6 + 15 + 160
        );
    }

    #[test]
    fn bad_text_is_refused_by_file_and_place() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |name: &str, bytes: &[u8], expected: &str| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let error = Corpus::find(std::slice::from_ref(&path), 0.1)
                .and_then(|corpus| all(&corpus))
                .unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(&format!("{name}{expected}")), "{error}");
        };
        refused("a.txt", b"good \xff", ": byte 5 is no UTF-8");
        refused("a.jsonl", b"\n{\"text\": \"a\"}\n{\"tekst\": \"b\"}\n", ":3: expected {\"text\"");
        refused(
            "b.jsonl",
            b"{\"messages\": [{\"role\": \"cook\", \"content\": \"\"}]}",
            ":1: expect",
        );
        refused("c.jsonl", b"{\"text\": \"a\"}\n{\"messages\": []}\n", ":2: expected {\"text\"");
    }
}
