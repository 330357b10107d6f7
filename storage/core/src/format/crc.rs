//! CRC32C, the checksum of everything that is stored, and how checksums of neighbouring sectors join.

use super::SECTOR;

/// Of these bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Of whole sectors in a row, from the checksum of each: what [`crc32c`] makes of all their bytes, for the
/// price of a few table lookups a sector.
pub fn join_sectors(crcs: impl IntoIterator<Item = u32>) -> u32 {
    // The checksum of no bytes is 0, and followed by anything it stays out of the way.
    crcs.into_iter().fold(0, |before, crc| BEHIND_A_SECTOR.apply(before) ^ crc)
}

/// The checksum of bytes with `len` more behind them, of which it is `behind`.
pub fn join(before: u32, behind: u32, len: usize) -> u32 {
    let algorithm = crc_fast::CrcAlgorithm::Crc32Iscsi;
    crc_fast::checksum_combine(algorithm, before.into(), behind.into(), len as u64) as u32
}

/// What a checksum becomes when zero bytes follow, but for what these add themselves: a linear map over
/// the field with two elements, so its value is the sum of its values for the argument's four bytes.
struct Shift([[u32; 256]; 4]);

static BEHIND_A_SECTOR: Shift = Shift::by(SECTOR);

impl Shift {
    /// By so many bytes, a power of two.
    const fn by(bytes: u32) -> Self {
        assert!(bytes.is_power_of_two());
        // Column i: what bit i becomes behind one byte; squared until there are enough of them.
        let mut columns = [0; 32];
        let mut bit = 0;
        while bit < 32 {
            columns[bit] = behind_a_byte(1 << bit);
            bit += 1;
        }
        let mut shifted = 1;
        while shifted < bytes {
            let mut squared = [0; 32];
            let mut bit = 0;
            while bit < 32 {
                squared[bit] = times(&columns, columns[bit]);
                bit += 1;
            }
            columns = squared;
            shifted *= 2;
        }
        let mut tables = [[0; 256]; 4];
        let mut value = 0;
        while value < 4 * 256 {
            let (table, byte) = (value / 256, value % 256);
            tables[table][byte] = times(&columns, (byte as u32) << (8 * table));
            value += 1;
        }
        Self(tables)
    }

    fn apply(&self, crc: u32) -> u32 {
        let [a, b, c, d] = crc.to_le_bytes().map(usize::from);
        self.0[0][a] ^ self.0[1][b] ^ self.0[2][c] ^ self.0[3][d]
    }
}

/// The register after a zero byte, bit by bit; the polynomial is Castagnoli's, reflected.
const fn behind_a_byte(mut register: u32) -> u32 {
    let mut bit = 0;
    while bit < 8 {
        register = (register >> 1) ^ (0x82f6_3b78 * (register & 1));
        bit += 1;
    }
    register
}

const fn times(columns: &[u32; 32], vector: u32) -> u32 {
    let (mut sum, mut bit) = (0, 0);
    while bit < 32 {
        if vector >> bit & 1 == 1 {
            sum ^= columns[bit];
        }
        bit += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_value_is_the_standards() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(join_sectors([]), crc32c(&[]));
    }

    proptest! {
        #[test]
        fn joined_checksums_are_those_of_the_bytes(seed: u64, sectors in 0..9usize, tail in 0..5000usize) {
            let byte = |at: usize| (seed.rotate_left(at as u32 % 64) as usize + at) as u8;
            let bytes: Vec<u8> = (0..sectors * SECTOR as usize + tail).map(byte).collect();
            let (whole, tail) = bytes.split_at(sectors * SECTOR as usize);
            let joined = join_sectors(whole.chunks(SECTOR as usize).map(crc32c));
            prop_assert_eq!(joined, crc32c(whole));
            prop_assert_eq!(join(joined, crc32c(tail), tail.len()), crc32c(&bytes));
        }
    }
}
