//! Batch scripts as people write them, and what is told of them to the letter.
//!
//! Beside each `scripts/NAME.sbatch` lies `scripts/NAME.txt`: the job as YAML (without the script itself), what
//! it comes to on nodes with eight GPUs, and warnings; or all problems. With `FF2_WRITE_EXPECTED` set the
//! answers are written anew, to be read before they are committed.

use std::{fmt::Write as _, fs, path::Path};

use ff2_submit::{JobRequest, from_script, to_yaml};

fn answer(text: &str) -> String {
    let (job, warnings) = match from_script(text) {
        Ok(read) => read,
        Err(problems) => return format!("{problems}\n"),
    };
    assert_eq!(job.script.as_deref(), Some(text), "the script is what runs");
    let mut answer = to_yaml(&JobRequest { script: None, ..job.clone() });
    match job.layout(8) {
        Ok(layout) => writeln!(answer, "\n{layout:?}"),
        Err(contradictions) => writeln!(answer, "\n{contradictions}"),
    }
    .expect("text takes all");
    for warning in warnings {
        writeln!(answer, "{warning}").expect("text takes all");
    }
    answer
}

#[test]
fn scripts_are_answered_to_the_letter() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "sbatch") {
            continue;
        }
        let answer = answer(&fs::read_to_string(&path).unwrap());
        let expected = path.with_extension("txt");
        if std::env::var_os("FF2_WRITE_EXPECTED").is_some() {
            fs::write(&expected, &answer).unwrap();
        }
        assert_eq!(answer, fs::read_to_string(&expected).unwrap(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 14, "{seen} scripts");
}
