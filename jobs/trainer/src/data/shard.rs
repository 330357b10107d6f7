//! One file of tokens. All numbers are little-endian.
//!
//! ```text
//!   0  "FF2TOKEN"
//!   8  version, u32: 1
//!  12  bytes of a token, u32: 2 (vocabularies up to 65,536) or 4
//!  16  size of the vocabulary, u32
//!  20  flags, u32: bit 0 = has a mask
//!  24  tokens, u64
//!  32  documents, u64
//!  40  bytes of text that the tokens stand for, u64
//!  48  sha256 of the tokenizer.json that made them
//!  80  CRC32C of the body, u32
//!  84  CRC32C of bytes 0 to 84, u32
//!  88  body: tokens; mask, a bit a token, lowest first (1 = the model learns to say it); where each document ends, in
//!      tokens from the first, u64 each
//! ```
//!
//! Any run of tokens is one positioned read: training reads sequences in random order, many at once.

use std::{
    fs::{self, File},
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};

use super::{DataError, Store, store::Bytes};

const MAGIC: &[u8; 8] = b"FF2TOKEN";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 88;
const HAS_MASK: u32 = 1;
/// Read at once where all of a shard is read.
const BLOCK: u64 = 1 << 20;

/// sha256 of `tokenizer.json`.
pub(crate) type TokenizerHash = [u8; 32];

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Header {
    pub(crate) token_bytes: u32,
    pub(crate) vocab: u32,
    pub(crate) has_mask: bool,
    pub(crate) tokens: u64,
    pub(crate) documents: u64,
    pub(crate) text_bytes: u64,
    pub(crate) tokenizer: TokenizerHash,
    body_crc: u32,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        let flags = if self.has_mask { HAS_MASK } else { 0 };
        for (at, number) in [(8, VERSION), (12, self.token_bytes), (16, self.vocab), (20, flags)] {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        for (at, number) in [(24, self.tokens), (32, self.documents), (40, self.text_bytes)] {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[48..80].copy_from_slice(&self.tokenizer);
        bytes[80..84].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32_iscsi(&bytes[..84]);
        bytes[84..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What was found and what was expected, if these bytes are no header.
    fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, (String, String)> {
        let u32_at = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("within"));
        let u64_at = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("within"));
        let wrong = |found: String, expected: &str| Err((found, expected.to_owned()));
        if &bytes[..8] != MAGIC {
            return wrong(
                "no shard of tokens".to_owned(),
                "a file that `ff2-train tokenize` wrote",
            );
        }
        if u32_at(8) != VERSION {
            return wrong(format!("version {}", u32_at(8)), "version 1");
        }
        if u32_at(84) != crc32_iscsi(&bytes[..84]) {
            return wrong("its header is damaged".to_owned(), "the checksum that it tells");
        }
        let mut tokenizer = [0; 32];
        tokenizer.copy_from_slice(&bytes[48..80]);
        let header = Self {
            token_bytes: u32_at(12),
            vocab: u32_at(16),
            has_mask: u32_at(20) & HAS_MASK != 0,
            tokens: u64_at(24),
            documents: u64_at(32),
            text_bytes: u64_at(40),
            tokenizer,
            body_crc: u32_at(80),
        };
        if !matches!(header.token_bytes, 2 | 4) || header.file_len().is_none() {
            return wrong("its header makes no sense".to_owned(), "tokens of 2 or 4 bytes");
        }
        Ok(header)
    }

    fn mask_at(&self) -> u64 {
        HEADER_LEN as u64 + self.tokens * u64::from(self.token_bytes)
    }

    fn file_len(&self) -> Option<u64> {
        let mask = if self.has_mask { self.tokens.div_ceil(8) } else { 0 };
        let tokens = self.tokens.checked_mul(self.token_bytes.into())?;
        let ends = self.documents.checked_mul(8)?;
        tokens.checked_add(mask)?.checked_add(ends)?.checked_add(HEADER_LEN as u64)
    }
}

/// An opened shard.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    bytes: Bytes,
    header: Header,
}

/// A run of tokens, and which of them are learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) ids: Vec<u32>,
    pub(crate) learned: Vec<bool>,
}

impl Shard {
    /// Checks the header and the length, not yet the body.
    ///
    /// # Errors
    /// A file that is gone, cut, damaged or none of these.
    pub(crate) fn open(store: &Store, name: &str) -> Result<Self, DataError> {
        let path = store.path(name);
        let bytes = store.file(name).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => DataError::Gone { path: path.clone() },
            _ => DataError::Io { path: path.clone(), source },
        })?;
        let len = bytes.len().map_err(io(&path))?;
        let wrong = |found, expected| DataError::Shard { path: path.clone(), found, expected };
        if len < HEADER_LEN as u64 {
            return Err(wrong(format!("{len} bytes"), "a shard of tokens".to_owned()));
        }
        let head = bytes.read(0..HEADER_LEN as u64).map_err(io(&path))?;
        let head = head.first_chunk().expect("as many bytes as were asked for");
        let header = Header::decode(head).map_err(|(found, expected)| wrong(found, expected))?;
        let whole = header.file_len().unwrap_or(u64::MAX);
        if len != whole {
            let expected = format!("the {whole} that its {} tokens take", header.tokens);
            return Err(wrong(format!("{len} bytes"), expected));
        }
        Ok(Self { path, bytes, header })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all of it once and compares the checksum.
    ///
    /// # Errors
    /// A damaged body.
    pub(crate) fn verify(&self) -> Result<(), DataError> {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut at = HEADER_LEN as u64;
        let end = self.header.file_len().unwrap_or(at);
        while at < end {
            let block = at..end.min(at + BLOCK);
            at = block.end;
            digest.update(&self.bytes.read(block).map_err(io(&self.path))?);
        }
        let found = digest.finalize() as u32;
        if found == self.header.body_crc {
            return Ok(());
        }
        Err(DataError::Shard {
            path: self.path.clone(),
            found: format!("its tokens are damaged (CRC32C {found:08x})"),
            expected: format!("{:08x}; tokenize the text again", self.header.body_crc),
        })
    }

    /// `count` tokens from each of `starts` on. All are read at once.
    ///
    /// # Errors
    /// A file that cannot be read any more, or that has a token beyond its vocabulary.
    pub(crate) fn read(&self, starts: &[u64], count: usize) -> Result<Vec<Run>, DataError> {
        let width = u64::from(self.header.token_bytes);
        let len = count as u64;
        let tokens = starts.iter().map(|start| {
            let at = HEADER_LEN as u64 + start * width;
            at..at + len * width
        });
        let masks = starts.iter().filter(|_| self.header.has_mask).map(|start| {
            let at = self.header.mask_at();
            at + start / 8..at + (start + len).div_ceil(8)
        });
        let ranges: Vec<_> = tokens.chain(masks).collect();
        let mut bytes = self.bytes.read_all(&ranges).map_err(io(&self.path))?;
        let masks = bytes.split_off(starts.len());
        let run = |(number, (bytes, &start)): (usize, (&Vec<u8>, &u64))| {
            let ids = self.ids(bytes, start)?;
            let learned = match masks.get(number) {
                Some(bits) => {
                    let skip = (start % 8) as usize;
                    (skip..skip + count).map(|bit| bits[bit / 8] >> (bit % 8) & 1 == 1).collect()
                }
                None => vec![true; count],
            };
            Ok(Run { ids, learned })
        };
        bytes.iter().zip(starts).enumerate().map(run).collect()
    }

    fn ids(&self, bytes: &[u8], start: u64) -> Result<Vec<u32>, DataError> {
        let ids: Vec<u32> = match self.header.token_bytes {
            2 => bytes.as_chunks().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))).collect(),
            _ => bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect(),
        };
        match ids.iter().find(|&&id| id >= self.header.vocab) {
            None => Ok(ids),
            Some(id) => Err(DataError::Shard {
                path: self.path.clone(),
                found: format!("token {id} behind token {start}"),
                expected: format!("less than the vocabulary's {}", self.header.vocab),
            }),
        }
    }
}

/// Writes a shard document by document; under its name there is never half of one.
#[derive(Debug)]
pub(crate) struct ShardWriter {
    path: PathBuf,
    draft: PathBuf,
    file: BufWriter<File>,
    header: Header,
    digest: Digest,
    mask: Vec<u8>,
    ends: Vec<u64>,
}

impl ShardWriter {
    /// # Errors
    /// A file that cannot be made.
    pub(crate) fn create(
        path: &Path,
        vocab: u32,
        tokenizer: TokenizerHash,
        has_mask: bool,
    ) -> Result<Self, DataError> {
        let draft = path.with_extension("draft");
        let mut file = BufWriter::new(File::create(&draft).map_err(io(&draft))?);
        file.write_all(&[0; HEADER_LEN]).map_err(io(&draft))?;
        let header = Header {
            token_bytes: if vocab <= 1 << 16 { 2 } else { 4 },
            vocab,
            has_mask,
            tokens: 0,
            documents: 0,
            text_bytes: 0,
            tokenizer,
            body_crc: 0,
        };
        let digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let (mask, ends) = (Vec::new(), Vec::new());
        Ok(Self { path: path.to_owned(), draft, file, header, digest, mask, ends })
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.header.tokens
    }

    /// One document. `learned` tells for each token whether the model is to say it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn push(
        &mut self,
        ids: &[u32],
        learned: impl Fn(usize) -> bool,
        text_bytes: u64,
    ) -> Result<(), DataError> {
        let bytes: Vec<u8> = match self.header.token_bytes {
            2 => ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect(),
            _ => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
        };
        self.append(&bytes)?;
        if self.header.has_mask {
            for place in 0..ids.len() {
                let bit = self.header.tokens as usize + place;
                if bit.is_multiple_of(8) {
                    self.mask.push(0);
                }
                self.mask[bit / 8] |= u8::from(learned(place)) << (bit % 8);
            }
        }
        self.header.tokens += ids.len() as u64;
        self.header.text_bytes += text_bytes;
        self.header.documents += 1;
        self.ends.push(self.header.tokens);
        Ok(())
    }

    /// Makes it durable and gives it its name.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn finish(mut self) -> Result<Header, DataError> {
        let mask = std::mem::take(&mut self.mask);
        self.append(&mask)?;
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        self.append(&ends)?;
        self.header.body_crc = self.digest.finalize() as u32;
        let mut file = self.file.into_inner().map_err(|e| io(&self.draft)(e.into_error()))?;
        let head = self.header.encode();
        let written = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(&head))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&self.draft, &self.path));
        written.map_err(io(&self.path))?;
        Ok(self.header)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.digest.update(bytes);
        self.file.write_all(bytes).map_err(io(&self.draft))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DataError {
    let path = path.to_owned();
    move |source| DataError::Io { path, source }
}

#[cfg(test)]
mod tests;
