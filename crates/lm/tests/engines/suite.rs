//! What every target must do, whatever its engine: one suite, which the tests of each engine run on their models.
//!
//! Those whose name ends in `are_exact` or that compare bits hold for a target that promises
//! [`Promise::Exact`](dunlin_lm::Promise::Exact); the others for all.

#![allow(dead_code, reason = "no engine uses all of it")]

use crate::files::Random;
use dunlin_lm::{Error, Extend, SessionId, Target};
use std::collections::BTreeMap;

/// Architectures of which small models are made.
pub(crate) const ARCHITECTURES: [&str; 9] =
    ["llama", "mistral3", "qwen2", "qwen3", "smollm3", "phi3", "gemma", "gemma2", "gemma3"];

pub(crate) fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// Rows of all tokens that one session appends.
pub(crate) fn extend(target: &mut dyn Target, session: SessionId, keep: usize, tokens: &[u32]) -> Vec<f32> {
    let batch = [Extend { session, keep, tokens, rows: tokens.len() }];
    target.extend(&batch).pop().unwrap().unwrap()
}

/// Logits after each token, one token at a time in a session of its own.
pub(crate) fn one_by_one(target: &mut dyn Target, tokens: &[u32]) -> Vec<Vec<u32>> {
    let session = target.open().unwrap();
    let rows = (0..tokens.len()).map(|i| bits(&extend(target, session, i, &tokens[i..=i]))).collect();
    target.close(session);
    rows
}

/// One session of the random test: its tokens, and the bits of every row that it received.
struct Walk {
    session: SessionId,
    tokens: Vec<u32>,
}

/// Extends random subsets of sessions by random amounts after random rollbacks, and compares each row with the
/// row of the same tokens decoded one by one.
pub(crate) fn ragged_batches_are_exact(target: &mut dyn Target, seed: u64, vocabulary: usize, rounds: usize) {
    let random = &mut Random(seed);
    let width = target.vocabulary().size as usize;
    let mut walks: Vec<Walk> =
        (0..5).map(|_| Walk { session: target.open().unwrap(), tokens: vec![] }).collect();
    let mut given: BTreeMap<Vec<u32>, Vec<u32>> = BTreeMap::new();
    for round in 0..rounds {
        let mut parts = Vec::new();
        for walk in &mut walks {
            if random.below(4) == 0 {
                continue;
            }
            let keep = walk.tokens.len() - random.below(walk.tokens.len().min(6) + 1);
            let count = [1, 1, 2, 3, 4, 5, 8, 17][random.below(8)];
            let new = random.tokens(count, vocabulary);
            walk.tokens.truncate(keep);
            walk.tokens.extend(&new);
            parts.push((walk.session, keep, new, random.below(count + 1), walk.tokens.clone()));
        }
        let batch: Vec<Extend<'_>> = parts
            .iter()
            .map(|(session, keep, tokens, rows, _)| Extend {
                session: *session,
                keep: *keep,
                tokens,
                rows: *rows,
            })
            .collect();
        for (answer, (_, _, _, rows, held)) in target.extend(&batch).into_iter().zip(&parts) {
            let answer = answer.unwrap();
            assert_eq!(answer.len(), rows * width, "seed {seed} round {round}");
            for (row, logits) in answer.chunks(width).enumerate() {
                let context = held[..held.len() - rows + row + 1].to_vec();
                given.insert(context, bits(logits));
            }
        }
    }
    for walk in &walks {
        for (length, row) in one_by_one(target, &walk.tokens).into_iter().enumerate() {
            if let Some(batched) = given.get(&walk.tokens[..=length]) {
                assert_eq!(batched, &row, "seed {seed}, row {length}");
                given.remove(&walk.tokens[..=length]);
            }
        }
    }
    walks.iter().for_each(|walk| target.close(walk.session));
}

/// Lone rows behind a context of 252 tokens have the bits of chunks, also across 256.
pub(crate) fn lone_rows_of_long_contexts_are_exact(target: &mut dyn Target, vocabulary: usize) {
    let tokens = Random(5).tokens(260, vocabulary);
    let [alone, chunked] = [(); 2].map(|()| target.open().unwrap());
    for session in [alone, chunked] {
        let part = Extend { session, keep: 0, tokens: &tokens[..252], rows: 0 };
        target.extend(&[part]).pop().unwrap().unwrap();
    }
    let rows: Vec<u32> = (252..260).flat_map(|i| bits(&extend(target, alone, i, &tokens[i..=i]))).collect();
    assert_eq!(bits(&extend(target, chunked, 252, &tokens[252..])), rows, "a chunk");
    let width = target.vocabulary().size as usize;
    assert_eq!(bits(&extend(target, chunked, 259, &tokens[259..])), rows[7 * width..], "a row again");
    assert_eq!(bits(&extend(target, chunked, 256, &tokens[256..])), rows[4 * width..], "after a rollback");
    [alone, chunked].into_iter().for_each(|session| target.close(session));
}

/// A prompt of more rows than a pass takes has the bits of single tokens.
pub(crate) fn long_prompts_are_exact(target: &mut dyn Target, vocabulary: usize) {
    let width = target.vocabulary().size as usize;
    let tokens = Random(1).tokens(280, vocabulary);
    let session = target.open().unwrap();
    let chunk = extend(target, session, 0, &tokens);
    for (row, single) in one_by_one(target, &tokens).iter().enumerate() {
        assert_eq!(&bits(&chunk[row * width..(row + 1) * width]), single, "row {row}");
    }
    target.close(session);
}

/// A context in chunks of each size, beside a session that drafts and rolls back.
pub(crate) fn chunks_are_exact(target: &mut dyn Target, vocabulary: usize) {
    let tokens = Random(3).tokens(300, vocabulary);
    let whole = target.open().unwrap();
    let width = target.vocabulary().size as usize;
    let expected = bits(&extend(target, whole, 0, &tokens)[299 * width..]);
    let beside = target.open().unwrap();
    extend(target, beside, 0, &tokens[..20]);
    for size in [1, 2, 5, 8, 31, 64, 100, 256] {
        let session = target.open().unwrap();
        let mut answer = Vec::new();
        for (i, chunk) in tokens.chunks(size).enumerate() {
            let drafts = Random(i as u64).tokens(1 + i % 9, vocabulary);
            let batch = [
                Extend { session: beside, keep: 10 + i % 10, tokens: &drafts, rows: drafts.len() },
                Extend { session, keep: i * size, tokens: chunk, rows: 1 },
            ];
            answer = target.extend(&batch).pop().unwrap().unwrap();
            // The part that is written twice is that of a draft that was wrong.
            extend(target, beside, 8, &tokens[8..20]);
        }
        assert_eq!(bits(&answer), expected, "chunks of {size}");
        target.close(session);
    }
    [whole, beside].into_iter().for_each(|session| target.close(session));
}

/// A fork has the bits of a session that read its tokens, and neither sees what the other reads from there on.
pub(crate) fn forks_are_exact(target: &mut dyn Target, vocabulary: usize) {
    let tokens = Random(4).tokens(90, vocabulary);
    let first = target.open().unwrap();
    let whole = extend(target, first, 0, &tokens);
    let width = target.vocabulary().size as usize;
    for length in [0, 1, 63, 64, 65, 89] {
        let fork = target.fork(first, length).unwrap().unwrap();
        assert_eq!(target.len(fork).unwrap(), length);
        let other = extend(target, first, length, &[1, 2, 3]);
        let rest = extend(target, fork, length, &tokens[length..]);
        assert_eq!(bits(&rest), bits(&whole[length * width..]), "{length}");
        assert_eq!(bits(&extend(target, first, length, &[1, 2, 3])), bits(&other));
        extend(target, first, length, &tokens[length..]);
        target.close(fork);
    }
    assert!(matches!(target.fork(first, 91), Err(Error::Keep { keep: 91, length: 90 })));
    target.close(first);
}

/// Tokens that were rolled back have no effect.
pub(crate) fn rollbacks_are_exact(target: &mut dyn Target) {
    let (a, b) = (target.open().unwrap(), target.open().unwrap());
    let fresh = extend(target, a, 0, &[1, 2, 3, 4, 5]);
    extend(target, b, 0, &[1, 2, 3, 40, 41, 42, 43, 44]);
    target.truncate(b, 3).unwrap();
    assert_eq!(target.len(b).unwrap(), 3);
    let width = target.vocabulary().size as usize;
    assert_eq!(bits(&extend(target, b, 3, &[4, 5])), bits(&fresh[3 * width..]));
    assert_eq!(target.len(b).unwrap(), 5);
    [a, b].into_iter().for_each(|session| target.close(session));
}

/// A part that can't be served has an error of its own, and the others run. The embedding has 96 rows, a context 128
/// tokens.
pub(crate) fn bad_parts_fail_alone(target: &mut dyn Target) {
    let sessions: Vec<SessionId> = (0..7).map(|_| target.open().unwrap()).collect();
    target.close(sessions[6]);
    let long = vec![1; 129];
    let part = |session: usize, keep, tokens, rows| Extend { session: sessions[session], keep, tokens, rows };
    let batch = [
        part(0, 0, &[1, 2][..], 2),
        part(0, 0, &[1], 1),
        part(1, 1, &[1], 1),
        part(2, 0, &[96], 1),
        part(3, 0, &long, 1),
        part(4, 0, &[1], 2),
        part(6, 0, &[1], 1),
        part(5, 0, &[1, 2], 1),
    ];
    let answers = target.extend(&batch);
    assert!(matches!(answers[1], Err(Error::RepeatedSession(_))));
    assert!(matches!(answers[2], Err(Error::Keep { keep: 1, length: 0 })));
    assert!(matches!(answers[3], Err(Error::Token { token: 96, vocabulary: 96 })));
    assert!(matches!(answers[4], Err(Error::ContextFull { length: 0, added: 129, max: 128 })));
    assert!(matches!(answers[5], Err(Error::Rows { rows: 2, tokens: 1 })));
    assert!(matches!(answers[6], Err(Error::UnknownSession(_))));
    let both = answers[0].as_ref().unwrap();
    assert_eq!(both.len(), 2 * target.vocabulary().size as usize);
    assert!(answers[7].is_ok());
    let lengths: Vec<usize> = sessions[..6].iter().map(|session| target.len(*session).unwrap()).collect();
    assert_eq!(lengths, [2, 0, 0, 0, 0, 2]);
    sessions[..6].iter().for_each(|session| target.close(*session));
}
