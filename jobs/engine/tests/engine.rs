#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! What the engine promises its caller.

mod common;

use std::time::Duration;

use common::{Answer, answer, engine, eventually, options, reference, text};
use ff2_engine::{Event, Reason, Refused, Request, Sampling};
use ff2_model::Tokens;

fn seeded(seed: u64) -> Sampling {
    Sampling { seed: Some(seed), temperature: 1.3, top_p: 0.95, ..Sampling::default() }
}

fn sampled(prompt: Vec<u32>, max_tokens: usize, seed: u64) -> Request {
    Request { sampling: seeded(seed), ..Request::greedy(prompt, max_tokens) }
}

#[test]
fn greedy_text_is_the_models_own_alone_and_in_a_batch() {
    for name in ["v3", "v3-yarn", "v3-no-q-lora", "v2"] {
        let model = reference(name);
        let prompts: Vec<Vec<u32>> = (0..7).map(|at| text(at, 3 + at as usize * 4)).collect();
        let expected: Vec<Vec<u32>> = prompts
            .iter()
            .map(|prompt| {
                let tokens = Tokens::new(prompt.clone(), prompt.len(), 48).unwrap();
                model.greedy(&tokens, 20).unwrap().remove(0)
            })
            .collect();
        let engine = engine(&model, options());
        for (prompt, expected) in prompts.iter().zip(&expected) {
            let request = Request::greedy(prompt.clone(), 20);
            assert_eq!(answer(&engine, request).choices[0].tokens, *expected, "{name}, alone");
        }
        let all: Vec<_> = prompts
            .iter()
            .map(|prompt| engine.submit(Request::greedy(prompt.clone(), 20)).unwrap())
            .collect();
        for (generation, expected) in all.into_iter().zip(&expected) {
            let found = Answer::of(generation);
            assert_eq!(found.choices[0].tokens, *expected, "{name}, in a batch");
            assert_eq!(found.choices[0].reason, Some(Reason::Length));
        }
    }
}

#[test]
fn without_enough_blocks_sequences_give_way_and_the_text_is_the_same() {
    let model = reference("v3");
    let free = engine(&model, options());
    let tight = engine(&model, common::with_blocks(&model, options(), 14));
    let requests = || (0..5).map(|seed| sampled(text(seed, 9), 40, u64::from(seed)));
    let expected: Vec<_> = requests().map(|request| answer(&free, request).texts()).collect();
    let all: Vec<_> = requests().map(|request| tight.submit(request).unwrap()).collect();
    let found: Vec<_> = all.into_iter().map(|generation| Answer::of(generation).texts()).collect();
    assert_eq!(found, expected);
    eventually(|| tight.figures().blocks_used == 0);
    assert!(tight.figures().preemptions > 0);
}

#[test]
fn choices_differ_among_each_other_and_are_the_same_again_beside_others() {
    let model = reference("v3");
    let engine = engine(&model, options());
    let request = || Request { n: 4, ..sampled(text(1, 10), 12, 9) };
    let alone = answer(&engine, request());
    let others: Vec<_> =
        (0..6).map(|seed| engine.submit(sampled(text(seed, 20), 30, 1)).unwrap()).collect();
    let beside = answer(&engine, request());
    assert_eq!(alone.texts(), beside.texts());
    for one in 1..4 {
        assert_ne!(alone.choices[0].tokens, alone.choices[one].tokens);
    }
    assert_eq!((alone.usage.unwrap().prompt, alone.usage.unwrap().completion), (10, 48));
    drop(others);
    eventually(|| engine.figures().blocks_used == 0);
}

#[test]
fn dropping_or_stopping_a_generation_frees_its_blocks() {
    let model = reference("v3");
    let engine = engine(&model, options());
    let endless = || Request { n: 2, ..sampled(text(3, 10), 100, 4) };
    let mut dropped = engine.submit(endless()).unwrap();
    assert!(matches!(dropped.next_blocking(), Some(Event::Token { .. })));
    drop(dropped);
    eventually(|| engine.figures().running == 0 && engine.figures().blocks_used == 0);
    let mut stopped = engine.submit(endless()).unwrap();
    assert!(matches!(stopped.next_blocking(), Some(Event::Token { .. })));
    stopped.stop(1);
    stopped.stop(7);
    let found = Answer::of(stopped);
    assert_eq!(found.choices[1].reason, Some(Reason::Stop));
    assert!(found.choices[1].tokens.len() < 100);
    assert_eq!(found.choices[0].reason, Some(Reason::Length));
    eventually(|| engine.figures().blocks_used == 0);
}

#[test]
fn answers_end_at_stop_tokens_which_are_told() {
    let model = reference("v3");
    let engine = engine(&model, options());
    let all = answer(&engine, Request::greedy(text(2, 8), 20)).choices.remove(0).tokens;
    let stop = all[6];
    let first = all.iter().position(|token| *token == stop).unwrap();
    let request = Request { stop_tokens: vec![stop], ..Request::greedy(text(2, 8), 20) };
    let found = answer(&engine, request).choices.remove(0);
    assert_eq!(found.tokens, all[..=first]);
    assert_eq!(found.reason, Some(Reason::Stop));
}

#[test]
fn a_prompt_seen_before_comes_from_the_cache() {
    let model = reference("v3");
    let engine = engine(&model, options());
    let request = |len| Request::greedy(text(1, len), 5);
    let cold = answer(&engine, request(41));
    assert_eq!(cold.usage.unwrap().cached, 0);
    let warm = answer(&engine, request(41));
    assert_eq!(warm.usage.unwrap().cached, 40);
    assert_eq!(warm.texts(), cold.texts());
    // The last token is always computed: its logits are wanted.
    assert_eq!(answer(&engine, request(40)).usage.unwrap().cached, 36);
    // What was answered is part of the next prompt of a conversation.
    let longer = [text(1, 41), cold.choices[0].tokens.clone(), vec![3]].concat();
    assert_eq!(answer(&engine, Request::greedy(longer, 1)).usage.unwrap().cached, 44);
    eventually(|| {
        let figures = engine.figures();
        (figures.prefix_queries, figures.prefix_hits) == (41 + 41 + 40 + 47, 40 + 36 + 44)
    });
}

#[test]
fn log_probabilities_of_prompt_and_answer_are_the_models() {
    let model = reference("v3");
    let engine = engine(&model, options());
    let request =
        Request { logprobs: Some(2), prompt_logprobs: Some(0), ..sampled(text(4, 30), 6, 2) };
    let found = answer(&engine, request);
    let all = [text(4, 30), found.choices[0].tokens.clone()].concat();
    let tokens = Tokens::new(all.clone(), all.len(), 48).unwrap();
    let logits = model.logits(&model.forward(&tokens));
    let expected = |position: usize| {
        let row = &logits.data()[(position - 1) * 48..position * 48];
        row[all[position] as usize] - row.iter().map(|x| x.exp()).sum::<f32>().ln()
    };
    assert_eq!(found.prompt.len(), 30);
    assert_eq!(found.prompt[0], (all[0], None));
    for position in 1..36usize {
        let found = match position.checked_sub(30) {
            None => found.prompt[position].1.unwrap(),
            Some(at) => found.choices[0].logprobs[at],
        };
        assert!((found - expected(position)).abs() < 1e-4, "{position}: {found}");
    }
    assert!(found.choices[0].top.iter().all(|top| top.len() == 2 && top[0].1 >= top[1].1));
}

#[test]
fn what_cannot_be_done_is_refused_with_reasons() {
    let model = reference("v3");
    let engine = engine(&model, options());
    let refused = |request| engine.submit(request).unwrap_err();
    let too_long = Refused::TooLong { tokens: 130, limit: 128 };
    assert_eq!(refused(Request::greedy(text(0, 100), 30)), too_long);
    let invalid = |request, words: &str| {
        let error = refused(request).to_string();
        assert!(error.contains(words), "{error}");
    };
    invalid(Request::greedy(Vec::new(), 1), "the prompt is empty");
    invalid(Request::greedy(vec![48], 1), "token 48, expected less than 48");
    invalid(Request::greedy(vec![1], 0), "max_tokens is 0");
    invalid(Request { n: 9, ..Request::greedy(vec![1], 1) }, "n is 9, expected 1 to 8");
    let hot = Sampling { temperature: f32::NAN, ..Sampling::default() };
    invalid(Request { sampling: hot, ..Request::greedy(vec![1], 1) }, "temperature is NaN");
    let biased = Sampling { logit_bias: vec![(48, 1.0)], ..Sampling::default() };
    invalid(Request { sampling: biased, ..Request::greedy(vec![1], 1) }, "token below 48");
    invalid(Request { logprobs: Some(21), ..Request::greedy(vec![1], 1) }, "logprobs is 21");
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_draining_engine_finishes_what_it_has() {
    let model = reference("v3");
    let narrow = ff2_engine::EngineOptions { max_running: 1, max_waiting: 2, ..options() };
    let engine = engine(&model, narrow);
    let mut accepted = Vec::new();
    let retry_after = loop {
        match engine.submit(sampled(text(1, 10), 100, 3)) {
            Ok(generation) => accepted.push(generation),
            Err(Refused::QueueFull { retry_after }) => break retry_after,
            Err(other) => panic!("{other}"),
        }
        assert!(accepted.len() < 50);
    };
    assert!(retry_after >= Duration::from_secs(1));
    let draining = tokio::spawn({
        let engine = engine.clone();
        async move { engine.drain().await }
    });
    while engine.submit(Request::greedy(vec![1], 1)).err() != Some(Refused::Stopping) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for generation in accepted {
        let found = Answer::of_async(generation).await;
        assert_eq!(found.choices[0].tokens.len(), 100);
    }
    draining.await.unwrap();
    assert_eq!((engine.figures().running, engine.figures().waiting), (0, 0));
}

#[test]
fn the_end_of_the_engine_is_told() {
    let model = reference("v3");
    let engine = engine(&model, options());
    let mut generation = engine.submit(sampled(text(1, 10), 110, 3)).unwrap();
    generation.next_blocking().unwrap();
    drop(engine);
    let found = Answer::of(generation);
    assert!(matches!(found.choices[0].reason, Some(Reason::Cancelled | Reason::Length)));
}
