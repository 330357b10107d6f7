//! The first bytes of a disk: what it is, which one it is, and the numbers its layout depends on.

use super::{BadFormat, DATA_START, SECTOR, crc32c};

/// Version of everything on the disk and in the index.
pub const FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"FF2DISK\n";
const FIELDS: usize = 8 + 4 + 16 + 8 + 8;

/// Written once, when the disk is formatted; a copy lies in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub uuid: [u8; 16],
    /// Bytes of the data file or device that are used, superblock included.
    pub capacity: u64,
    /// Bound of a group's bytes for this disk; the grid of groups follows from it.
    pub group_bytes_max: u64,
}

impl Superblock {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SECTOR as usize);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.uuid);
        bytes.extend_from_slice(&self.capacity.to_le_bytes());
        bytes.extend_from_slice(&self.group_bytes_max.to_le_bytes());
        debug_assert_eq!(bytes.len(), FIELDS);
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.resize(SECTOR as usize, 0);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, BadFormat> {
        let bad = |why: &str| BadFormat(format!("superblock: {why}"));
        let fields = bytes.get(..FIELDS + 4).ok_or_else(|| bad("too short"))?;
        let (fields, crc) = fields.split_at(FIELDS);
        if fields[..8] != MAGIC {
            return Err(bad("this is no disk of ff2"));
        }
        let version = u32::from_le_bytes(array(&fields[8..12]));
        if version != FORMAT_VERSION {
            let why = format!(
                "format version {version}, and this release reads none above {FORMAT_VERSION}: nothing was \
                 touched; install a newer release"
            );
            return Err(bad(&why));
        }
        if crc32c(fields).to_le_bytes() != crc {
            return Err(bad("checksum does not match"));
        }
        let superblock = Self {
            uuid: array(&fields[12..28]),
            capacity: u64::from_le_bytes(array(&fields[28..36])),
            group_bytes_max: u64::from_le_bytes(array(&fields[36..44])),
        };
        if superblock.capacity <= DATA_START || !superblock.group_bytes_max.is_power_of_two() {
            return Err(bad("sizes out of bounds"));
        }
        Ok(superblock)
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller slices exactly N bytes")
}
