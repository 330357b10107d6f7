//! What is written is read again as the same, and no text does harm.

use std::collections::BTreeMap;

use ff2_submit::{
    Array, Checkpoint, Dependencies, FilePattern, Gpus, Grace, Inherit, JobRequest, Memory, Names,
    Priority, Signal, TimeLimit, apply_arguments, from_script, from_yaml, to_yaml,
};
use proptest::{collection, option, prelude::*};

/// Text with all that YAML treats in a way of its own.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        collection::vec(any::<char>(), 0..12).prop_map(String::from_iter),
        collection::vec(
            prop::sample::select(
                "\0\t\n\r \u{85}\u{a0}\u{2028}\u{feff}\u{ffff}\x1b\x7fa'\"\\:#-|>"
                    .chars()
                    .collect::<Vec<_>>()
            ),
            0..9
        )
        .prop_map(String::from_iter),
        "[ -~\n\t]{0,40}",
        "(#!/bin/sh\n)?([a-z#:|>&*!%@`'\"{}\\[\\], -]{0,12}\n){0,6}",
        prop::sample::select(vec![
            "",
            " ",
            "\n",
            "\n\n",
            "~",
            "null",
            "true",
            "no",
            "0x10",
            "1e3",
            ".5",
            "1_000",
            "-",
            "- a",
            "?",
            "a: b",
            "a #b",
            "%x",
            "\u{feff}x",
            "\r\n",
            "a\r",
            "\u{85}",
            "\u{2028}",
            "=",
            "<<",
            "12:30:45",
            "2026-01-01",
            "---",
            "...",
            "a\n---\nb",
            "  indented\nnot",
            "\n  first blank",
            "trailing  \n",
            "x\n\n\n",
            "\tx",
        ])
        .prop_map(str::to_owned),
    ]
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>(
    pattern: &'static str,
) -> impl Strategy<Value = T> {
    pattern.prop_map(|text| text.parse().expect("the pattern makes such texts only"))
}

fn array() -> impl Strategy<Value = Array> {
    let run = (0..50_u32, 0..50_u32, 1..9_u32).prop_map(|(first, more, step)| match more {
        0 => format!("{first}"),
        _ => format!("{first}-{}:{step}", first + more),
    });
    (collection::vec(run, 1..5), option::of(1..9_u32)).prop_map(|(runs, at_once)| {
        let at_once = at_once.map_or(String::new(), |at_once| format!("%{at_once}"));
        format!("{}{at_once}", runs.join(",")).parse().expect("runs are in order")
    })
}

prop_compose! {
    fn size()(
        counts in [option::of(1..9_u32), option::of(1..20_u32), option::of(1..9_u32), option::of(1..9_u32)],
        gpus in [option::of(0..9_u32), option::of(0..9_u32), option::of(0..9_u32)],
        kind in option::of("[a-z][a-z0-9-]{0,6}"),
        memory in option::of(prop_oneof![Just(Memory::All), (1..=u32::MAX).prop_map(Memory::Mib)]),
        exclusive: Option<bool>,
    ) -> JobRequest {
        let [nodes, ranks, ranks_per_node, cpus_per_rank] = counts.map(|count| count?.try_into().ok());
        let [all, node, rank] = gpus.map(|count| Some(Gpus { count: count?, kind: kind.clone() }));
        JobRequest {
            nodes, ranks, ranks_per_node, cpus_per_rank, memory_per_node: memory, exclusive,
            gpus: all, gpus_per_node: node, gpus_per_rank: rank, ..JobRequest::default()
        }
    }
}

const DEPENDENCIES: &str = "after(ok|any|notok)?:[1-9]{1,9}(_[0-9])?(:[0-9]{1,9})?([,?]singleton)?";
const OPTIONS: &str =
    "(time|mem|checkpoint|array|gres|gpus|signal|dependency|output|nodes|export|nice)";
const PATTERNS: &str = "([a-z]|%[jJAaxNntus%]|%[1-9][jAant]){1,9}";

prop_compose! {
    fn course()(
        priority in option::of(parsed::<Priority>("idle|under-normal|normal|above-normal|high|very-high|extreme")),
        time in option::of(1..u64::from(u32::MAX) * 60),
        array in option::of(array()),
        dependency in option::of(parsed::<Dependencies>(DEPENDENCIES)),
        replicas in [option::of(1..9_u32), option::of(1..9_u32)],
        requeue: Option<bool>,
        signal in option::of(parsed::<Signal>("(B:)?(SIGUSR1|TERM|HUP|[1-5][0-9])(@[1-9][0-9])?")),
        grace in option::of(5..=300_u16),
        checkpoint in option::of(parsed::<Checkpoint>("([1-9][0-9]|1:[0-5][0-9])(,[1-9][0-9]?[GT])?(,[1-9][0-9]?s)?")),
    ) -> JobRequest {
        let [min_replicas, max_replicas] = replicas.map(|count| count?.try_into().ok());
        JobRequest {
            priority, array, dependency, min_replicas, max_replicas, requeue, signal,
            time_limit: time.and_then(TimeLimit::from_seconds),
            grace: grace.and_then(Grace::from_seconds), checkpoint, ..JobRequest::default()
        }
    }
}

prop_compose! {
    fn job()(
        size in size(),
        course in course(),
        names in [option::of(text()), option::of(text()), option::of(text()), option::of(text())],
        texts in [option::of(text()), option::of(text())],
        files in [option::of(parsed::<FilePattern>("[ -$&-~]{1,9}(%[jJAaxNntus%]|%[1-9][jAant])?")),
            option::of(parsed::<FilePattern>("[a-z/]{1,9}"))],
        inherit in option::of(parsed::<Inherit>("all|none|[A-Z_][A-Z0-9_]{0,5}(,[a-z_]+)?")),
        lists in [collection::vec(text(), 0..3), collection::vec(text(), 0..3),
            collection::vec(text(), 0..3), collection::vec(text(), 0..3)],
        environment in collection::btree_map(text(), text(), 0..3),
    ) -> JobRequest {
        let [name, comment, queue, group] = names;
        let [work_dir, script] = texts;
        let [output, error] = files;
        let [data, tags, command, arguments] = lists;
        let environment: BTreeMap<String, String> = environment;
        JobRequest {
            priority: course.priority, array: course.array, dependency: course.dependency,
            min_replicas: course.min_replicas, max_replicas: course.max_replicas,
            requeue: course.requeue, signal: course.signal, time_limit: course.time_limit, grace: course.grace,
            checkpoint: course.checkpoint,
            name, comment, queue, group, work_dir, script, output, error, data, tags, command, arguments, inherit,
            environment, ..size
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn yaml_gives_the_same_job(job in job()) {
        let yaml = to_yaml(&job);
        let again = from_yaml(&yaml).map_err(|p| TestCaseError::fail(format!("{p}\n{yaml}")))?;
        prop_assert_eq!(&again, &job, "{}", yaml);
        prop_assert_eq!(to_yaml(&again), yaml);
    }

    #[test]
    fn checks_and_layouts_agree(size in size(), node_gpus in 0..9_u32) {
        let job = JobRequest { command: vec!["true".to_owned()], ..size };
        let checked = job.check();
        match job.layout(node_gpus) {
            Ok(layout) => {
                prop_assert!(checked.is_ok());
                prop_assert!(layout.nodes > 0 && layout.ranks >= layout.nodes);
                prop_assert!(layout.ranks <= layout.nodes.saturating_mul(layout.ranks_per_node));
                if let Some(gpus) = &job.gpus {
                    prop_assert_eq!(layout.gpus_per_node * layout.nodes, gpus.count);
                }
            }
            Err(contradictions) => prop_assert!(!contradictions.0.is_empty()),
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in text()) {
        let _ = from_yaml(&text);
        let _ = from_script(&text);
        for mark in ["#SBATCH", "#FF2 "] {
            if let Ok((job, _)) = from_script(&format!("#!/bin/sh\n{mark}{text}")) {
                prop_assert_eq!(from_yaml(&to_yaml(&job)), Ok(job));
            }
        }
        let _ = apply_arguments(&mut JobRequest::default(), &text.split(' ').collect::<Vec<_>>());
    }

    #[test]
    fn any_value_is_read_or_refused(value in "[0-9a-zA-Z:,%@?+_-]{0,12}", option in OPTIONS) {
        let mut job = JobRequest::default();
        if apply_arguments(&mut job, &[format!("--{option}={value}")]).is_ok() {
            prop_assert_eq!(from_yaml(&to_yaml(&job)), Ok(job));
        }
    }

    #[test]
    fn patterns_lead_to_one_path(pattern in parsed::<FilePattern>(PATTERNS), name in text()) {
        let names = Names {
            job: 1, array: Some((2, 3)), name: &name, user: &name, node: &name, node_index: 4, rank: 5,
        };
        prop_assert!(!pattern.expand(&names).contains('/'));
    }
}
