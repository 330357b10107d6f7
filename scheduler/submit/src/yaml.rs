//! Jobs as YAML.

use serde_saphyr::{Error, MessageFormatter as _, UserMessageFormatter, options};

use crate::{
    limits::YAML_BYTES_MAX,
    problem::{Place, Problems, shown},
    request::JobRequest,
};

/// Reads a job from a mapping with the names of [`JobRequest`]'s fields, `-` between their words.
///
/// # Errors
/// The first thing that is wrong, with its place: YAML is read as it comes.
pub fn from_yaml(text: &str) -> Result<JobRequest, Problems> {
    if text.len() > YAML_BYTES_MAX {
        let problem = format!("{} bytes are no job: expected at most {YAML_BYTES_MAX}", text.len());
        return Err(Problems::one(Place::Whole, problem));
    }
    let mut options = options! { with_snippet: false };
    // A job needs no aliases, and with a few bytes each they make a long text very often.
    options.alias_limits.max_alias_expansions_per_anchor = 0;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| problem(text, &error))
}

/// Writes what was said of a job, and nothing of what was not. [`from_yaml`] reads the same again.
pub fn to_yaml(job: &JobRequest) -> String {
    serde_saphyr::to_string(job).expect("numbers, texts and lists of them can be written")
}

fn problem(text: &str, error: &Error) -> Problems {
    let error = error.without_snippet();
    let at = error.location().map(|location| {
        let number = |n| usize::try_from(n).unwrap_or(usize::MAX);
        (number(location.line()), number(location.column()))
    });
    let Some((line, column)) = at.filter(|(line, _)| *line > 0) else {
        return Problems::one(Place::Whole, message(error));
    };
    let found = text
        .lines()
        .nth(line - 1)
        .map(|line| line.chars().skip(column.saturating_sub(1)).collect());
    let found: String = found.unwrap_or_default();
    let what = match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown_field(field, expected),
        // These are of our own making and name what stands there.
        Error::Message { msg, .. } if msg.starts_with('"') => msg.clone(),
        other => format!("{:?}: {}", shown(found.trim_end()), message(other)),
    };
    Problems::one(Place::line(line, column), what)
}

fn unknown_field(field: &str, expected: &[&'static str]) -> String {
    let field = &shown(field);
    let near = expected.iter().map(|known| (strsim::osa_distance(field, known), *known)).min();
    match near {
        Some((distance, known)) if distance <= 1 + field.len() / 4 => {
            format!("{field:?} is nothing that a job has: did you mean {known}?")
        }
        _ => format!("{field:?} is nothing that a job has: expected {}", expected.join(", ")),
    }
}

/// What was expected, in the words of people who write YAML rather than of those who read it.
fn message(error: &Error) -> String {
    let expected = match error {
        Error::Unexpected { expected: "string scalar", .. } => "text",
        Error::Unexpected { expected: "sequence start", .. } => "a list",
        Error::Unexpected { expected: "mapping start", .. } => "a mapping",
        Error::InvalidScalar { ty, .. } if ty.starts_with("bool") => "true or false",
        Error::NullIntoString { .. } => "text",
        Error::AliasExpansionLimitExceeded { .. } => "what stands behind &, in full",
        other => return shown(&UserMessageFormatter.format_message(other)),
    };
    format!("expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
name: llama
nodes: 16
ranks-per-node: 8
gpus-per-node: h100:8
memory-per-node: all
time-limit: 7-00:00:00
array: 0-99:3,200%8
dependency: afterok:811,singleton
signal: B:USR1@180
grace: 180
checkpoint: 00:05:00,40G,12s
data:
- /datasets/c4
output: logs/%x-%4t.out
inherit: HOME,PATH
environment:
  SEED: \"7\"
script: |
  #!/bin/bash
  srun python train.py
";

    #[test]
    fn what_was_said_is_written_and_no_more() {
        let job = from_yaml(SAID).unwrap();
        assert_eq!(to_yaml(&job), SAID);
        assert_eq!(to_yaml(&JobRequest::default()).trim_end(), "{}");
        let by_hand =
            from_yaml("{time-limit: 90, array: 5, gpus: 8, nodes: 2, grace: 60}").unwrap();
        assert_eq!(
            to_yaml(&by_hand),
            "nodes: 2\ngpus: 8\ntime-limit: 01:30:00\narray: \"5\"\ngrace: 60\n"
        );
    }

    #[test]
    fn problems_have_a_place_and_say_what_was_expected() {
        let table = [
            ("nam: x", "line 1, column 1: \"nam\" is nothing that a job has: did you mean name?"),
            (
                "name: x\ntime-limit: 1h",
                "line 2, column 13: \"1h\" is no time limit: expected minutes, MM:SS, HH:MM:SS, D-HH, \
                 D-HH:MM or D-HH:MM:SS, more than 0",
            ),
            (
                "nodes: 0",
                "line 1, column 8: \"0\" is no number: expected a whole number from 1 to 4294967295",
            ),
            ("gpus:\n  a: 1", "line 2, column 3: \"a: 1\": expected text"),
            (
                "checkpoint: 5m",
                "line 1, column 13: \"5m\" is no way to save: expected INTERVAL,SIZE,STEPs such as 5,40G,12s, the \
                 last two if they are known: minutes or HH:MM:SS from 1 minute to a day, what each node saves, and \
                 the seconds of a step, from 1 to 3600",
            ),
            ("exclusive: maybe", "line 1, column 12: \"maybe\": expected true or false"),
            ("data: /a", "line 1, column 7: \"/a\": expected a list"),
            ("environment: {A: ~}", "line 1, column 18: \"~}\": expected text"),
            ("- a", "line 1, column 1: \"- a\": expected a mapping"),
            (
                "name: a\nname: b",
                "line 2, column 1: \"name: b\": duplicate mapping key `name` is not allowed here",
            ),
            (
                "name: &x a\ncomment: *x",
                "line 2, column 10: \"*x\": expected what stands behind &, in full",
            ),
            ("name: *x", "line 1, column 7: \"*x\": reference to unknown value"),
        ];
        for (text, told) in table {
            assert_eq!(from_yaml(text).unwrap_err().to_string(), told, "{text}");
        }
        let unknown = from_yaml("colour: x").unwrap_err().to_string();
        assert!(unknown.contains("expected name, comment, queue, group,"), "{unknown}");
    }

    #[test]
    fn the_longest_scripts_are_read_again() {
        for fill in ["\u{1}", "é", "# a comment\n", "\"", "\t"] {
            let script = fill.repeat(crate::limits::SCRIPT_BYTES_MAX / fill.len());
            let job = JobRequest { script: Some(script), ..JobRequest::default() };
            assert!(from_yaml(&to_yaml(&job)) == Ok(job), "{fill:?}");
        }
        let long = "#".repeat(YAML_BYTES_MAX + 1);
        assert_eq!(
            from_yaml(&long).unwrap_err().to_string(),
            "in all: 20971521 bytes are no job: expected at most 20971520"
        );
    }

    #[test]
    fn damaged_jobs() {
        let deep = [b"name: ".as_slice(), &[b'['; 300]].concat();
        let alias = b"data: &a [x, y]\ncommand: *a\narguments: *a\n".to_vec();
        ff2_fuzz::target!(5_000, vec![SAID.as_bytes().to_vec(), deep, alias], |bytes| {
            let text = String::from_utf8_lossy(bytes);
            match ff2_fuzz::bounded(bytes, || from_yaml(&text)) {
                Ok(job) => assert_eq!(from_yaml(&to_yaml(&job)), Ok(job)),
                Err(problems) => assert_eq!(problems.list().len(), 1),
            }
        });
    }
}
