//! Jobs from command lines.

use crate::{
    options::{Source, read},
    problem::{Findings, Problems, Warning},
    request::JobRequest,
    words::Word,
};

/// Reads options from the words of a command line into a job, where they replace what it says already. All
/// options of scripts are read, Slurm's and ours.
///
/// Returns how many words were options, `--` among them: the next one is the script or program. Who has to
/// know the script before reads them into an empty job first.
///
/// # Errors
/// All that is wrong with the options; then the job is as it was.
pub fn apply_arguments<S: AsRef<str>>(
    job: &mut JobRequest,
    arguments: &[S],
) -> Result<(usize, Vec<Warning>), Problems> {
    let mut findings = Findings::default();
    let word = |(index, text): (usize, &S)| Word::argument(index, text.as_ref());
    let words: Vec<Word> = arguments.iter().enumerate().map(word).collect();
    let mut changed = job.clone();
    let read = read(&words, Source::Arguments, &mut changed, &mut findings);
    let warnings = findings.end()?;
    *job = changed;
    Ok((read, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_over_the_script() {
        let script = "#!/bin/sh\n#SBATCH -N 2 -t 10 -J a\n#FF2 --data=/a\ntrue\n";
        let (mut job, _) = crate::from_script(script).unwrap();
        let words = [
            "-t",
            "20",
            "--data=/b",
            "--grace=30",
            "--mail-type=END",
            "-N4",
            "train.sh",
            "-n",
            "x",
        ];
        let (read, warnings) = apply_arguments(&mut job, &words).unwrap();
        assert_eq!(&words[read..], ["train.sh", "-n", "x"]);
        assert_eq!(
            crate::to_yaml(&JobRequest { script: None, ..job }),
            "name: a\nnodes: 4\ntime-limit: 00:20:00\ngrace: 30\ndata:\n- /a\n- /b\n"
        );
        assert_eq!(
            warnings[0].to_string(),
            "argument 5: --mail-type changes nothing here: no mail is sent"
        );
    }

    #[test]
    fn two_dashes_end_the_options() {
        let mut job = JobRequest::default();
        assert_eq!(apply_arguments(&mut job, &["--exclusive", "--", "-x"]), Ok((2, vec![])));
        assert_eq!(job.exclusive, Some(true));
    }

    #[test]
    fn problems_change_nothing() {
        let mut job = JobRequest::default();
        let words = ["-N2", "--time", "soon", "--tme=3", "-z", "--wrap=ls", "--mem"];
        let problems = apply_arguments(&mut job, &words).unwrap_err();
        assert_eq!(
            problems.to_string(),
            "argument 3: --time: \"soon\" is no time limit: expected minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or \
             D-HH:MM:SS, more than 0\n\
             argument 4: \"--tme\" is no option: did you mean --time?\n\
             argument 5: \"-z\" is no option: expected one of sbatch's\n\
             argument 6: --wrap is one of Slurm's options that we do not have: hand the \
             command over instead of a script\n\
             argument 7: \"--mem\" has no value: expected one behind it"
        );
        assert_eq!(job, JobRequest::default());
    }

    #[test]
    fn damaged_arguments() {
        let seeds = [
            &b"-N 2 --time=1-00:00:00 --gres gpu:a100:4 -d afterok:1 -o%x.out --array=1-10:3%2"[..],
            b"--mem=4G --signal=B:USR1@60 --export=ALL,A=1 --nice --exclusive -- x",
        ];
        ff2_fuzz::target!(seeds.map(<[u8]>::to_vec).to_vec(), |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let words: Vec<&str> = text.split(' ').collect();
            let mut job = JobRequest::default();
            let read = ff2_fuzz::bounded(bytes, || apply_arguments(&mut job, &words));
            match read {
                Ok((read, _)) => assert!(read <= words.len()),
                Err(_) => assert_eq!(job, JobRequest::default()),
            }
        });
    }
}
