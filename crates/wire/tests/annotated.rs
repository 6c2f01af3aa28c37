//! Annotated draft frames: each check of the tail, bit by bit, and the sizes that callers rely on.

mod common;

use common::{
    On, annotated, codes, credited, frame, held_drafts, last_tokens, lattice, row, top_k, top_k_sampled,
};
use dunlin_wire::limits::{
    ANNOTATED_BYTES_MAX, ANNOTATED_HEADER_BYTES_MAX, DRAFT_TOKENS_MAX, ROW_ENTRIES_MAX, TOKEN_BITS_MAX,
    TOKEN_BITS_MIN,
};
use dunlin_wire::{
    Credit, DecodeError, DraftFrame, EncodeError, Row, Rows, Up, count_send, frame_check, frame_digest,
    judged_drafts_max, row_bits_max, token_bits,
};
use std::collections::BTreeSet;

const HELD: &str = "1";
const JUDGED: &str = "0";
/// A token of 8 bits with its scores.
const DRAFT: &str = "00000101 0001 0010";

/// A frame of `count` drafts at 8 bits a token whose tail is `bits`, padded with zeros.
fn bytes(count: u8, mode: u8, bits: &[&str]) -> Vec<u8> {
    let mut bits: String = bits.concat().split_whitespace().collect();
    bits.extend(std::iter::repeat_n('0', bits.len().next_multiple_of(8) - bits.len()));
    let byte = |at: usize| u8::from_str_radix(&bits[at..at + 8], 2).expect("bits");
    let tail = (0..bits.len()).step_by(8).map(byte);
    [0x1c, 1, 1, 2, 3, 100, 0x0e, 0xd5, count, mode].into_iter().chain(tail).collect()
}

/// `value` in `width` bits.
fn bits(value: u32, width: usize) -> String {
    if width == 0 { String::new() } else { format!("{value:0width$b}") }
}

#[track_caller]
fn impossible(bytes: &[u8], field: &'static str) {
    assert_eq!(Up::decode(bytes), Err(DecodeError::Impossible(field)), "{bytes:02x?}");
}

#[track_caller]
fn decoded(bytes: &[u8]) -> DraftFrame {
    let Ok(Up::Draft(frame)) = Up::decode(bytes) else { panic!("{:?} of {bytes:02x?}", Up::decode(bytes)) };
    assert_eq!(frame.encode().as_deref(), Ok(bytes));
    frame
}

#[track_caller]
fn refused(frame: &DraftFrame, field: &'static str) {
    assert_eq!(frame.encode(), Err(EncodeError::OutOfRange(field)));
}

fn rows<const N: usize>(rows: [Row; N]) -> heapless::Vec<Row, DRAFT_TOKENS_MAX> {
    rows.into_iter().collect()
}

/// The mode byte of a form, with a bonus token.
const TOP_K: u8 = 2 << 1 | 1;
const SAMPLED: u8 = 3 << 1 | 1;
const LATTICE: u8 = 4 << 1 | 1;
const CREDIT: u8 = 1 << 4 | 1;

#[test]
fn a_plain_frame_has_one_kind() {
    let plain = frame(3, 100, 8, &[(5, 1, 2)]);
    assert!(plain.is_plain());
    assert_eq!(plain.encode().expect("a valid frame")[0], 0x11);
    assert_eq!(Up::decode(&bytes(1, 1, &[JUDGED, DRAFT])), Err(DecodeError::NotCanonical));
    assert_eq!(Up::decode(&bytes(0, 1, &[])), Err(DecodeError::NotCanonical));
    let frames = [
        DraftFrame { bonus: false, ..plain.clone() },
        DraftFrame { rows: Rows::Full, ..plain.clone() },
        DraftFrame { held: 1, drafts: frame(3, 100, 8, &[(5, 0, 0)]).drafts, ..plain },
    ];
    for annotated in frames {
        assert!(!annotated.is_plain());
        assert_eq!(decoded(&annotated.encode().expect("a valid frame")), annotated);
    }
}

#[test]
fn held_and_judged_drafts_are_told_apart() {
    let frame = held_drafts();
    assert_eq!(
        [0, 1, 2, 3, 4, 15, 16, 99].map(|index| frame.is_held(index)),
        [false, true, false, true, false, false, false, false]
    );
    assert_eq!(frame.judged(), 2);
    assert_eq!((top_k().rows.list().len(), lattice().rows.list().len()), (2, 2));
    assert!(Rows::Full.list().is_empty() && frame.rows.list().is_empty());
    let all = annotated(&[(1, 0, 0); DRAFT_TOKENS_MAX], u16::MAX, true, Rows::None);
    assert_eq!(decoded(&all.encode().expect("a valid frame")), all);
}

#[test]
fn the_tail_is_what_the_document_says() {
    let frame = decoded(&bytes(
        2,
        LATTICE,
        &["00000101", HELD, "00000111", JUDGED, DRAFT, "000001", &bits(4, 15), "10"],
    ));
    // {1, 3} is number C(1, 1) + C(3, 2) = 4; the third of four first sums is 3.
    assert_eq!((frame.held, frame.bonus, frame.drafts[1].token), (1, true, 5));
    assert_eq!(frame.rows, Rows::Lattice { resolution: 5, rows: rows([row(&[(1, 3), (3, 2)])]) });
    let frame =
        decoded(&bytes(1, SAMPLED - 1, &[JUDGED, DRAFT, "000001 00000001 11111111 00000011 00000001"]));
    assert_eq!((frame.held, frame.bonus), (0, false));
    assert_eq!(frame.rows, Rows::TopKSampled(rows([row(&[(1, 255), (3, 1)])])));
}

/// A frame without drafts at base 100 and 8 bits a token, with credit.
fn credit(until: &[u8], stop: u8, ids: &[&str]) -> Vec<u8> {
    let frame = bytes(0, CREDIT, ids);
    let (header, tail) = frame.split_at(10);
    [header, until, &[stop], tail].concat()
}

#[test]
fn credit_stands_between_the_mode_and_the_drafts() {
    let frame = decoded(&credit(&[105], 0x12, &["00000111", "11111111"]));
    let stop = [7, 255].into_iter().collect();
    assert_eq!(frame.credit, Some(Credit { until: 105, again: true, stop }));
    let frame = credited();
    assert_eq!(decoded(&frame.encode().expect("a valid frame")), frame);
    let all = Credit { until: 131_072, again: true, stop: (1..=8).collect() };
    let all = DraftFrame { credit: Some(all), ..frame };
    assert_eq!(decoded(&all.encode().expect("a valid frame")), all);
    let end = decoded(&credit(&[100], 0, &[]));
    assert_eq!(end.credit, Some(Credit { until: 100, again: false, stop: Default::default() }));
}

#[test]
fn impossible_credit_is_named() {
    impossible(&credit(&[99], 0, &[]), "until");
    impossible(&credit(&[0x81, 0x80, 0x08], 0, &[]), "until");
    impossible(&credit(&[105], 9, &[]), "stop");
    impossible(&credit(&[105], 0x20, &[]), "stop");
    impossible(&credit(&[105], 2, &["00000111", "00000111"]), "stop");
    impossible(&credit(&[105], 2, &["00000111", "00000110"]), "stop");
    assert_eq!(Up::decode(&credit(&[105], 1, &[])), Err(DecodeError::Truncated));
    assert_eq!(Up::decode(&credit(&[105], 0, &["00000111"])), Err(DecodeError::Trailing));
    let with = |until, rows, bonus| {
        let credit = Some(Credit { until, again: false, stop: Default::default() });
        DraftFrame { credit, ..annotated(&[(450, 3, 12)], 0, bonus, rows) }
    };
    refused(&with(99, Rows::None, true), "until");
    refused(&with(131_073, Rows::None, true), "until");
    refused(&with(105, Rows::None, false), "credit");
    refused(&with(105, Rows::Full, true), "credit");
    refused(&with(105, Rows::TopK(rows([row(&[(1, 255)])])), true), "credit");
    let stop = [9, 9].into_iter().collect();
    let twice =
        DraftFrame { credit: Some(Credit { until: 105, again: false, stop }), ..with(105, Rows::None, true) };
    refused(&twice, "stop");
    let large = [1 << 15].into_iter().collect();
    refused(&DraftFrame { credit: Some(Credit { until: 105, again: false, stop: large }), ..twice }, "token");
}

#[test]
fn a_frame_sent_again_differs_in_its_count_of_sends_alone() {
    for frame in [credited(), held_drafts(), frame(3, 100, 15, &[(1, 2, 3)])] {
        let first = frame.encode().expect("a valid frame");
        let mut again = first.clone();
        count_send(&mut again);
        assert_eq!(decoded(&again), DraftFrame { send: 2, ..frame.clone() });
        assert_eq!((frame_check(&again), frame_digest(&again)), (frame_check(&first), frame_digest(&first)));
        for at in (0..first.len()).filter(|at| *at != 1) {
            let mut other = first.clone();
            other[at] ^= 1;
            assert_ne!(frame_digest(&other), frame_digest(&first), "byte {at}");
        }
        (0..300).for_each(|_| count_send(&mut again));
        assert_eq!(decoded(&again).send, u8::MAX, "the count stays at its largest");
    }
}

#[test]
fn impossible_modes_and_counts_are_named() {
    for mode in (10..=255).filter(|mode| *mode != CREDIT) {
        impossible(&bytes(1, mode, &[JUDGED, DRAFT]), "mode");
    }
    impossible(&bytes(187, 0, &[]), "shape");
    impossible(&bytes(0, 0, &[]), "bonus");
    refused(&annotated(&[], 0, false, Rows::None), "bonus");
    for count in 1..=DRAFT_TOKENS_MAX as u32 {
        let held = 1 << count;
        let drafts = vec![(1, 0, 0); count as usize];
        assert!(annotated(&drafts, (held - 1) as u16, true, Rows::None).encode().is_ok());
        if let Ok(held) = u16::try_from(held) {
            refused(&annotated(&drafts, held, true, Rows::None), "held");
        }
    }
    refused(&annotated(&[(1, 1, 0)], 1, true, Rows::None), "scores");
    refused(&annotated(&[(1, 0, 1)], 1, true, Rows::None), "scores");
    refused(&annotated(&[(1 << 15, 0, 0)], 1, true, Rows::None), "token");
    refused(&annotated(&[(1 << 15, 0, 0)], 0, false, Rows::None), "token");
    refused(&DraftFrame { round: 0, ..held_drafts() }, "round");
    refused(&DraftFrame { token_bits: TOKEN_BITS_MAX + 1, ..held_drafts() }, "token_bits");
    refused(&DraftFrame { base: 131_072 - 3, ..held_drafts() }, "base");
}

#[test]
fn each_judged_draft_has_its_row() {
    let one = || row(&[(1, 255)]);
    let entry = "000000 00000001 11111111";
    for (mode, more) in [(3, ""), (TOP_K, ""), (SAMPLED, ""), (LATTICE, "00000001")] {
        impossible(&bytes(0, mode, &[more]), "rows");
        impossible(&bytes(1, mode, &[more, HELD, "00000101"]), "rows");
    }
    impossible(&bytes(2, 3, &[JUDGED, DRAFT, JUDGED, DRAFT]), "rows");
    assert_eq!(decoded(&bytes(2, 3, &[JUDGED, DRAFT, HELD, "00000101"])).rows, Rows::Full);
    assert!(Up::decode(&bytes(1, SAMPLED, &[JUDGED, DRAFT, entry])).is_ok());
    for count in [0, 1, 3] {
        let list: heapless::Vec<_, _> = std::iter::repeat_n(one(), count).collect();
        refused(&DraftFrame { rows: Rows::TopK(list.clone()), ..top_k() }, "rows");
        refused(&DraftFrame { rows: Rows::TopKSampled(list.clone()), ..top_k() }, "rows");
        refused(&DraftFrame { rows: Rows::Lattice { resolution: 255, rows: list }, ..top_k() }, "rows");
    }
    refused(&DraftFrame { rows: Rows::Full, ..top_k() }, "rows");
    refused(&annotated(&[], 0, true, Rows::TopK(rows([]))), "rows");
    refused(&annotated(&[(1, 0, 0)], 1, true, Rows::TopK(rows([]))), "rows");
    refused(&annotated(&[(1, 0, 0)], 1, true, Rows::Full), "rows");
    refused(&annotated(&[], 0, true, Rows::Full), "rows");
}

#[test]
fn impossible_entries_are_named() {
    let one = |entries: &[(u32, u8)]| annotated(&[(1, 0, 0)], 0, true, Rows::TopK(rows([row(entries)])));
    let sampled =
        |entries: &[(u32, u8)]| annotated(&[(1, 0, 0)], 0, true, Rows::TopKSampled(rows([row(entries)])));
    for make in [&one as &dyn Fn(&[(u32, u8)]) -> DraftFrame, &sampled] {
        refused(&make(&[]), "entries");
        refused(&make(&[(1, 0)]), "weight");
        refused(&make(&[(1, 255), (2, 0)]), "weight");
        refused(&make(&[(2, 255), (2, 255)]), "token");
        refused(&make(&[(2, 255), (1, 255)]), "token");
        refused(&make(&[(2, 255), (1 << 15, 255)]), "token");
        assert!(make(&[(2, 255), ((1 << 15) - 1, 255)]).encode().is_ok());
    }
    assert!(one(&[(1, 1), (2, 254)]).encode().is_ok());
    refused(&sampled(&[(1, 1), (2, 254)]), "weight");
    let tail = |mode, entries: &str| bytes(1, mode, &[JUDGED, DRAFT, entries]);
    for mode in [TOP_K, SAMPLED] {
        impossible(&tail(mode, "000000 00000001 00000000"), "weight");
        impossible(&tail(mode, "000001 00000001 11111111 00000010 00000000"), "weight");
        impossible(&tail(mode, "000001 00000001 11111111 00000001 11111111"), "token");
        impossible(&tail(mode, "000001 00000010 11111111 00000001 11111111"), "token");
        decoded(&tail(mode, "000001 00000001 11111111 00000010 11111111"));
    }
    decoded(&tail(TOP_K, "000000 00000001 11111110"));
    impossible(&tail(SAMPLED, "000000 00000001 11111110"), "weight");
}

#[test]
fn impossible_lattices_are_named() {
    let with = |resolution, entries: &[(u32, u8)]| {
        annotated(&[(1, 0, 0)], 0, true, Rows::Lattice { resolution, rows: rows([row(entries)]) })
    };
    refused(&with(0, &[(1, 1)]), "resolution");
    refused(&with(1, &[]), "entries");
    refused(&with(3, &[(1, 1), (2, 1)]), "weight");
    refused(&with(3, &[(1, 1), (2, 3)]), "weight");
    refused(&with(3, &[(1, 0), (2, 3)]), "weight");
    refused(&with(44, &[(1, 255), (2, 45)]), "weight"); // 300, which is 44 in a byte
    refused(&with(3, &[(1, 1), (1, 2)]), "token");
    assert!(with(3, &[(1, 1), (2, 2)]).encode().is_ok());
    assert!(with(255, &[(1, 255)]).encode().is_ok());
    impossible(&bytes(1, LATTICE, &["00000000", JUDGED, DRAFT, "000000 00000001"]), "resolution");
    for resolution in 1..ROW_ENTRIES_MAX as u32 {
        let row = [&bits(resolution, 8), JUDGED, DRAFT, &bits(resolution, 6)];
        impossible(&bytes(1, LATTICE, &row), "entries");
    }
}

/// Every number of a pair of tokens out of 256 and of a split of six decodes to a row, and no larger number does.
#[test]
fn every_number_of_a_small_lattice_is_one_row() {
    let decode = |index: &str, count: &str, resolution: &str, share: &str| {
        Up::decode(&bytes(1, LATTICE, &[resolution, JUDGED, DRAFT, count, index, share]))
    };
    let mut seen = BTreeSet::new();
    let mut keep = |message| {
        let Up::Draft(frame) = message else { panic!("no frame") };
        decoded(&frame.encode().expect("what was decoded"));
        let row = frame.rows.list()[0].entries.iter().map(|entry| (entry.token, entry.weight));
        assert!(seen.insert(row.collect::<Vec<_>>()), "a row has two numbers");
    };
    for index in 0..1 << 15 {
        let decoded = decode(&bits(index, 15), "000001", "00000010", "");
        match decoded {
            Ok(message) if index < 256 * 255 / 2 => keep(message),
            other => {
                assert_eq!((index >= 32640, other), (true, Err(DecodeError::Impossible("index"))), "{index}")
            }
        }
    }
    let zero = bits(0, 22); // of C(256, 3) sets
    for share in 0..16 {
        match decode(&zero, "000010", "00000110", &bits(share, 4)) {
            Ok(message) if share < 10 => keep(message),
            other => {
                assert_eq!((share >= 10, other), (true, Err(DecodeError::Impossible("index"))), "{share}")
            }
        }
    }
    assert_eq!(seen.len(), 32640 + 10);
}

#[test]
fn an_annotated_tail_has_one_form_and_one_length() {
    for frame in [held_drafts(), top_k(), top_k_sampled(), lattice()] {
        let bytes = frame.encode().expect("a valid frame").to_vec();
        for length in 1..bytes.len() {
            assert_eq!(
                Up::decode(&bytes[..length]),
                Err(DecodeError::Truncated),
                "{length} of {}",
                bytes.len()
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Up::decode(&longer), Err(DecodeError::Trailing));
    }
    for bit in 0..4 {
        let mut padded = bytes(2, 0, &[JUDGED, DRAFT, JUDGED, DRAFT]); // 34 bits leave 6 of padding
        decoded(&padded);
        *padded.last_mut().expect("bytes") |= 1 << bit;
        assert_eq!(Up::decode(&padded), Err(DecodeError::NotCanonical));
    }
}

/// A frame of sixteen drafts, `judged` of them with rows of `entries` entries and the others held, all at their most
/// bits.
fn widest(token_bits: u8, judged: usize, entries: u32, resolution: Option<u8>) -> DraftFrame {
    let held = (u32::from(u16::MAX) << judged) as u16;
    let drafts: Vec<_> =
        (0..DRAFT_TOKENS_MAX).map(|index| (0, if index < judged { 15 } else { 0 }, 0)).collect();
    let mut row = last_tokens(token_bits, entries, 1);
    row.entries[0].weight = resolution.map_or(255, |resolution| resolution - (entries as u8 - 1));
    let list = std::iter::repeat_n(row, judged).collect();
    let rows = match resolution {
        Some(resolution) => Rows::Lattice { resolution, rows: list },
        None => Rows::TopKSampled(list),
    };
    let frame = frame(u32::MAX, 131_072 - 16, token_bits, &drafts);
    DraftFrame { held, rows, ..frame }
}

#[test]
fn as_many_judged_drafts_fit_as_promised() {
    for token_bits in TOKEN_BITS_MIN..=TOKEN_BITS_MAX {
        for resolution in [None, Some(1), Some(64), Some(100), Some(255)] {
            for entries in [1, 2, 30, 63, ROW_ENTRIES_MAX as u32] {
                let most = judged_drafts_max(token_bits, entries as usize, resolution);
                assert!((1..=DRAFT_TOKENS_MAX).contains(&most));
                for entries in 1..=entries.min(resolution.map_or(64, u32::from)) {
                    let frame = widest(token_bits, most, entries, resolution);
                    assert!(frame.encode().is_ok(), "{most} of {entries} at {token_bits}, {resolution:?}");
                }
            }
        }
    }
    let most = judged_drafts_max(18, ROW_ENTRIES_MAX, None);
    assert_eq!(most, 6);
    assert_eq!(widest(18, most + 1, 64, None).encode(), Err(EncodeError::NoRoom));
    assert_eq!(judged_drafts_max(15, 30, None), 15);
    assert_eq!(widest(15, 16, 30, None).encode(), Err(EncodeError::NoRoom));
    assert_eq!(judged_drafts_max(15, 30, Some(100)), DRAFT_TOKENS_MAX);
}

#[test]
fn a_frame_that_has_no_room_is_refused_and_not_cut() {
    let mut largest = common::largest_annotated();
    let Rows::TopK(list) = &mut largest.rows else { panic!("a top-k frame") };
    list[6] = last_tokens(18, 33, 255);
    assert_eq!(largest.encode(), Err(EncodeError::NoRoom));
    let bits = (ANNOTATED_BYTES_MAX - ANNOTATED_HEADER_BYTES_MAX) * 8;
    assert!((11_066..11_066 + 26).contains(&bits), "one entry more is one too many");
}

#[test]
fn rows_have_the_known_sizes() {
    let bits = token_bits(32000);
    let count = 6;
    // A top-k row: thirty tokens of 15 bits with 8 bits of weight each. As a lattice of 100: 343 bits and 83 bits.
    assert_eq!(row_bits_max(bits, 30, None), count + 30 * 23);
    assert_eq!(row_bits_max(bits, 30, Some(100)), count + 343 + 83);
    assert_eq!(row_bits_max(token_bits(2048), 30, Some(100)), count + 222 + 83);
    assert_eq!(row_bits_max(8, 1, Some(1)), count + 8);
    assert_eq!(row_bits_max(8, 2, Some(1)), count + 8, "a resolution of 1 leaves one entry");
    assert_eq!(row_bits_max(8, 64, Some(64)), 231, "not the most entries take the most bits");
    assert_eq!(row_bits_max(18, 64, None), count + 64 * 26);
    assert_eq!(row_bits_max(18, 65, None), row_bits_max(18, 64, None));
    assert_eq!(row_bits_max(18, 0, None), row_bits_max(18, 1, None));
    assert_eq!(row_bits_max(8, 1, Some(0)), row_bits_max(8, 1, Some(1)));
    for resolution in [None, Some(255)] {
        assert_eq!(row_bits_max(255, 64, resolution), row_bits_max(18, 64, resolution));
        assert_eq!(row_bits_max(0, 64, resolution), row_bits_max(8, 64, resolution));
    }
}

#[test]
fn weights_are_no_draft() {
    let part = codes(3, 0, &[1, 2]).encode().expect("a valid part");
    assert!(matches!(On::Frames.decode(&part), Ok(common::Message::Up(Up::Codes(_)))));
    assert_eq!(On::Verdicts.decode(&part), Err(DecodeError::UnknownKind(13)));
}
