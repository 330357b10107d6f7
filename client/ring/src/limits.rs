//! Bounds of a ring, known to both sides.

/// Operations of one ring that are pushed and not reaped, at most; a power of two.
pub const ENTRIES_MAX: u32 = 4096;
/// Bytes of one operation: what the client library reads or writes at once.
pub const OPERATION_BYTES_MAX: u64 = 16 << 20;
/// Bytes of one region.
pub const REGION_BYTES_MAX: u64 = 64 << 30;
/// Regions, and files, that one ring may have registered.
pub const REGIONS_MAX: usize = 1024;
pub const FILES_MAX: usize = 4096;
/// Descriptors that one message may carry.
pub(crate) const DESCRIPTORS_MAX: usize = 2;
/// Bytes of a refusal's sentence.
pub(crate) const TEXT_BYTES_MAX: usize = 400;

const _: () = assert!(ENTRIES_MAX.is_power_of_two());
