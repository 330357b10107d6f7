//! What is asked of NVML, with a stand-in for the driver's library (`nvml.c`).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::Path, process::Command};

use ff2_node::gpus::{self, Health};

fn stand_in(folder: &Path) -> std::path::PathBuf {
    let library = folder.join("libnvidia-ml.so.1");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nvml.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(built.unwrap().success());
    library
}

#[test]
fn gpus_are_found_and_lost_ones_named() {
    let folder = tempfile::tempdir().unwrap();
    let found = gpus::find_by(&[Path::new("/nowhere.so"), &stand_in(folder.path())]);
    assert_eq!(found.driver.as_deref(), Some("550.1"));
    let told: Vec<_> =
        found.gpus.iter().map(|gpu| (gpu.index, gpu.uuid.as_str(), gpu.memory_mib)).collect();
    assert_eq!(told, [(0, "GPU-00000000", 40_960), (1, "GPU-00000001", 40_960)]);
    assert_eq!(found.gpus[0].name, "NVIDIA A100-PCIE-40GB");
    let why = found.why.unwrap();
    assert!(why.contains("GPU 2 does not answer"), "{why}");
}

#[test]
fn health_is_what_each_gpu_says() {
    let folder = tempfile::tempdir().unwrap();
    let library = stand_in(folder.path());
    let (answers, silent) = gpus::health(Some(&[&library])).unwrap();
    let well = Health {
        index: 0,
        uuid: "GPU-00000000".into(),
        pci: "0000:3b:00".into(),
        ecc_uncorrected: Some(0),
        retired_pages: None,
        is_repair_pending: Some(false),
        has_repair_failed: Some(false),
        temperature: Some(40),
        slowdown_temperature: Some(92),
        pcie_width: Some(16),
        pcie_width_max: Some(16),
    };
    assert_eq!(answers[0], well);
    assert_eq!(answers[1].ecc_uncorrected, Some(5));
    assert_eq!(answers[1].is_repair_pending, Some(true));
    assert_eq!(answers[1].pcie_width, Some(8));
    assert_eq!(silent.len(), 1, "{silent:?}");
}

#[test]
fn without_a_driver_there_is_no_health() {
    let why = gpus::health(Some(&[Path::new("/nowhere.so")])).unwrap_err();
    assert!(why.contains("not installed"), "{why}");
}
