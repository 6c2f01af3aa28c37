//! Merges of a SentencePiece vocabulary, which has scores instead.
//!
//! SentencePiece merges the two neighbours whose union has the highest score. A list of merges says the same if every
//! pair whose union is a token is in it, in the order of that token's score.

use std::cmp::Reverse;

/// Most merges; Gemma's 256 000 tokens have 580 000.
pub(super) const MERGES_MAX: usize = 1 << 21;

/// Most bytes of all merges' tokens together; Gemma's have 6 MB.
const MERGED_BYTES_MAX: usize = 1 << 26;

/// A pair of tokens whose union is a token, in the order of merging.
struct Pair {
    score: f32,
    /// Bytes of the left and the right part.
    lengths: (usize, usize),
    parts: (u32, u32),
}

/// The merges of `tokens` with `scores`; only tokens that `takes_part` says yes to are parts or unions.
///
/// Pairs of the same score are in the order of the converters to `tokenizer.json`: the longer left part first, then the
/// longer right part, then the token's id. Apart from sorting, the time grows with the length of all tokens and with
/// the number of merges.
///
/// # Errors
/// More merges, or longer ones, than the bounds allow: in words.
pub(super) fn merges(
    tokens: &[String],
    scores: &[f32],
    takes_part: impl Fn(usize) -> bool,
) -> Result<Vec<(u32, u32)>, String> {
    let part = |(id, token): (usize, &String)| {
        let id = u32::try_from(id).ok().filter(|_| takes_part(id) && !token.is_empty());
        id.map(|id| (id, token.as_bytes().to_vec()))
    };
    let mut taking_part: Vec<(u32, Vec<u8>)> = tokens.iter().enumerate().filter_map(part).collect();
    let prefixes = longest_prefixes(&taking_part, tokens.len());
    taking_part.iter_mut().for_each(|(_, token)| token.reverse());
    let suffixes = longest_prefixes(&taking_part, tokens.len());
    let length = |id: u32| tokens[id as usize].len();
    let mut pairs = Vec::new();
    let mut bytes = 0;
    for (id, token) in &taking_part {
        // Prefixes come from the longest to the shortest, so suffixes must do so from the shortest to the longest.
        let mut ends: Vec<u32> = chain(&suffixes, *id).collect();
        for left in chain(&prefixes, *id) {
            let rest = token.len() - length(left);
            while ends.last().is_some_and(|right| length(*right) < rest) {
                ends.pop();
            }
            if let Some(right) = ends.last().filter(|right| length(**right) == rest) {
                let lengths = (length(left), rest);
                pairs.push(Pair { score: scores[*id as usize], lengths, parts: (left, *right) });
                bytes += token.len();
            }
        }
        if pairs.len() > MERGES_MAX || bytes > MERGED_BYTES_MAX {
            return Err(format!("more than {MERGES_MAX} merges or {MERGED_BYTES_MAX} bytes of them"));
        }
    }
    pairs.sort_by(|a, b| {
        b.score.total_cmp(&a.score).then_with(|| Reverse(a.lengths).cmp(&Reverse(b.lengths)))
    });
    Ok(pairs.into_iter().map(|pair| pair.parts).collect())
}

/// For each id, the longest other token that its token begins with.
fn longest_prefixes(tokens: &[(u32, Vec<u8>)], count: usize) -> Vec<Option<u32>> {
    let mut sorted: Vec<&(u32, Vec<u8>)> = tokens.iter().collect();
    sorted.sort_unstable_by(|(_, a), (_, b)| a.cmp(b));
    let mut longest = vec![None; count];
    // Each token here begins with those below it, and whatever begins with it follows it at once in the order.
    let mut open: Vec<&(u32, Vec<u8>)> = Vec::new();
    for token in sorted {
        while open.last().is_some_and(|(_, last)| !token.1.starts_with(last)) {
            open.pop();
        }
        longest[token.0 as usize] = open.last().map(|(id, _)| *id);
        open.push(token);
    }
    longest
}

/// The tokens that `links` leads to from `id`, from the longest to the shortest.
fn chain(links: &[Option<u32>], id: u32) -> impl Iterator<Item = u32> + '_ {
    std::iter::successors(links[id as usize], |id| links[*id as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn of(tokens: &[(&str, f32)]) -> Vec<(String, String)> {
        let (texts, scores): (Vec<String>, Vec<f32>) = tokens.iter().map(|(t, s)| ((*t).into(), *s)).unzip();
        let pairs = merges(&texts, &scores, |_| true).unwrap();
        pairs.iter().map(|(a, b)| (texts[*a as usize].clone(), texts[*b as usize].clone())).collect()
    }

    #[test]
    fn the_highest_score_is_merged_first() {
        let vocabulary = [("a", 0.0), ("b", 0.0), ("c", 0.0), ("ab", -2.0), ("bc", -1.0), ("abc", -3.0)];
        let found = of(&vocabulary);
        let expected = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")];
        assert_eq!(found, expected.map(|(a, b)| (a.to_string(), b.to_string())));
    }

    #[test]
    fn parts_are_whole_characters() {
        let found = of(&[("▁", 0.0), ("é", 0.0), ("▁é", -1.0)]);
        assert_eq!(found, [("▁".to_string(), "é".to_string())]);
    }

    #[test]
    fn a_token_that_takes_no_part_is_no_part() {
        let tokens = ["a", "b", "ab"].map(String::from);
        assert_eq!(merges(&tokens, &[0.0; 3], |id| id != 1).unwrap(), []);
        assert_eq!(merges(&tokens, &[0.0; 3], |id| id != 2).unwrap(), []);
        assert_eq!(merges(&tokens, &[0.0; 3], |_| true).unwrap(), [(0, 1)]);
    }

    #[test]
    fn every_split_of_every_token_is_found() {
        let bits = |length: usize| (0..1 << length).map(move |n| format!("{n:0length$b}"));
        let tokens: Vec<String> = (1..=5).flat_map(bits).filter(|token| !token.ends_with("011")).collect();
        let found: BTreeSet<(u32, u32)> =
            merges(&tokens, &vec![0.0; tokens.len()], |_| true).unwrap().into_iter().collect();
        let is_token = |left: &String, right: &String| tokens.contains(&[left.as_str(), right].concat());
        let ids = 0..tokens.len() as u32;
        let all = ids.clone().flat_map(|left| ids.clone().map(move |right| (left, right)));
        let expected = all.filter(|(l, r)| is_token(&tokens[*l as usize], &tokens[*r as usize]));
        assert_eq!(found, expected.collect());
    }

    #[test]
    fn too_many_merges_are_refused() {
        let longer: Vec<String> = (1..2300).map(|length| "a".repeat(length)).collect();
        let refused = merges(&longer, &vec![0.0; longer.len()], |_| true).unwrap_err();
        assert!(refused.starts_with("more than 2097152 merges or 67108864 bytes"), "{refused}");
    }
}
