//! The GPUs of this machine.
//!
//! NVIDIA's management library (NVML) is asked if it is there when the program runs: nothing is needed to build.
//! Indexes are NVML's, which follow the PCI bus; programs that count devices with CUDA agree with them where
//! `CUDA_DEVICE_ORDER=PCI_BUS_ID` is set, or name them by UUID.

mod health;
mod nvml;
mod xid;

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, major, minor};
use serde::{Deserialize, Serialize};

pub use health::{Health, health};
pub use xid::{Severity, Xid, logged};

/// Device files that all GPUs share. A program needs the first two of them beside its GPU's own.
const SHARED_FILES: [&str; 4] =
    ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    pub index: u32,
    /// The same wherever the card is put.
    pub uuid: String,
    pub name: String,
    /// 0 where the driver does not tell: before version 510, or where memory is shared with the processor.
    pub memory_mib: u64,
    /// Number of its device file; none for a fake GPU, or where the file is missing.
    pub device: Option<Device>,
    /// The device files that are there of those that its programs need: its own, and what GPUs share.
    pub files: Vec<PathBuf>,
}

/// The number of a character device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

/// What was found, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub gpus: Vec<Gpu>,
    /// The version of the driver, if there is one.
    pub driver: Option<String>,
    /// Why there are none, or fewer than the driver knows of; in words for the people who run the node.
    pub why: Option<String>,
}

/// Asks NVML, if it is there.
pub fn find() -> Found {
    find_by(&nvml::LIBRARIES.map(Path::new))
}

/// As [`find`], with the first of these libraries that can be loaded.
pub fn find_by(libraries: &[&Path]) -> Found {
    nvml::find(libraries)
}

/// What people call the kind of these GPUs, if they are of one: `h100` of an `NVIDIA H100 80GB HBM3`.
pub fn kind(gpus: &[Gpu]) -> Option<String> {
    let is_model = |word: &&str| {
        word.contains(|c: char| c.is_ascii_digit())
            && word.starts_with(|c: char| c.is_ascii_alphabetic())
    };
    let kind = |gpu: &Gpu| {
        let mut words = gpu.name.split([' ', '-', '_']);
        words.find(is_model).map(str::to_ascii_lowercase)
    };
    let first = kind(gpus.first()?)?;
    gpus.iter().all(|gpu| kind(gpu).as_ref() == Some(&first)).then_some(first)
}

/// So many that are none: for trying things out on machines without.
pub fn fake(count: u32) -> Vec<Gpu> {
    let gpu = |index| Gpu {
        index,
        uuid: format!("FAKE-{index}"),
        name: "fake".into(),
        memory_mib: 0,
        device: None,
        files: Vec::new(),
    };
    (0..count).map(gpu).collect()
}

/// The number of a character device's file.
fn device(path: &Path) -> Option<Device> {
    let stat = rustix::fs::stat(path).ok()?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    is_device.then(|| Device { major: major(stat.st_rdev), minor: minor(stat.st_rdev) })
}

/// A GPU's own file, and those of [`SHARED_FILES`], as far as they are there.
fn files(own: &Path) -> Vec<PathBuf> {
    let all = [own].into_iter().chain(SHARED_FILES.iter().map(Path::new));
    all.filter(|path| path.exists()).map(Path::to_path_buf).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_library_says_so() {
        let found = find_by(&[Path::new("/nowhere/libnvidia-ml.so")]);
        assert!(found.gpus.is_empty() && found.driver.is_none());
        let why = found.why.unwrap();
        assert!(why.contains("/nowhere/libnvidia-ml.so"), "{why}");
    }

    #[test]
    fn a_kind_is_the_word_with_the_number() {
        let named = |names: &[&str]| {
            let gpus = names.iter().map(|name| Gpu { name: (*name).into(), ..fake(1).remove(0) });
            kind(&gpus.collect::<Vec<_>>())
        };
        let table = [
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA A100-SXM4-80GB", "a100"),
            ("Tesla V100-PCIE-16GB", "v100"),
            ("NVIDIA GeForce RTX 4090", ""),
            ("NVIDIA L40S", "l40s"),
            ("fake", ""),
        ];
        for (name, expected) in table {
            assert_eq!(named(&[name]).unwrap_or_default(), expected, "{name}");
        }
        assert_eq!(named(&["NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"]), None);
        assert_eq!(named(&[]), None);
    }

    #[test]
    fn fake_ones_are_told_apart() {
        let gpus = fake(3);
        assert_eq!(gpus.iter().map(|gpu| gpu.index).collect::<Vec<_>>(), [0, 1, 2]);
        assert_ne!(gpus[0].uuid, gpus[1].uuid);
        assert!(gpus.iter().all(|gpu| gpu.device.is_none() && gpu.files.is_empty()));
    }

    #[test]
    fn only_character_devices_have_a_number() {
        assert_eq!(device(Path::new("/dev/zero")), Some(Device { major: 1, minor: 5 }));
        assert_eq!(device(Path::new("/proc/version")), None);
        assert_eq!(files(Path::new("/dev/zero"))[0], Path::new("/dev/zero"));
    }
}
