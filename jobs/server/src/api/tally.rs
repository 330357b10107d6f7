//! How a replica tells its router what a stream used: comments between its events, which count all tokens so far.
//! Events do not tell: one may show several tokens, and one token may show nothing. The router takes the comments out.

/// What a comment begins with. To whoever reads events it is nothing.
const MARK: &[u8] = b": ff2-tokens ";

/// For a stream, in front of an event: tokens of prompt and answer so far.
pub(crate) fn comment(tokens: usize) -> Vec<u8> {
    [MARK, tokens.to_string().as_bytes(), b"\n\n"].concat()
}

/// Takes comments out of a stream that comes in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The begin of a line that may become a comment.
    held: Vec<u8>,
    /// The last piece ended within a line of another kind.
    is_within: bool,
    /// The empty line behind a comment is to be taken out too.
    is_behind: bool,
    pub(crate) tokens: usize,
}

impl Tally {
    /// What is left of the next piece.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut left = Vec::with_capacity(piece.len());
        let all = [&std::mem::take(&mut self.held), piece].concat();
        for line in all.split_inclusive(|byte| *byte == b'\n') {
            let is_whole = line.ends_with(b"\n");
            let may_be = line.starts_with(MARK) || MARK.starts_with(line);
            if self.is_within || !(may_be || line == b"\n") {
                left.extend(line);
                (self.is_within, self.is_behind) = (!is_whole, false);
            } else if !is_whole {
                self.held = line.to_vec();
            } else if let Some(number) = line.strip_prefix(MARK) {
                let number =
                    std::str::from_utf8(number).ok().and_then(|it| it.trim_end().parse().ok());
                self.tokens = number.unwrap_or(self.tokens);
                self.is_behind = true;
            } else if !std::mem::take(&mut self.is_behind) {
                left.extend(line);
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_counted_and_taken_out_however_the_stream_is_cut() {
        let events =
            ["data: {\"a\": 1}\n\n", "data: : ff2-tokens 9\n\n: theirs\n\n", "data: [DONE]\n\n"];
        let mut sent = Vec::new();
        for (event, tokens) in events.iter().zip([3, 40, 41]) {
            sent.extend([&comment(tokens), event.as_bytes()].concat());
        }
        // The last ones show nothing.
        sent.extend(comment(45));
        for size in 1..=sent.len() {
            let mut tally = Tally::default();
            let left: Vec<u8> = sent.chunks(size).flat_map(|piece| tally.take(piece)).collect();
            assert_eq!(String::from_utf8(left).unwrap(), events.concat(), "in pieces of {size}");
            assert_eq!(tally.tokens, 45);
        }
    }
}
