#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! Bad input: an error that names the file, the tensor, and what was expected; never a panic.

mod common;

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use common::{Bench, history, steps};

fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn cut(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
}

fn part(step: &Path) -> PathBuf {
    step.join("part-0000-0001.bin")
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_whole_one_before_is_offered() {
    let bench = Bench::new();
    let whole = history(&steps(&bench.ok(bench.run(&[], &[]))));
    let step = |step: u64| bench.path(&format!("out/checkpoints/step-{step:08}"));
    flip(&part(&step(40)), 5);
    bench.refused(bench.run(&[], &[]), "step-00000040 is damaged; that of step 30 is whole");
    bench.refused(bench.run(&[], &[]), "part-0000-0001.bin: tensor `weight/model.");
    bench.refused(bench.run(&[], &[]), "CRC32C");
    flip(&step(30).join("index-0000.json"), 30);
    bench.refused(
        bench.run(&[], &[]),
        "that of step 20 is whole: go on from it with --resume-from 20",
    );
    bench.refused(bench.run(&[], &["--resume-from", "30"]), "index-0000.json: checksum");
    bench.refused(
        bench.run(&[], &["--resume-from", "25"]),
        "no checkpoint of step 25; there are 20, 30, 40",
    );
    fs::remove_file(part(&step(30))).unwrap();
    bench.refused(bench.run(&[], &["--resume-from", "30"]), "step-00000030 is damaged");
    let again = history(&steps(&bench.ok(bench.run(&[], &["--resume-from", "20"]))));
    assert_eq!(again, whole[20..]);
    assert!(step(40).with_extension("aside").exists(), "people may want to look at it");
    let mut export = bench.command();
    flip(&part(&step(40)), 5);
    export.args(["export", "--checkpoint"]).arg(bench.path("out/checkpoints"));
    export.arg("--out").arg(bench.path("model"));
    bench.refused(export.output().unwrap(), "part-0000-0001.bin: tensor `weight/model.");
}

#[test]
fn a_checkpoint_that_misses_something_is_none_and_the_one_before_is_used() {
    let bench = Bench::new();
    let whole = history(&steps(&bench.ok(bench.run(&["steps=30"], &[]))));
    let step = |step: u64| bench.path(&format!("out/checkpoints/step-{step:08}"));
    let torn: [(&dyn Fn(), &str); 4] = [
        (&|| cut(&step(30).join("part-0000-0003.bin")), "part-0000-0003.bin: tensor `"),
        (&|| fs::remove_file(part(&step(30))).unwrap(), "part-0000-0001.bin"),
        (&|| cut(&step(30).join("index-0000.json")), "index-0000.json: a file of"),
        (&|| fs::remove_file(step(30).join("commit.json")).unwrap(), "commit.json"),
    ];
    for (number, (tear, name)) in torn.into_iter().enumerate() {
        tear();
        bench.refused(bench.run(&[], &["--resume-from", "30"]), name);
        let output = bench.run(&["steps=30"], &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(history(&steps(&bench.ok(output))), whole[20..]);
        assert!(said.contains("step 30 is no checkpoint: ") && said.contains(name), "{said}");
        let aside = if number == 0 { "aside".to_owned() } else { format!("aside-{}", number + 1) };
        assert!(step(30).with_extension(aside).exists(), "people may want to look at it");
    }
    for number in [10, 20, 30] {
        fs::remove_file(step(number).join("commit.json")).unwrap();
    }
    bench.refused(bench.run(&[], &[]), "no earlier one is whole");
}

#[test]
fn data_that_is_gone_damaged_or_of_another_tokenizer_is_refused() {
    let bench = Bench::new();
    let volume = bench.run(&["data.folder=ff2://default/tokens"], &[]);
    bench.refused(volume, "data.mount_config is empty, expected a mount");
    let shard = bench.path("data/train-00000.ff2tokens");
    flip(&shard, 1000);
    bench.refused(bench.run(&[], &[]), "train-00000.ff2tokens: its tokens are damaged");
    flip(&shard, 1000);
    cut(&shard);
    bench.refused(bench.run(&[], &[]), "train-00000.ff2tokens: ");
    fs::remove_file(&shard).unwrap();
    bench.refused(
        bench.run(&[], &[]),
        "train-00000.ff2tokens: listed in dataset.json, but it is gone",
    );
    let other = bench.path("other.txt");
    fs::write(&other, "another text, another tokenizer\n".repeat(100)).unwrap();
    let tokenizer = fs::read(bench.path("data/tokenizer.json")).unwrap();
    bench.ok(bench.tokenize(&[&other]));
    bench.ok(bench.run(&["steps=1", "data.batch=1"], &[]));
    let fresh = format!("out={}", bench.path("fresh").display());
    bench.refused(
        bench.run(&[&fresh, "data.sequence=100000"], &[]),
        "tokens make no sequence of 100000",
    );
    fs::write(bench.path("data/tokenizer.json"), tokenizer).unwrap();
    bench.refused(bench.run(&[], &[]), "made by another tokenizer");
    let folder = format!("data.folder={}", bench.path("nowhere").display());
    bench.refused(bench.run(&[&folder], &[]), "nowhere/dataset.json");
    fs::write(&other, b"\xff").unwrap();
    bench.refused(bench.tokenize(&[&other]), "other.txt: byte 0 is no UTF-8");
    bench.refused(bench.tokenize(&[&bench.path("nowhere")]), "nowhere");
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let bench = Bench::new();
    bench.ok(bench.run(&["steps=1"], &[]));
    let export = |out: &Path| {
        let mut command = bench.command();
        command.args(["export", "--checkpoint"]).arg(bench.path("out/checkpoints"));
        command.arg("--out").arg(out).output().unwrap()
    };
    let model = bench.path("model");
    bench.ok(export(&model));
    bench.refused(bench.run(&["model.hidden_size=64"], &[]), "is of another model than the config");
    bench.refused(bench.run(&["data.sequence=32"], &[]), "data.sequence is 32, expected 48");
    let fresh = format!("out={}", bench.path("fresh").display());
    bench.refused(bench.run(&[&fresh, "model.hiden_size=1"], &[]), "unknown key `hiden_size`");
    bench.refused(
        bench.run(&[&fresh, "model.vocab_size=100"], &[]),
        "vocab_size is 100, expected at",
    );
    bench.refused(
        bench.run(&[&fresh, "model.from=x"], &[]),
        "model.from is \"x\" beside other keys",
    );

    let config = fs::read_to_string(bench.path("run.toml")).unwrap();
    let (head, tail) = (config.find("[model]").unwrap(), config.find("[optimizer]").unwrap());
    let config = format!("{}[model]\nfrom = {model:?}\n{}", &config[..head], &config[tail..]);
    fs::write(bench.path("run.toml"), config).unwrap();
    let weights = model.join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    cut(&weights);
    bench.refused(bench.run(&[&fresh], &[]), "model.safetensors: no whole safetensors file");
    fs::write(&weights, &whole).unwrap();
    let json = fs::read_to_string(model.join("config.json")).unwrap();
    let other = json.replace("\"moe_intermediate_size\": 32", "\"moe_intermediate_size\": 31");
    assert_ne!(json, other);
    fs::write(model.join("config.json"), other).unwrap();
    bench.refused(bench.run(&[&fresh], &[]), "has shape [");
    fs::write(model.join("config.json"), json).unwrap();
    fs::write(model.join("tokenizer.json"), "{}").unwrap();
    bench.refused(bench.run(&[&fresh], &[]), "made by another tokenizer");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_before_it_spoils_the_weights() {
    let bench = Bench::new();
    let sets = ["optimizer.learning_rate=1e30", "loss.bad_steps_max=3", "schedule.warmup=0"];
    let output = bench.run(&sets, &[]);
    let steps = steps(&String::from_utf8_lossy(&output.stdout));
    let bad = steps.iter().filter(|step| step["is_bad"] == true).count();
    assert_eq!(bad, 3, "the fourth ends it");
    bench.refused(output, "the 4th step in a row that is no number");
}

#[test]
fn a_rank_without_a_place_is_refused() {
    let bench = Bench::new();
    let mut command = bench.command();
    command.args(["run", "--config"]).arg(bench.path("run.toml")).env("WORLD_SIZE", "2");
    bench.refused(command.output().unwrap(), "RANK: found nothing, expected a number from 0 to 1");
    let mut command = bench.command();
    command.args(["run", "--config"]).arg(bench.path("nowhere.toml"));
    bench.refused(command.output().unwrap(), "nowhere.toml: cannot read it");
}
