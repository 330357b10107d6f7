//! Text from tokens one at a time: a character appears when its last byte came, never half.

use super::tokenizer::Tokenizer;

/// Of one choice. Holds at most three bytes.
#[derive(Debug, Default)]
pub struct Detokenizer {
    open: Vec<u8>,
}

impl Detokenizer {
    /// What is whole with this token. Bytes that cannot become a character are U+FFFD each run, as
    /// `String::from_utf8_lossy` has it.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> String {
        self.open.extend(tokenizer.bytes(token).unwrap_or_default());
        let mut text = String::new();
        let mut done = 0;
        while done < self.open.len() {
            match std::str::from_utf8(&self.open[done..]) {
                Ok(rest) => {
                    text.push_str(rest);
                    done = self.open.len();
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.open[done..valid]));
                    done = valid;
                    let Some(wrong) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    done += wrong;
                }
            }
        }
        self.open.drain(..done);
        text
    }

    /// What will never be whole.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.open)).into_owned()
    }
}
