//! fsx: random operations on one file, every byte that is read compared.

use std::{fs, path::Path, process::Command};

use ff2_cluster_tests::{
    Cluster,
    suite::{SMALL, program, rounds, run},
};

const OPERATIONS: u32 = 300;

/// File size and largest operation in bytes, and how often the file is mapped.
const SHAPES: [(u64, u64, u32); 4] =
    // As programs without and with mappings; about the size up to which files are inline; many chunks.
    [
        (256 << 10, 64 << 10, 0),
        (256 << 10, 64 << 10, 8),
        (20_000, 9_000, 4),
        (16 << 20, 1 << 20, 4),
    ];

#[test]
fn every_byte_is_what_was_written() {
    let Some(fsx) = program("fsx") else { return };
    let cluster = Cluster::start_with(&SMALL).unwrap();
    let beside = tempfile::tempdir().unwrap();
    let direct = direct(beside.path());
    for seed in 1..=rounds() {
        for (number, shape) in SHAPES.into_iter().enumerate() {
            let config = beside.path().join("fsx.toml");
            fs::write(&config, configuration(shape)).unwrap();
            for is_direct in [false, true] {
                let mut command = Command::new(&fsx);
                command.args(["-S", &seed.to_string(), "-N", &OPERATIONS.to_string()]);
                command.arg("-f").arg(&config).arg("-P").arg(beside.path());
                command.arg(cluster.mount().join(format!("shape{number}-{is_direct}")));
                if is_direct {
                    command.env("LD_PRELOAD", &direct).env("DIRECT_BELOW", cluster.mount());
                }
                let text = run(&mut command).unwrap();
                assert!(text.contains("All operations completed"), "{text}");
            }
        }
    }
}

/// The library that makes its opens direct.
fn direct(beside: &Path) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suites/direct.c");
    let library = beside.join("direct.so");
    let mut cc = Command::new("cc");
    run(cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl")).unwrap();
    library
}

/// fsx takes the refusal of a `posix_fallocate` of no bytes, which POSIX asks for, for a lack of it: so none.
fn configuration((size, largest, mapped): (u64, u64, u32)) -> String {
    let invalidate = mapped.min(1);
    format!(
        "flen = {size}\n[opsize]\nmin = 1\nmax = {largest}\n[weights]\nclose_open = 1\nread = 10\nwrite = 10\n\
         mapread = {mapped}\nmapwrite = {mapped}\ninvalidate = {invalidate}\ntruncate = 3\n\
         fsync = 1\nfdatasync = 1\nposix_fallocate = 2\npunch_hole = 3\nsendfile = 2\n\
         posix_fadvise = 1\ncopy_file_range = 3\n"
    )
}
