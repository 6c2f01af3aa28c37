//! Similarity of two replies: ROUGE-L, and the share of numbers and names in common.
//!
//! Invariant: pure functions of two texts; nothing here knows a model or a policy.
//!
//! [`slot_counts`] is *ours*: a simple substitute for the slot accuracy of task dialogues, where a reply with `7:30`
//! for `8:30` has failed however similar its words are. It needs no ontology, so it can't distinguish a slot from any
//! other number or name: `one` in *that one* counts, and a name at the beginning of a sentence is ignored.

use std::collections::BTreeMap;

/// ROUGE-L F1 (the longest common subsequence) over lower-cased runs of letters and digits, in 0..=1.
///
/// 1 if neither text has words; 0 if only one has.
pub fn rouge_l(candidate: &str, reference: &str) -> f64 {
    let (a, b) = (words(candidate), words(reference));
    if a.is_empty() && b.is_empty() {
        return 1.0;
    }
    2.0 * common(&a, &b) as f64 / (a.len() + b.len()) as f64
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// The length of the longest common subsequence.
fn common(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// The number of the reference's numbers and names that the candidate has too, and their total; each is counted as
/// often as it occurs.
///
/// Numbers are words that start with a digit (after a currency sign) and the words one to twelve; `7:30 p.m.` is one
/// number, `1,200` is `1200` and `8th` is `8`. Names are capitalised words other than `I`; in the reference, but not
/// in the candidate, words at the beginning of a sentence are excluded.
pub fn slot_counts(candidate: &str, reference: &str) -> (u64, u64) {
    let (has, wanted) = (slots(candidate, true), slots(reference, false));
    let found = wanted.iter().map(|(slot, count)| has.get(slot).map_or(0, |had| *had.min(count))).sum();
    (found, wanted.values().sum())
}

/// The slots of a text with their counts, with or without names at the beginning of a sentence.
fn slots(text: &str, opening_names: bool) -> BTreeMap<String, u64> {
    let mut slots = BTreeMap::new();
    for line in text.lines() {
        let mut opens = true;
        let mut words = line.split_whitespace().peekable();
        while let Some(mut raw) = words.next() {
            let word = bare(raw);
            let mut slot = number(word).or_else(|| name(word).filter(|_| !opens || opening_names));
            if let Some(time) = slot.as_mut().filter(|_| raw.ends_with(|c: char| c.is_ascii_digit()))
                && let Some((next, half)) = words.peek().and_then(|next| Some((*next, half_of_day(next)?)))
            {
                time.push_str(half);
                raw = next;
                words.next();
            }
            if let Some(slot) = slot {
                *slots.entry(slot).or_insert(0) += 1;
            }
            // A dash does not change whether the next word begins a sentence.
            opens = if word.is_empty() { opens } else { ends_sentence(raw, word) };
        }
    }
    slots
}

/// A word without the punctuation around it.
fn bare(raw: &str) -> &str {
    let kept = |c: char| c.is_alphanumeric() || "$€£¥".contains(c);
    raw.trim_start_matches(|c| !kept(c)).trim_end_matches(|c: char| !kept(c) && c != '%')
}

/// True when a sentence ends behind this word; the full stop of an initial ends none.
fn ends_sentence(raw: &str, word: &str) -> bool {
    let initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    let end = raw.trim_end_matches(|c: char| "\"'”’)]".contains(c));
    end.ends_with(['!', '?', '…']) || (end.ends_with('.') && !initial)
}

/// A word as a number in a canonical spelling; `None` if it is not a number.
fn number(word: &str) -> Option<String> {
    const WORDS: [&str; 12] =
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    let word = word.to_lowercase();
    if let Some(i) = WORDS.iter().position(|number| *number == word) {
        return Some((i + 1).to_string());
    }
    let digits = word.trim_start_matches(['$', '€', '£', '¥']);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut number = word.replace(',', "");
    if let Some(half) =
        half_of_day(digits.trim_start_matches(|c: char| c.is_ascii_digit() || ":.".contains(c)))
    {
        number = number.trim_end_matches(|c: char| c.is_alphabetic() || c == '.').to_string() + half;
    }
    for ordinal in ["st", "nd", "rd", "th"] {
        if let Some(cardinal) =
            number.strip_suffix(ordinal).filter(|n| n.ends_with(|c: char| c.is_ascii_digit()))
        {
            return Some(cardinal.to_string());
        }
    }
    Some(number)
}

/// `am` or `pm` from any of their spellings.
fn half_of_day(word: &str) -> Option<&'static str> {
    let letters: String = word.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect();
    let plain = word.chars().all(|c| c.is_alphabetic() || c.is_ascii_punctuation());
    match letters.as_str() {
        "am" if plain => Some("am"),
        "pm" if plain => Some("pm"),
        _ => None,
    }
}

/// A word as a name in a canonical spelling (lower-cased, without a genitive); `None` if it is not a name.
fn name(word: &str) -> Option<String> {
    let stem = word.strip_suffix("'s").or(word.strip_suffix("’s")).unwrap_or(word);
    let speaker = stem == "I" || stem.starts_with("I'") || stem.starts_with("I’");
    (stem.starts_with(char::is_uppercase) && !speaker).then(|| stem.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rouge_l_by_hand() {
        for (candidate, reference, want) in [
            ("", "", 1.0),
            ("...", "!", 1.0),
            ("", "a", 0.0),
            ("a", "", 0.0),
            ("The cat sat.", "the cat sat", 1.0),
            ("police kill the gunman", "police killed the gunman", 0.75),
            ("the gunman kill police", "police killed the gunman", 0.5),
            ("a b c d", "a c", 2.0 * 2.0 / 6.0),
            ("a a", "a a a", 2.0 * 2.0 / 5.0),
            ("ÜBER Straße", "über straße", 1.0),
            ("東京 へ", "東京 へ", 1.0),
            ("x", "y", 0.0),
        ] {
            assert!((rouge_l(candidate, reference) - want).abs() < 1e-12, "{candidate:?} {reference:?}");
            assert!((rouge_l(reference, candidate) - want).abs() < 1e-12, "{reference:?} {candidate:?}");
        }
    }

    #[test]
    fn the_subsequence_agrees_with_the_definition() {
        fn slow(a: &[String], b: &[String]) -> usize {
            match (a.split_first(), b.split_first()) {
                (Some((x, a1)), Some((y, b1))) if x == y => 1 + slow(a1, b1),
                (Some((_, a1)), Some((_, b1))) => slow(a1, b).max(slow(a, b1)),
                _ => 0,
            }
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let mut text =
                || (0..random.usize(..8)).map(|_| random.char('a'..='c').to_string()).collect::<Vec<_>>();
            let (a, b) = (text(), text());
            assert_eq!(common(&a, &b), slow(&a, &b), "{a:?} {b:?}");
        }
    }

    fn listed(text: &str) -> Vec<String> {
        let each = |(slot, count): (String, u64)| std::iter::repeat_n(slot, count as usize);
        slots(text, false).into_iter().flat_map(each).collect()
    }

    #[test]
    fn numbers_have_one_spelling() {
        assert_eq!(listed("At 7:30 pm, at 7:30 P.M. and at 7:30pm."), ["7:30pm", "7:30pm", "7:30pm"]);
        assert_eq!(listed("it is 8 a.m. there"), ["8am"]);
        assert_eq!(listed("until 8 pm. The end"), ["8pm"], "no name opens the next sentence");
        assert_eq!(listed("it is 1,200 or 1200, or $1,200.50!"), ["$1200.50", "1200", "1200"]);
        assert_eq!(listed("on the 8th, on 2019-03-08 or 3/8"), ["2019-03-08", "3/8", "8"]);
        assert_eq!(listed("for two and Twelve (and 2)"), ["12", "2", "2"]);
        assert_eq!(listed("call 415-555-0100; 10% off, €5"), ["10%", "415-555-0100", "€5"]);
        assert_eq!(listed("I am 7. am I"), ["7"]);
        assert_eq!(listed("someone often sees thirteen"), Vec::<String>::new());
    }

    #[test]
    fn names_do_not_open_sentences() {
        assert_eq!(listed("Paris is nice. Rome too! Is Oslo? Bern"), ["oslo"]);
        assert_eq!(listed("say I, I'm, I’ll, Ann's and O'Neill"), ["ann", "o'neill"]);
        assert_eq!(
            listed("see Taraji P. Henson in Émile’s \"Jean-Luc\""),
            ["henson", "jean-luc", "p", "taraji", "émile"]
        );
        assert_eq!(listed("he left.\" Then Ann left"), ["ann"]);
        assert_eq!(listed("one line\nAnother line"), ["1"]);
        assert_eq!(listed("done. - Maria left"), Vec::<String>::new());
        assert_eq!(listed("in 東京 and Ζάκυνθος"), ["ζάκυνθος"]);
    }

    #[test]
    fn slots_are_counted_as_multisets() {
        assert_eq!(slot_counts("", ""), (0, 0));
        assert_eq!(slot_counts("at 8 in Rome", ""), (0, 0));
        assert_eq!(slot_counts("", "at 8 in Rome"), (0, 2));
        assert_eq!(slot_counts("at 8", "at 8 and 8"), (1, 2));
        assert_eq!(slot_counts("at 8 and 8", "at 8"), (1, 1));
        assert_eq!(slot_counts("Rome at eight", "go to Rome at 8"), (2, 2), "it may open the candidate");
        assert_eq!(slot_counts("at 8:30 pm in Rome", "at 7:30 pm in Rome"), (1, 2));
        assert_eq!(slot_counts("at 7:30 am", "at 7:30 pm"), (0, 1));
    }
}
