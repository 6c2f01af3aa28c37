use super::*;
use dunlin_wire::PieceSpan;
use ring::digest::{SHA256, digest};

const SMALL: usize = PIECE_BYTES;

fn at(ms: u64) -> Instant {
    Instant(ms * 1000)
}

fn store(number: usize) -> StoreId {
    format!("store-{number}").parse().unwrap()
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 % 251) as u8 ^ (at / SMALL) as u8).collect()
}

fn whole(bytes: &[u8]) -> TransferObject {
    TransferObject { id: ObjectId(hash(bytes)), size: bytes.len() as u64, check: ObjectCheck::Whole }
}

fn by_blocks(bytes: &[u8], block: usize) -> TransferObject {
    let hashes = bytes.chunks(block).flat_map(hash).collect();
    let check = ObjectCheck::Blocks { block_bytes: block as u32, hashes };
    TransferObject { check, ..whole(bytes) }
}

fn machine(stores: usize) -> Transfer {
    let mut transfer = Transfer::new("plover-1".parse().unwrap(), 3, at(0));
    transfer.handle_link(true);
    (0..stores).for_each(|number| transfer.handle_store(&store(number), true));
    transfer
}

/// The answers of a sound store to a request: messages that don't cross a multiple of 8 pieces.
fn answers<'a>(wanted: &WantedPieces, bytes: &'a [u8]) -> Vec<ObjectBlock<'a>> {
    let mut blocks = Vec::new();
    for PieceSpan { first, count } in &wanted.spans {
        let (mut first, end) = (*first, first + u32::from(*count));
        while first < end {
            let next = end.min((first / 8 + 1) * 8);
            let from = first as usize * SMALL;
            let bytes = &bytes[from..bytes.len().min(next as usize * SMALL)];
            let (object, count) = (wanted.object.short(), (next - first) as u8);
            blocks.push(ObjectBlock { object, first, count, form: BlockForm::Raw, bytes });
            first = next;
        }
    }
    blocks
}

fn asked_bytes(wanted: &WantedPieces) -> u32 {
    wanted.spans.iter().map(|span| u32::from(span.count) * SMALL as u32).sum()
}

/// Downloads all that is missing; returns the blocks in the order of their arrival.
fn finish(transfer: &mut Transfer, bytes: &[u8], now: Instant) -> Vec<u32> {
    let mut blocks = Vec::new();
    while let Some((_, wanted)) = transfer.poll_transmit(now) {
        for block in answers(&wanted, bytes).into_iter().rev() {
            transfer.handle_block(&block, now);
        }
        while let Some(event) = transfer.poll_event() {
            match event {
                TransferEvent::Block { block, .. } => blocks.push(block),
                TransferEvent::Complete(_) => return blocks,
                other => panic!("{other:?}"),
            }
        }
    }
    blocks
}

#[test]
fn an_object_arrives_in_any_order_within_the_window() {
    for block in [SMALL, BLOCK_BYTES_MAX] {
        let bytes = content(40 * BLOCK_BYTES_MAX + 1234);
        let mut transfer = machine(1);
        assert!(transfer.fetch(by_blocks(&bytes, block), |_| false));
        let (_, first) = transfer.poll_transmit(at(0)).unwrap();
        assert_eq!(asked_bytes(&first), WINDOW_BYTES_MAX);
        assert!(transfer.poll_transmit(at(0)).is_none(), "the window is full");
        answers(&first, &bytes).iter().for_each(|block| transfer.handle_block(block, at(0)));
        let mut got = finish(&mut transfer, &bytes, at(0));
        got.sort_unstable();
        assert_eq!(got, (0..bytes.len().div_ceil(block) as u32).collect::<Vec<_>>());
        let counters = transfer.counters();
        assert_eq!((counters.bytes_good, counters.bytes_repeated), (bytes.len() as u64, 0));
        assert!(!transfer.is_busy());
    }
}

#[test]
fn blocks_that_are_here_are_not_asked_for() {
    let bytes = content(100 * SMALL);
    let mut transfer = machine(1);
    assert!(transfer.fetch(by_blocks(&bytes, SMALL), |block| block % 3 != 0));
    assert_eq!(transfer.permille(), 660);
    let mut got = finish(&mut transfer, &bytes, at(0));
    got.sort_unstable();
    assert_eq!(got, (0..100).step_by(3).collect::<Vec<_>>());
    assert_eq!(transfer.counters().bytes_asked, 34 * SMALL as u64);
    assert!(transfer.fetch(by_blocks(&bytes, SMALL), |_| true));
    assert_eq!(transfer.poll_event(), Some(TransferEvent::Complete(ObjectId(hash(&bytes)))));
}

#[test]
fn a_poisoned_block_costs_itself_and_three_in_a_row_stop_its_store() {
    let bytes = content(40 * SMALL);
    let mut transfer = machine(2);
    assert!(transfer.fetch(by_blocks(&bytes, SMALL), |_| false));
    let (poisoned, wanted) = transfer.poll_transmit(at(0)).unwrap();
    let wrong = vec![9; SMALL];
    for first in 0..3 {
        assert!(!transfer.is_poisoned(at(0)));
        let (object, form) = (wanted.object.short(), BlockForm::Raw);
        transfer.handle_block(&ObjectBlock { object, first, count: 1, form, bytes: &wrong }, at(0));
    }
    assert_eq!(transfer.poll_event(), Some(TransferEvent::Poisoned(poisoned.clone())));
    assert_eq!((transfer.poll_event(), transfer.counters().bad), (None, 3), "nothing wrong is passed on");
    let (other, again) = transfer.poll_transmit(at(0)).unwrap();
    assert!(other != poisoned && again.spans[0].first == 0);
    answers(&again, &bytes).iter().for_each(|block| transfer.handle_block(block, at(0)));
    finish(&mut transfer, &bytes, at(0));
    assert_eq!(transfer.counters().bytes_good, bytes.len() as u64);
    // Alone, it is asked again after ten minutes.
    transfer.handle_store(&other, false);
    assert!(transfer.is_poisoned(at(0)) && transfer.fetch(by_blocks(&bytes, SMALL), |_| false));
    assert!(transfer.poll_transmit(at(0)).is_none());
    assert_eq!(transfer.poll_timeout(at(0)), Some(at(600_000)));
    assert_eq!(transfer.poll_transmit(at(600_000)).unwrap().0, poisoned);
}

#[test]
fn an_endless_object_ends_at_its_signed_size() {
    let bytes = content(3 * SMALL + 10);
    for object in [by_blocks(&bytes, SMALL), whole(&bytes)] {
        let mut transfer = machine(1);
        assert!(transfer.fetch(object, |_| false));
        let (_, wanted) = transfer.poll_transmit(at(0)).unwrap();
        let endless = vec![1; BLOCK_BYTES_MAX];
        for first in (0..800).step_by(8) {
            let (object, form) = (wanted.object.short(), BlockForm::Raw);
            transfer.handle_block(&ObjectBlock { object, first, count: 8, form, bytes: &endless }, at(0));
        }
        assert_eq!(transfer.counters().bytes_good, 0);
        assert!(transfer.is_busy() && transfer.counters().bad >= 100);
        assert!(!matches!(
            transfer.poll_event(),
            Some(TransferEvent::Block { .. } | TransferEvent::Whole(..))
        ));
    }
}

#[test]
fn what_is_late_is_asked_again_after_two_seconds_doubling_to_sixty() {
    let bytes = content(SMALL);
    let mut transfer = machine(1);
    assert!(transfer.fetch(by_blocks(&bytes, SMALL), |_| false));
    let mut now = at(0);
    let mut waits = Vec::new();
    for _ in 0..7 {
        transfer.poll_transmit(now).unwrap();
        let late = transfer.poll_timeout(now).unwrap();
        waits.push(late.since(now).0 / 1_000_000);
        transfer.handle_timeout(Instant(late.0 - 1));
        assert!(transfer.poll_transmit(Instant(late.0 - 1)).is_none(), "not before it is late");
        transfer.handle_timeout(late);
        now = late;
    }
    for (wait, least) in waits.iter().zip([2, 4, 8, 16, 32, 60, 60]) {
        assert!((least..=least + least / 4).contains(wait), "{waits:?}");
    }
    // A block begins the count anew.
    let two = content(2 * SMALL);
    assert!(transfer.fetch(by_blocks(&two, SMALL), |_| false));
    let (_, wanted) = transfer.poll_transmit(now).unwrap();
    transfer.handle_block(&ObjectBlock { count: 1, bytes: &two[..SMALL], ..answers(&wanted, &two)[0] }, now);
    let late = transfer.poll_timeout(now).unwrap();
    transfer.handle_timeout(late);
    transfer.poll_transmit(late).unwrap();
    assert!(transfer.poll_timeout(late).unwrap().since(late) <= Duration::from_millis(2500));
}

#[test]
fn a_silent_store_is_left_for_another() {
    let bytes = content(SMALL);
    let mut transfer = machine(2);
    assert!(transfer.fetch(by_blocks(&bytes, SMALL), |_| false));
    let (first, _) = transfer.poll_transmit(at(0)).unwrap();
    for _ in 0..3 {
        let late = transfer.poll_timeout(at(0)).unwrap();
        transfer.handle_timeout(late);
        let (store, _) = transfer.poll_transmit(late).unwrap();
        if store != first {
            return;
        }
    }
    panic!("still {first}");
}

#[test]
fn nothing_is_asked_for_while_paused_and_what_comes_is_taken() {
    let bytes = content(100 * SMALL);
    let mut transfer = machine(1);
    assert!(transfer.fetch(by_blocks(&bytes, SMALL), |_| false));
    let (_, wanted) = transfer.poll_transmit(at(0)).unwrap();
    transfer.set_paused(true, at(0));
    answers(&wanted, &bytes).iter().for_each(|block| transfer.handle_block(block, at(10)));
    transfer.handle_timeout(at(60_000));
    assert!(transfer.poll_transmit(at(60_000)).is_none() && transfer.poll_timeout(at(60_000)).is_none());
    assert_eq!(transfer.counters().bytes_good, u64::from(WINDOW_BYTES_MAX));
    transfer.set_paused(false, at(60_000));
    assert!(transfer.poll_transmit(at(60_000)).is_some());
}

#[test]
fn requests_keep_to_the_rate() {
    let bytes = content(50 * BLOCK_BYTES_MAX);
    let mut transfer = machine(1);
    transfer.set_rate(16 * 1024, at(0));
    assert!(transfer.fetch(by_blocks(&bytes, BLOCK_BYTES_MAX), |_| false));
    let (mut now, mut asked) = (at(0), 0);
    while now < at(60_000) {
        while let Some((_, wanted)) = transfer.poll_transmit(now) {
            asked += asked_bytes(&wanted);
            answers(&wanted, &bytes).iter().for_each(|block| transfer.handle_block(block, now));
        }
        now = transfer.poll_timeout(now).expect("more to come").max(Instant(now.0 + 1));
        transfer.handle_timeout(now);
    }
    let (least, most) = (60 * 16 * 1024, 60 * 16 * 1024 + WINDOW_BYTES_MAX);
    assert!((least..=most).contains(&asked), "{asked} in a minute");
}

#[test]
fn an_object_that_is_wrong_as_a_whole_comes_from_another_store() {
    let bytes = content(3 * BLOCK_BYTES_MAX + 5);
    let mut transfer = machine(2);
    assert!(transfer.fetch(whole(&bytes), |_| true), "what is checked as a whole is always fetched");
    let (first, wanted) = transfer.poll_transmit(at(0)).unwrap();
    let mut wrong = bytes.clone();
    wrong[BLOCK_BYTES_MAX + 1] ^= 1;
    answers(&wanted, &wrong).iter().for_each(|block| transfer.handle_block(block, at(0)));
    assert_eq!(transfer.poll_event(), Some(TransferEvent::Poisoned(first.clone())), "four units are wrong");
    let (second, wanted) = transfer.poll_transmit(at(0)).unwrap();
    assert_ne!(second, first);
    answers(&wanted, &bytes).iter().for_each(|block| transfer.handle_block(block, at(0)));
    assert_eq!(transfer.poll_event(), Some(TransferEvent::Whole(ObjectId(hash(&bytes)), bytes)));
    assert!(!transfer.is_busy());
}

#[test]
fn objects_with_impossible_numbers_are_refused() {
    let bytes = content(2 * SMALL);
    let right = by_blocks(&bytes, SMALL);
    let with = |block_bytes: u32, hashes: usize| TransferObject {
        check: ObjectCheck::Blocks { block_bytes, hashes: vec![0; hashes] },
        ..right.clone()
    };
    let mut transfer = machine(1);
    for wrong in [
        with(4096, 32),
        with(4096, 96),
        with(4096, 63),
        with(0x2000, 32),
        TransferObject { size: 0, ..with(4096, 0) },
        TransferObject { size: 0, ..whole(&bytes) },
        TransferObject { size: WHOLE_BYTES_MAX + 1, ..whole(&bytes) },
    ] {
        assert!(!transfer.fetch(wrong.clone(), |_| false), "{wrong:?}");
        assert!(!transfer.is_busy());
    }
    assert!(transfer.fetch(right, |_| false));
    assert!(transfer.fetch(TransferObject { size: WHOLE_BYTES_MAX, ..whole(&bytes) }, |_| false));
}

#[test]
fn a_store_that_lacks_the_object_is_left_for_another() {
    let bytes = content(SMALL);
    let mut transfer = machine(2);
    assert!(transfer.fetch(by_blocks(&bytes, SMALL), |_| false));
    let (first, wanted) = transfer.poll_transmit(at(0)).unwrap();
    let absent = ObjectBlock {
        object: wanted.object.short(),
        first: 0,
        count: 1,
        form: BlockForm::Absent,
        bytes: &[],
    };
    transfer.handle_block(&absent, at(0));
    assert_ne!(transfer.poll_transmit(at(0)).unwrap().0, first);
    assert_eq!(transfer.counters().absent, 1);
    // Without another store, the next request waits for its time.
    let mut alone = machine(1);
    assert!(alone.fetch(by_blocks(&bytes, SMALL), |_| false));
    alone.poll_transmit(at(0)).unwrap();
    alone.handle_block(&absent, at(0));
    assert!(alone.poll_transmit(at(0)).is_none());
}

#[test]
fn what_comes_twice_or_unasked_is_not_passed_on() {
    let bytes = content(2 * SMALL);
    let mut transfer = machine(1);
    assert!(transfer.fetch(by_blocks(&bytes, SMALL), |_| false));
    let (_, wanted) = transfer.poll_transmit(at(0)).unwrap();
    let first = ObjectBlock { count: 1, bytes: &bytes[..SMALL], ..answers(&wanted, &bytes)[0] };
    (0..3).for_each(|_| transfer.handle_block(&first, at(0)));
    transfer.handle_block(&ObjectBlock { object: [0; 8], ..first }, at(0));
    assert!(matches!(transfer.poll_event(), Some(TransferEvent::Block { block: 0, .. })));
    assert_eq!(transfer.poll_event(), None);
    let counters = transfer.counters();
    assert_eq!((counters.bytes_repeated, counters.unasked), (2 * SMALL as u64, 1));
    // Pieces of what is checked as a whole can't be checked, so they count only if they were asked for.
    assert!(transfer.fetch(whole(&bytes), |_| false));
    transfer.handle_block(&ObjectBlock { count: 2, bytes: &bytes, ..first }, at(0));
    assert_eq!((transfer.poll_event(), transfer.permille()), (None, 0));
}

#[test]
fn a_lost_connection_or_store_frees_the_window() {
    let bytes = content(100 * SMALL);
    let mut transfer = machine(2);
    assert!(transfer.fetch(by_blocks(&bytes, SMALL), |_| false));
    let (first, _) = transfer.poll_transmit(at(0)).unwrap();
    transfer.handle_store(&first, false);
    let (second, wanted) = transfer.poll_transmit(at(0)).unwrap();
    assert!(second != first && asked_bytes(&wanted) == WINDOW_BYTES_MAX);
    transfer.handle_link(false);
    assert!(transfer.poll_transmit(at(0)).is_none());
    transfer.handle_link(true);
    assert!(transfer.poll_transmit(at(0)).is_some());
}

#[test]
fn a_form_that_this_device_cannot_read_counts_as_wrong() {
    let bytes = content(SMALL);
    let mut transfer = machine(1);
    assert!(transfer.fetch(by_blocks(&bytes, SMALL), |_| false));
    let (_, wanted) = transfer.poll_transmit(at(0)).unwrap();
    let block = answers(&wanted, &bytes)[0];
    transfer.handle_block(&ObjectBlock { form: BlockForm::Zstd, bytes: &bytes[..9], ..block }, at(0));
    assert_eq!((transfer.counters().bad, transfer.counters().bytes_good), (1, 0));
    // So does a block of 32 KiB from its middle.
    let large = content(BLOCK_BYTES_MAX);
    assert!(transfer.fetch(by_blocks(&large, BLOCK_BYTES_MAX), |_| false));
    let (_, wanted) = transfer.poll_transmit(at(0)).unwrap();
    let block = answers(&wanted, &large)[0];
    transfer.handle_block(&ObjectBlock { first: 1, count: 7, bytes: &large[SMALL..], ..block }, at(0));
    assert_eq!((transfer.counters().bad, transfer.is_busy()), (2, true));
}
