#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! Blocks of the prefix cache outlive an engine and are shared among several.

mod common;

use std::{fs, path::Path};

use common::{answer, engine, eventually, options, reference, text};
use ff2_engine::{DiskOptions, EngineOptions, Request};

fn on_disk(folder: &Path) -> EngineOptions {
    let disk = DiskOptions { folder: folder.to_owned(), bytes_max: 1 << 20 };
    EngineOptions { disk: Some(disk), ..options() }
}

fn files(folder: &Path) -> usize {
    let count = |path: &Path| fs::read_dir(path).unwrap().count();
    let roots = fs::read_dir(folder).unwrap().map(|root| root.unwrap().path());
    let inside =
        roots.flat_map(|root| fs::read_dir(root).unwrap()).map(|inside| inside.unwrap().path());
    // What is being written lies beside the folders of keys.
    inside.filter(|path| path.is_dir()).map(|keys| count(&keys)).sum()
}

#[test]
fn a_prompt_comes_from_disk_after_a_restart_and_for_another_engine() {
    let folder = tempfile::tempdir().unwrap();
    let model = reference("v3");
    let request = || Request::greedy(text(1, 41), 5);
    let first = engine(&model, on_disk(folder.path()));
    let other = engine(&model, on_disk(folder.path()));
    let cold = answer(&first, request());
    assert_eq!(cold.usage.unwrap().cached, 0);
    // 41 + 4 computed tokens fill eleven blocks of four.
    eventually(|| files(folder.path()) == 11);
    let warm = answer(&other, request());
    assert_eq!((warm.usage.unwrap().cached, warm.texts()), (40, cold.texts()));
    eventually(|| other.figures().prefix_hits_disk == 40);
    drop((first, other));
    let again = answer(&engine(&model, on_disk(folder.path())), request());
    assert_eq!((again.usage.unwrap().cached, again.texts()), (40, cold.texts()));
    // Another model finds nothing.
    let stranger = answer(&engine(&reference("v3-yarn"), on_disk(folder.path())), request());
    assert_eq!(stranger.usage.unwrap().cached, 0);
}

#[test]
fn a_damaged_block_is_computed_and_the_text_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let model = reference("v3");
    let request = || Request::greedy(text(1, 41), 5);
    let cold = answer(&engine(&model, on_disk(folder.path())), request());
    eventually(|| files(folder.path()) == 11);
    for root in fs::read_dir(folder.path()).unwrap() {
        for keys in fs::read_dir(root.unwrap().path()).unwrap() {
            for file in fs::read_dir(keys.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let mut bytes = fs::read(&path).unwrap();
                bytes[200] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
        }
    }
    let again = answer(&engine(&model, on_disk(folder.path())), request());
    assert_eq!((again.usage.unwrap().cached, again.texts()), (0, cold.texts()));
}

#[test]
fn a_disk_that_fails_hurts_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let model = reference("v3");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = ff2_engine::Engine::start(model.clone(), on_disk(&file)).unwrap_err();
    assert!(error.to_string().contains("for the prefix cache"), "{error}");
    let inner = folder.path().join("inner");
    let serving = engine(&model, on_disk(&inner));
    fs::remove_dir_all(&inner).unwrap();
    fs::write(&inner, "").unwrap();
    let request = || Request::greedy(text(1, 41), 5);
    let plain = answer(&engine(&model, options()), request());
    assert_eq!(answer(&serving, request()).texts(), plain.texts());
    eventually(|| {
        // Told at the next step.
        answer(&serving, Request::greedy(vec![1], 1));
        serving.figures().blocks_not_saved == 11
    });
}
