use super::*;
use proptest::prelude::*;

const ALL: Capabilities = OURS;
const NONE: Capabilities = Capabilities(0);

fn header(kind: u32, bytes: u32, id: u32) -> Vec<u8> {
    [kind, bytes, id].into_iter().flat_map(u32::to_le_bytes).collect()
}

fn malformed(bytes: &[u8]) -> Malformed {
    let error = read(&mut &bytes[..], RedirIds::Short).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    *error.get_ref().unwrap().downcast_ref().unwrap()
}

#[test]
fn a_hello_says_what_both_can_do() {
    let mut bytes = header(0, 72, 0);
    bytes.extend([b'q'; 64]);
    bytes.extend([0xf7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let (id, request) = read(&mut &bytes[..], RedirIds::Short).unwrap().unwrap();
    assert_eq!((id, &request), (0, &RedirRequest::Hello(Capabilities(0xf7))));
    let RedirRequest::Hello(theirs) = request else { panic!("{request:?}") };
    assert_eq!((theirs.shared(), theirs.shared().ids()), (Capabilities(0x72), RedirIds::Long));
    assert_eq!(RedirRequest::parse(0, &[0; 64]), Ok(RedirRequest::Hello(NONE)));
    assert_eq!(NONE.shared().ids(), RedirIds::Short);
}

/// The fields are kind, length, id of 64 bits; then endpoint, request, type, status, value, index, length.
#[test]
fn a_control_transfer_there_and_back() {
    let bytes = [
        0x64, 0, 0, 0, 0x0b, 0, 0, 0, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, //
        0x00, 0x05, 0x41, 0x00, 0x00, 0x00, 0x40, 0x00, 0x01, 0x00, 0x02,
    ];
    let (id, request) = read(&mut &bytes[..], RedirIds::Long).unwrap().unwrap();
    let setup = UsbSetup { request_type: 0x41, request: 5, value: 0, index: 0x40, length: 1 };
    assert_eq!(id, 0x0102_0304_0506_0708);
    assert_eq!(request, RedirRequest::Control { endpoint: 0, setup, data: vec![2] });

    let setup = UsbSetup { request_type: 0xc1, request: 6, value: 1, index: 0x40, length: 255 };
    let answer =
        RedirAnswer::Control { endpoint: 0x80, setup, status: Status::Success, data: vec![0xab, 0xcd] };
    let long = [
        0x64, 0, 0, 0, 0x0c, 0, 0, 0, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, //
        0x80, 0x06, 0xc1, 0x00, 0x01, 0x00, 0x40, 0x00, 0x02, 0x00, 0xab, 0xcd,
    ];
    assert_eq!(answer.packet(id, ALL), long);
    let short = [&long[..12], &long[16..]].concat();
    assert_eq!(answer.packet(id, NONE), short);
}

#[test]
fn a_device_presents_itself() {
    let connect = RedirAnswer::Connect { class: 0xff, vendor: 0x0403, product: 0xc631, version: 0x0205 };
    let bytes = [1, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 3, 4, 0x31, 0xc6, 5, 2];
    assert_eq!(connect.packet(0, ALL), bytes);
    assert_eq!(connect.packet(0, NONE).len(), 12 + 8);
    let endpoints = RedirAnswer::EndpointInfo { packet_bytes: 8 }.packet(0, ALL);
    assert_eq!(endpoints.len(), 16 + 32 + 32 + 32 + 64);
    let kinds: Vec<usize> = (0..32).filter(|place| endpoints[16 + place] == 0).collect();
    assert_eq!(kinds, [0, 16]);
    assert_eq!((endpoints[16 + 96], endpoints[16 + 96 + 32]), (8, 8));
    assert_eq!(RedirAnswer::EndpointInfo { packet_bytes: 8 }.packet(0, NONE).len(), 12 + 96);
    let interfaces = RedirAnswer::InterfaceInfo { class: 0xff }.packet(0, ALL);
    assert_eq!((interfaces.len(), interfaces[16], interfaces[16 + 4 + 32]), (16 + 4 + 128, 1, 0xff));
    assert_eq!(RedirAnswer::Disconnect.packet(0, ALL), [[2, 0, 0, 0], [0; 4], [0; 4], [0; 4]].concat());
    assert_eq!(RedirAnswer::Hello.packet(0, ALL).len(), 12 + 68);
}

#[test]
fn what_can_t_be_a_packet_is_said() {
    let large = u32::try_from(PAYLOAD_BYTES_MAX).unwrap() + 1;
    assert_eq!(malformed(&header(100, large, 0)), Malformed::Large { kind: 100, bytes: large });
    assert_eq!(malformed(&header(100, u32::MAX, 0)), Malformed::Large { kind: 100, bytes: u32::MAX });
    for (kind, bytes) in [(0, 63), (0, 66), (3, 1), (6, 0), (6, 2), (7, 1), (9, 1), (10, 2), (100, 9)] {
        let packet = [header(kind, bytes, 0), vec![0; bytes as usize]].concat();
        assert_eq!(malformed(&packet), Malformed::Length { kind, bytes: bytes as usize }, "kind {kind}");
    }
    // A transfer to the device with less data than declared, and one to the host with data.
    assert!(RedirRequest::parse(100, &[0, 5, 0x41, 0, 0, 0, 0x40, 0, 2, 0, 1]).is_err());
    assert!(RedirRequest::parse(100, &[0, 5, 0xc1, 0, 0, 0, 0x40, 0, 1, 0, 1]).is_err());
    // Packets that we don't answer may have any length.
    assert_eq!(RedirRequest::parse(21, &[]), Ok(RedirRequest::Other(21)));
    assert_eq!(RedirRequest::parse(101, &[1, 2, 3]), Ok(RedirRequest::Other(101)));
}

#[test]
fn a_stream_may_end_between_packets_only() {
    assert_eq!(read(&mut &[][..], RedirIds::Short).unwrap(), None);
    let packet = [header(6, 1, 0), vec![1]].concat();
    for end in 1..packet.len() {
        let error = read(&mut &packet[..end], RedirIds::Short).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {end}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_take_more_than_they_are(
        bytes in prop::collection::vec(any::<u8>(), 0..600), long: bool,
    ) {
        let mut stream = &bytes[..];
        let ids = if long { RedirIds::Long } else { RedirIds::Short };
        while let Ok(Some((_, request))) = read(&mut stream, ids) {
            if let RedirRequest::Control { setup, data, .. } = request {
                prop_assert!(data.len() <= usize::from(setup.length));
            }
        }
    }

    #[test]
    fn no_payload_makes_it_panic(
        kind in prop_oneof![0_u32..30, 98_u32..106, any::<u32>()],
        payload in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let _ = RedirRequest::parse(kind, &payload);
    }
}
