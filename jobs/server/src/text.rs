//! Between text and tokens: templates make a conversation one prompt, and what the engine generates becomes text again,
//! piece by piece. No network and no engine here; the HTTP side (`api`) calls it.

pub mod choice;
pub mod detokenizer;
pub mod reasoning;
pub mod stops;
pub mod template;
pub mod tokenizer;
pub mod tools;

/// Length of the longest proper end of `text` that begins one of the `marks`: it must be held back, as the mark may
/// go on with the next token. Bytes, at a border of characters.
fn held_back<'a>(text: &str, marks: impl IntoIterator<Item = &'a str>) -> usize {
    let longest = |mark: &str| {
        let ends = (1..mark.len()).rev().filter(|&len| mark.is_char_boundary(len));
        ends.into_iter().find(|&len| text.ends_with(&mark[..len])).unwrap_or(0)
    };
    marks.into_iter().map(longest).max().unwrap_or(0)
}
