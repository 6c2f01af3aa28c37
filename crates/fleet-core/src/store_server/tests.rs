use super::*;
use std::collections::BTreeSet;

struct Shelf(u64);

impl ObjectShelf for Shelf {
    fn size(&self, object: &ObjectId) -> Option<u64> {
        (object.0[0] < 100).then_some(self.0)
    }
}

const SHELF: Shelf = Shelf(1 << 30);

fn device(number: usize) -> DeviceId {
    format!("plover-{number}").parse().unwrap()
}

fn at(ms: u64) -> Instant {
    Instant(ms * 1000)
}

fn wanted(object: u8, spans: &[(u32, u8)]) -> WantedPieces {
    let spans = spans.iter().map(|(first, count)| PieceSpan { first: *first, count: *count }).collect();
    WantedPieces { object: ObjectId([object; 32]), spans }
}

fn server(device: u32, total: u32) -> StoreServer {
    let mut server = StoreServer::new(StoreRates { device, total }, at(0));
    server.handle_link(true);
    server
}

fn all(server: &mut StoreServer, now: Instant) -> Vec<BlockOrder> {
    core::iter::from_fn(|| server.poll_block(now)).collect()
}

#[test]
fn a_request_is_cut_where_blocks_begin() {
    let mut server = server(0, 0);
    server.handle_wanted(&device(1), &wanted(1, &[(6, 12), (40, 1)]), &SHELF, at(0));
    let spans: Vec<(u32, u8)> =
        all(&mut server, at(0)).iter().map(|order| (order.span.first, order.span.count)).collect();
    assert_eq!(spans, [(6, 2), (8, 8), (16, 2), (40, 1)]);
}

#[test]
fn the_last_piece_is_short_and_what_is_not_here_is_said() {
    let shelf = Shelf(2 * 4096 + 10);
    let mut server = server(0, 0);
    server.handle_wanted(&device(1), &wanted(1, &[(0, 3), (8, 1)]), &shelf, at(0));
    server.handle_wanted(&device(1), &wanted(200, &[(0, 1)]), &shelf, at(0));
    let places: Vec<_> = all(&mut server, at(0)).iter().map(|order| order.bytes).collect();
    assert_eq!(places, [Some((0, 2 * 4096 + 10)), None, None]);
    assert_eq!((server.counters().absent, server.counters().bytes), (2, 2 * 4096 + 10));
}

#[test]
fn no_device_starves_another() {
    let mut server = server(0, 64 * 1024);
    let mut sent = [0_u64; 4];
    // The first one asks for all it may, again and again; the others ask once in a while.
    for ms in (0..60_000).step_by(100) {
        let first = (ms / 100) as u32 * 64;
        for _ in 0..10 {
            server.handle_wanted(&device(0), &wanted(1, &[(first, 32)]), &SHELF, at(ms));
        }
        if ms % 1000 == 0 {
            for number in 1..4 {
                server.handle_wanted(&device(number), &wanted(2, &[(first, 8)]), &SHELF, at(ms));
            }
        }
        for order in all(&mut server, at(ms)) {
            let number = (0..4).find(|number| device(*number) == order.device).unwrap();
            sent[number] += order.bytes.unwrap().1 as u64;
        }
    }
    let most = 60 * 64 * 1024 + 64 * 1024;
    assert!(sent.iter().sum::<u64>() <= most, "{sent:?}");
    for other in &sent[1..] {
        assert!(*other * 4 > sent[0] * 3, "each of four has about a quarter: {sent:?}");
    }
}

#[test]
fn a_device_keeps_to_its_rate_and_delays_nobody() {
    let mut server = server(16 * 1024, 0);
    for number in 0..2 {
        server.handle_wanted(&device(number), &wanted(1, &[(0, 32)]), &SHELF, at(0));
    }
    assert_eq!(all(&mut server, at(0)).len(), 2, "one block each, which is the burst");
    assert_eq!(server.poll_timeout(), Some(at(2000)));
    assert!(all(&mut server, at(1999)).is_empty());
    let orders = all(&mut server, at(2000));
    let devices: BTreeSet<&DeviceId> = orders.iter().map(|order| &order.device).collect();
    assert_eq!((orders.len(), devices.len()), (2, 2));
    server.set_rates(StoreRates::default(), at(2000));
    assert_eq!(all(&mut server, at(2000)).len(), 4, "the rest without a limit");
    assert_eq!(server.poll_timeout(), None);
}

#[test]
fn a_block_that_waits_or_was_just_sent_is_not_queued_again() {
    let mut server = server(0, 0);
    for _ in 0..3 {
        server.handle_wanted(&device(1), &wanted(1, &[(0, 8)]), &SHELF, at(0));
    }
    assert_eq!((all(&mut server, at(0)).len(), server.counters().waiting_already), (1, 2));
    server.handle_wanted(&device(1), &wanted(1, &[(0, 8)]), &SHELF, at(999));
    assert_eq!((all(&mut server, at(999)).len(), server.counters().sent_already), (0, 1));
    server.handle_wanted(&device(1), &wanted(1, &[(0, 8)]), &SHELF, at(2000));
    assert_eq!(all(&mut server, at(2000)).len(), 1, "a device asks again after two seconds at the earliest");
}

#[test]
fn no_more_waits_for_a_device_than_its_window() {
    let mut server = server(1, 1);
    for object in 0..9 {
        server.handle_wanted(&device(1), &wanted(object, &[(0, 32)]), &SHELF, at(0));
    }
    assert_eq!(server.devices[&device(1)].pieces, WAITING_PIECES_MAX);
    assert_eq!(server.counters().beyond_window, 32);
}

#[test]
fn devices_beyond_the_limit_are_refused_until_there_is_room() {
    let mut server = server(0, 1);
    for number in 0..SERVED_MAX + 3 {
        server.handle_wanted(&device(number), &wanted(1, &[(0, 8)]), &SHELF, at(0));
    }
    assert_eq!((server.devices.len(), server.counters().beyond_devices), (SERVED_MAX, 3));
    assert_eq!(server.load(), 255);
    server.set_rates(StoreRates::default(), at(0));
    assert_eq!(all(&mut server, at(0)).len(), SERVED_MAX);
    server.handle_wanted(&device(SERVED_MAX), &wanted(1, &[(0, 8)]), &SHELF, at(0));
    assert_eq!((all(&mut server, at(0)).len(), server.load()), (1, 0));
}

#[test]
fn what_nobody_asks_for_any_more_is_dropped() {
    let mut server = server(0, 1);
    server.handle_wanted(&device(1), &wanted(1, &[(0, 8), (16, 8)]), &SHELF, at(0));
    assert_eq!(all(&mut server, at(0)).len(), 1);
    assert!(all(&mut server, at(90_001)).is_empty());
    assert_eq!((server.counters().stale, server.devices.len()), (1, 0));
}

#[test]
fn nothing_is_kept_for_a_lost_connection() {
    let mut server = server(0, 1);
    server.handle_wanted(&device(1), &wanted(1, &[(0, 32)]), &SHELF, at(0));
    server.handle_link(false);
    server.handle_wanted(&device(1), &wanted(1, &[(0, 32)]), &SHELF, at(0));
    server.handle_link(true);
    server.set_rates(StoreRates::default(), at(0));
    assert_eq!((all(&mut server, at(0)).len(), server.counters().requests), (0, 1));
}
