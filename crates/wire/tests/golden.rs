//! Compares `docs/wire.md` with the code: the golden vectors, and the tables that can be computed.

mod common;

use common::{
    Message, NONCE, On, PRICE, TARGET, V1, V2, annotated, block, closed, codes, command, context,
    continuation, credited, digest, eight_drafts, enrol, frame, granted, held_drafts, largest_audited,
    largest_continuation, largest_draft, largest_energy, largest_fleet, largest_presence, largest_rollout,
    largest_setup, largest_telemetry, largest_wanted, last_tokens, lattice, lease_resumed, open_resume,
    refusal, refused_certificate, root_notice, smallest_energy, smallest_fleet, smallest_telemetry,
    store_presence, time, top_k, top_k_sampled, typical_energy, typical_fleet, typical_rollout,
    typical_setup, typical_telemetry, verifier_id, verifier_presence, wanted,
};
use dunlin_wire::topic::{
    Delivery, ENROL_FILTER, FLEET_FILTER, Qos, SETUP_FILTER, STORE_PRESENCE_FILTER, Topic,
    VERIFIER_PRESENCE_FILTER, energy_filter, frames_filter, open_filter, telemetry_filter, wanted_filter,
};
use dunlin_wire::{
    BlockForm, Close, CloseReason, Codes, CommandVerb, CouplingProfile, Credit, DevicePresence, DraftFrame,
    EnergyReport, EnrolVerdict, FleetPhase, FleetReason, FleetReport, Lease, Liveness, LogTime, Open,
    PowerSource, Promise, RefusalReason, Resync, Row, Rows, SamplingParams, SetupReport, VERSION, Verdict,
    VerifierPresence, Working, frame_check, limits, token_bits,
};
use std::collections::{BTreeMap, BTreeSet};

const DOC: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/wire.md"));
const LIMITS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/limits.rs"));

/// The value of each vector of the document, by name.
fn values() -> BTreeMap<&'static str, Message> {
    let mut values = BTreeMap::new();
    for (name, value) in frames()
        .into_iter()
        .chain(lossy())
        .chain(answers())
        .chain(session())
        .chain(presence())
        .chain(energy())
        .chain(setup())
        .chain(fleet())
        .chain(objects())
    {
        assert!(values.insert(name, value).is_none(), "two values named {name}");
    }
    values
}

fn frames() -> Vec<(&'static str, Message)> {
    let late = frame(300, 4097, 11, &[(2047, 15, 15), (0, 0, 0), (1024, 1, 14)]);
    vec![
        ("draft-8-tokens", eight_drafts().into()),
        ("draft-none", frame(4, 105, 15, &[]).into()),
        ("draft-late", DraftFrame { session: 255, epoch: 0, prefix: [0x00, 0xff], ..late }.into()),
        ("draft-largest", largest_draft().into()),
        ("context-prompt", context(2, 0, digest(&[]).short(), 15, &[1, 450, 9999, 31999, 2]).into()),
        ("context-later", context(3, 131_069, [0xab, 0xcd], 8, &[0, 127, 255]).into()),
        ("close", Close { session: 1, epoch: 2 }.into()),
    ]
}

fn lossy() -> Vec<(&'static str, Message)> {
    let full = annotated(&[(450, 0, 0), (1, 0, 15)], 0b01, false, Rows::Full);
    let end = Credit { until: 100, again: false, stop: Default::default() };
    let ended = DraftFrame { send: 2, credit: Some(end), ..frame(3, 100, 15, &[]) };
    vec![
        ("annotated-held", held_drafts().into()),
        ("annotated-no-bonus", annotated(&[(450, 3, 12)], 0, false, Rows::None).into()),
        ("annotated-full", full.into()),
        ("annotated-top-k", top_k().into()),
        ("annotated-top-k-sampled", top_k_sampled().into()),
        ("annotated-lattice", lattice().into()),
        ("annotated-credit", credited().into()),
        ("annotated-credit-ends", ended.into()),
        ("codes-first", codes(3, 0, &[255, 0, 1, 128]).into()),
        ("codes-last", Codes { session: 255, epoch: 0, ..codes(300, 255, &[7]) }.into()),
    ]
}

fn answers() -> Vec<(&'static str, Message)> {
    let check = frame_check(&eight_drafts().encode().expect("a valid frame"));
    let corrected = Verdict {
        session: 1,
        epoch: 2,
        round: 3,
        check,
        send: 1,
        pass: PRICE.pass,
        queue: PRICE.queue,
        accepted: 5,
        token: 812,
        missed: 0,
    };
    let late = Verdict {
        session: 255,
        epoch: 0,
        round: 300,
        check: 0,
        send: 3,
        accepted: 16,
        token: 262_143,
        ..corrected
    };
    let check = frame_check(&held_drafts().encode().expect("a valid frame"));
    let audited = Verdict { check, accepted: 4, missed: 0b10, ..corrected };
    let resync =
        |length, text: &[u32]| Resync { session: 1, epoch: 3, round: 3, length, digest: digest(text).full() };
    vec![
        ("verdict-corrected", corrected.into()),
        ("verdict-late", late.into()),
        ("resync-empty", resync(0, &[]).into()),
        ("resync-partial", resync(300, &[1, 450, 9999]).into()),
        ("closed-unknown", closed(CloseReason::Unknown).into()),
        ("closed-draining", closed(CloseReason::Draining).into()),
        ("closed-failed", closed(CloseReason::Failed).into()),
        ("closed-rejected", closed(CloseReason::Rejected).into()),
        ("closed-policy", closed(CloseReason::Policy).into()),
        ("audited-one", audited.into()),
        ("audited-largest", largest_audited().into()),
        ("continuation-one", continuation(3, 100, 15, &[812]).into()),
        ("continuation-later", continuation(300, 4097, 11, &[2047, 0, 1024, 5]).into()),
        ("continuation-largest", largest_continuation().into()),
        ("working-second", Working { session: 1, epoch: 2, round: 3, wait: LogTime::of_us(1 << 20) }.into()),
        ("working-largest", Working { session: 255, epoch: 255, round: u32::MAX, wait: LogTime(255) }.into()),
    ]
}

fn session() -> Vec<(&'static str, Message)> {
    let greedy = SamplingParams { temperature: 0.0, top_p: 1.0, top_k: 0 };
    let new =
        Open { session: 1, epoch: 0, nonce: NONCE, seed: 42, sampling: greedy, vocabulary: V1, length: 0 };
    let lease = Lease {
        session: 1,
        epoch: 0,
        nonce: NONCE,
        verifier: verifier_id("dunlin-1"),
        target: TARGET,
        promise: Promise::Exact,
        coupling: CouplingProfile::SplitMix,
        price: PRICE,
        draft_tokens_max: 8,
        credit_tokens_max: 0,
        context_tokens_max: 4096,
        vocabulary_size: V1.size,
        length: 0,
        digest: digest(&[]).full(),
    };
    vec![
        ("open-new", new.into()),
        ("open-resume", open_resume().into()),
        ("lease-new", lease.into()),
        ("lease-resumed", lease_resumed().into()),
        ("refusal-vocabulary", refusal(RefusalReason::Vocabulary(V2)).into()),
        ("refusal-sampling", refusal(RefusalReason::Sampling).into()),
        ("refusal-too-long", refusal(RefusalReason::TooLong(4096)).into()),
        ("refusal-full", refusal(RefusalReason::Full).into()),
        ("refusal-draining", refusal(RefusalReason::Draining).into()),
    ]
}

fn presence() -> Vec<(&'static str, Message)> {
    let device = |generation, liveness| DevicePresence { generation, liveness };
    let unnamed = verifier_presence(Liveness::Here, V2, "", 255);
    let (engine, numerics, promise) = (Default::default(), Default::default(), Promise::Distribution);
    let draining = VerifierPresence { draining: true, engine, numerics, promise, ..unnamed };
    vec![
        ("device-presence-here", device(1, Liveness::Here).into()),
        ("device-presence-left", device(128, Liveness::Left).into()),
        ("device-presence-lost", device(u32::MAX, Liveness::Lost).into()),
        ("verifier-presence-here", verifier_presence(Liveness::Here, V1, "llama-2-7b-chat", 12).into()),
        ("verifier-presence-draining", draining.into()),
        ("verifier-presence-lost", verifier_presence(Liveness::Lost, V1, "llama-2-7b-chat", 0).into()),
        ("verifier-presence-largest", largest_presence().into()),
    ]
}

fn energy() -> Vec<(&'static str, Message)> {
    vec![
        ("energy-smallest", smallest_energy().into()),
        ("energy-request", typical_energy().into()),
        ("energy-largest", largest_energy().into()),
        ("telemetry-smallest", smallest_telemetry().into()),
        ("telemetry-second", typical_telemetry().into()),
        ("telemetry-largest", largest_telemetry().into()),
    ]
}

fn setup() -> Vec<(&'static str, Message)> {
    vec![
        ("setup-smallest", SetupReport::new(1, []).into()),
        ("setup-two-mistakes", typical_setup().into()),
        ("setup-largest", largest_setup().into()),
    ]
}

fn fleet() -> Vec<(&'static str, Message)> {
    vec![
        ("fleet-new", smallest_fleet().into()),
        ("fleet-rolled-back", typical_fleet().into()),
        ("fleet-largest", largest_fleet().into()),
        ("rollout-tenth", typical_rollout().into()),
        ("rollout-largest", largest_rollout().into()),
        ("command-report", command(1, 1_796_083_260, CommandVerb::Report, &[7]).into()),
        ("command-largest", command(u32::MAX, u64::MAX, CommandVerb::Log, &[1, 2, 3]).into()),
        ("time-first", time(1_796_083_200, 1, &[7]).into()),
        ("time-largest", time(u64::MAX, u32::MAX, &[1, 2, 3]).into()),
        ("root-first", root_notice(1, 700).into()),
        ("root-largest", root_notice(u32::MAX, limits::SIGNED_DOCUMENT_BYTES_MAX as u16).into()),
    ]
}

fn objects() -> Vec<(&'static str, Message)> {
    vec![
        ("wanted-one", wanted(&[(0, 1)]).into()),
        ("wanted-window", wanted(&[(8, 8), (24, 24)]).into()),
        ("wanted-largest", largest_wanted().into()),
        ("block-raw", block(2, 1, BlockForm::Raw, 9).into()),
        ("block-zstd", block(8, 8, BlockForm::Zstd, 24).into()),
        ("block-absent", block(300, 1, BlockForm::Absent, 0).into()),
        ("enrol-short", enrol(16).into()),
        ("certificate-granted", granted(8, 16).into()),
        ("certificate-refused", refused_certificate(EnrolVerdict::Used).into()),
        ("store-presence-here", store_presence(1, Liveness::Here, 32).into()),
        ("store-presence-lost", store_presence(u32::MAX, Liveness::Lost, 255).into()),
    ]
}

/// The bytes of each vector of the document, by name.
fn vectors() -> BTreeMap<&'static str, Vec<u8>> {
    let mut vectors = BTreeMap::new();
    for block in DOC.split("\n```golden ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a line after the name");
        let (hex, _) = rest.split_once("\n```").expect("the end of the block");
        let bytes = hex.split_ascii_whitespace().map(|b| u8::from_str_radix(b, 16).expect("a byte in hex"));
        assert!(vectors.insert(name, bytes.collect()).is_none(), "two vectors named {name}");
    }
    vectors
}

/// The rows of the table whose header starts with `header`, as cells without backticks.
fn table(header: &str) -> Vec<Vec<String>> {
    let (_, rest) =
        DOC.split_once(&format!("\n| {header} |")).unwrap_or_else(|| panic!("no table '{header}'"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|c| c.trim().replace('`', "")).collect();
    rows.map(cells).collect()
}

/// The number of a message's kind.
fn kind(bytes: &[u8]) -> u8 {
    if bytes[0] & 0x0f == 15 { bytes[1] } else { bytes[0] & 0x0f }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn document_and_test_name_the_same_vectors() {
    let names: Vec<_> = values().into_keys().collect();
    assert_eq!(vectors().into_keys().collect::<Vec<_>>(), names);
}

#[test]
fn every_value_has_the_documents_bytes() {
    let vectors = vectors();
    for (name, value) in values() {
        let bytes = value.encode().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(hex(&bytes), hex(&vectors[name]), "{name}");
    }
}

#[test]
fn the_documents_bytes_are_every_value() {
    let values = values();
    for (name, bytes) in vectors() {
        assert_eq!(values[name].on().decode(&bytes), Ok(values[name].clone()), "{name}");
    }
}

#[test]
fn the_documents_bytes_belong_on_one_topic_only() {
    let values = values();
    for (name, bytes) in vectors() {
        for on in On::ALL.into_iter().filter(|on| *on != values[name].on()) {
            let error = on.decode(&bytes).expect_err("another topic's message");
            assert_eq!(error, dunlin_wire::DecodeError::UnknownKind(kind(&bytes)), "{name} on {on:?}");
        }
    }
}

#[test]
fn kinds_are_the_documents() {
    let rows = table("kind | message");
    let numbers: BTreeMap<_, _> = rows.iter().map(|r| (r[1].as_str(), r[0].parse::<u8>().unwrap())).collect();
    let mut seen = BTreeSet::new();
    for (name, value) in values() {
        assert_eq!(vectors()[name][0] >> 4, VERSION, "{name}");
        assert_eq!(kind(&vectors()[name]), numbers[value.kind()], "{name}");
        assert!(name.starts_with(value.kind()), "{name} is a {}", value.kind());
        seen.insert(value.kind());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), numbers.into_keys().collect::<Vec<_>>());
}

#[test]
fn limits_are_the_documents() {
    macro_rules! named {
        ($($name:ident),* $(,)?) => { [$((stringify!($name), limits::$name as usize)),*] };
    }
    let code = named![
        DRAFT_TOKENS_MAX,
        SENDS_MAX,
        STOP_IDS_MAX,
        TOKEN_BITS_MAX,
        TOKEN_BITS_MIN,
        VOCABULARY_SIZE_MAX,
        CONTINUATION_TOKENS_MAX,
        CONTEXT_CHUNK_TOKENS_MAX,
        SESSION_TOKENS_MAX,
        ROW_ENTRIES_MAX,
        CODES_MAX,
        DRAFT_BYTES_MAX,
        CONTEXT_BYTES_MAX,
        ANNOTATED_HEADER_BYTES_MAX,
        ANNOTATED_BYTES_MAX,
        CODES_BYTES_MAX,
        ENERGY_BYTES_MAX,
        TELEMETRY_BYTES_MAX,
        SETUP_TEXT_BYTES_MAX,
        SETUP_BYTES_MAX,
        PIECE_BYTES,
        BLOCK_BYTES_MAX,
        BLOCK_MESSAGE_BYTES_MAX,
        WANTED_SPANS_MAX,
        WANTED_PIECES_MAX,
        WANTED_BYTES_MAX,
        DOCUMENT_BYTES_MAX,
        SIGNATURES_MAX,
        SIGNATURE_ENTRY_BYTES,
        SIGNATURES_BYTES_MAX,
        SIGNED_DOCUMENT_BYTES_MAX,
        SIGNED_TEXT_BYTES_MAX,
        PERMILLE_MAX,
        DETAIL_BYTES_MAX,
        FLEET_BYTES_MAX,
        ROLLOUT_BYTES_MAX,
        COMMAND_BYTES_MAX,
        TIME_BYTES_MAX,
        CSR_BYTES_MAX,
        ENROL_BYTES_MAX,
        CHAIN_BYTES_MAX,
        SEAL_CERTIFICATE_BYTES_MAX,
        CERTIFICATE_BYTES_MAX,
        FRAME_BYTES_MAX,
        MESSAGE_BYTES_MAX,
        ID_BYTES_MAX,
        MODEL_NAME_BYTES_MAX,
        ENGINE_NAME_BYTES_MAX,
        TOPIC_BYTES_MAX,
        PACKET_BYTES_MAX,
        UPDATE_PACKET_BYTES_MAX,
        PACKET_BYTES_ANNOUNCED,
    ];
    let doc: Vec<_> = table("name | value").iter().map(|r| (r[0].clone(), r[1].parse().unwrap())).collect();
    assert_eq!(doc, code.map(|(name, value)| (name.to_owned(), value)));
    let source: Vec<_> = LIMITS.lines().filter_map(|line| line.strip_prefix("pub const ")).collect();
    assert_eq!(source.len(), code.len(), "limits.rs has a limit that the document lacks");
}

/// The cells QoS, retained and expires, written as in the document.
fn delivery_cells(delivery: Delivery) -> [String; 3] {
    let qos = match delivery.qos {
        Qos::AtMostOnce => "0",
        Qos::AtLeastOnce => "1",
    };
    let retained = if delivery.retain { "yes" } else { "no" };
    let expires = delivery.expiry_seconds.map_or("–".to_owned(), |seconds| format!("{seconds} s"));
    [qos.to_owned(), retained.to_owned(), expires]
}

#[test]
fn topics_are_the_documents() {
    let (dev, ver) = ("plover-7", "dunlin-1");
    let (device, verifier) = (|| dev.parse().unwrap(), || verifier_id(ver));
    let code = [
        ("device presence", Topic::DevicePresence(device())),
        ("open", Topic::Open(device(), verifier())),
        ("reply", Topic::Reply(device())),
        ("frames", Topic::Frames(device(), verifier())),
        ("verdicts", Topic::Verdicts(device())),
        ("energy", Topic::Energy(device(), verifier())),
        ("telemetry", Topic::Telemetry(device(), verifier())),
        ("setup", Topic::Setup(device())),
        ("device probe", Topic::DeviceProbe(device())),
        ("verifier presence", Topic::VerifierPresence(verifier())),
        ("verifier probe", Topic::VerifierProbe(verifier())),
        ("fleet", Topic::Fleet(device())),
        ("wanted", Topic::Wanted(device(), "s1".parse().unwrap())),
        ("block", Topic::Block(device())),
        ("rollout of a device", Topic::Pin(device())),
        ("command", Topic::Command(device())),
        ("store presence", Topic::StorePresence("s1".parse().unwrap())),
        ("rollout of a ring", Topic::Ring("stable".parse().unwrap())),
        ("root", Topic::Root),
        ("time", Topic::Time),
        ("enrol", Topic::Enrol("t1".parse().unwrap())),
        ("certificate", Topic::Certificate("t1".parse().unwrap())),
    ];
    let filled = |pattern: &str| {
        let places =
            [("<dev>", dev), ("<ver>", ver), ("<store>", "s1"), ("<ring>", "stable"), ("<token>", "t1")];
        places.iter().fold(pattern.to_owned(), |text, (place, id)| text.replace(place, id))
    };
    let doc: Vec<_> = table("messages | topic").iter().map(|r| (r[0].clone(), filled(&r[1]))).collect();
    assert_eq!(doc, code.each_ref().map(|(what, topic)| ((*what).to_owned(), topic.name().to_string())));
    for (row, (what, topic)) in table("messages | topic").iter().zip(&code) {
        assert_eq!(row[3..], delivery_cells(topic.delivery()), "{what}");
    }
    let filters: Vec<_> = table("filter | subscribed by").iter().map(|r| filled(&r[0])).collect();
    let code = [
        &open_filter(&verifier()),
        &frames_filter(&verifier()),
        &energy_filter(&verifier()),
        &telemetry_filter(&verifier()),
        SETUP_FILTER,
        VERIFIER_PRESENCE_FILTER,
        &Topic::VerifierPresence(verifier()).name(),
        &wanted_filter(&"s1".parse().unwrap()),
        FLEET_FILTER,
        STORE_PRESENCE_FILTER,
        ENROL_FILTER,
    ];
    assert_eq!(filters, code);
    assert!(doc.iter().all(|(_, name)| name.starts_with(&format!("dl{VERSION}/"))), "topics of this version");
}

#[test]
fn digests_are_the_documents() {
    let rows = table("tokens | digest");
    assert!(rows.len() >= 4);
    for row in rows {
        let tokens: Vec<u32> = row[0].split(' ').filter_map(|token| token.parse().ok()).collect();
        let digest = digest(&tokens);
        assert_eq!(
            (hex(&digest.full()), hex(&digest.short())),
            (row[1].clone(), row[2].clone()),
            "{}",
            row[0]
        );
    }
    let check = frame_check(&vectors()["draft-8-tokens"]);
    assert!(
        DOC.contains(&format!("it is `{check:02x}`; for no bytes it would be `{:02x}`", frame_check(&[])))
    );
}

const NO_VERDICT: Verdict = Verdict {
    session: 0,
    epoch: 0,
    round: 1,
    check: 0,
    send: 1,
    pass: LogTime(0),
    queue: LogTime(0),
    accepted: 0,
    token: 0,
    missed: 0,
};

/// The least and the most bytes of the message that a row of the table of sizes names.
fn sizes(row: &[String], vocabulary: u32) -> (usize, usize) {
    let number = |cell: &str| cell.parse().unwrap_or(0);
    let (round, base, bits) = (number(&row[1]), number(&row[2]), token_bits(vocabulary));
    // One judged draft with the rows that a lossy policy sends.
    let judged = |rows| DraftFrame { bonus: false, rows, ..frame(round, base, bits, &[(0, 0, 0)]) };
    let one = |row: Row| [row].into_iter().collect();
    let (message, count) = row[0].rsplit_once(" of ").unwrap_or((&row[0], "0"));
    let count = count.parse().expect("a number of items");
    let size = |token| {
        let message: Message = match message {
            "draft" => frame(round, base, bits, &vec![(token, 0, 0); count]).into(),
            "context" => context(0, base, [0; 2], bits, &vec![token; count]).into(),
            "held" => {
                let drafts = frame(round, base, bits, &vec![(token, 0, 0); count]);
                DraftFrame { held: u16::MAX >> (16 - count), ..drafts }.into()
            }
            "top-k row" => judged(Rows::TopK(one(last_tokens(bits, count as u32, 255)))).into(),
            "lattice row" => {
                let mut last = last_tokens(bits, count as u32, 1);
                last.entries[0].weight = 100 - (count as u8 - 1);
                judged(Rows::Lattice { resolution: 100, rows: one(last) }).into()
            }
            "working" => Working { session: 0, epoch: 0, round, wait: LogTime(1) }.into(),
            "continuation" => continuation(round, base, bits, &vec![token; count]).into(),
            "codes" => codes(round, 0, &vec![0; count]).into(),
            "verdict" => Verdict { round, token, ..NO_VERDICT }.into(),
            "energy" if token == 0 => smallest_energy().into(),
            "energy" => largest_energy().into(),
            "telemetry" if token == 0 => smallest_telemetry().into(),
            "telemetry" => largest_telemetry().into(),
            "setup" if token == 0 => SetupReport::new(1, []).into(),
            "setup" => largest_setup().into(),
            "audited" if token == 0 => Verdict { round, accepted: 1, missed: 1, ..NO_VERDICT }.into(),
            "audited" => Verdict { round, token, accepted: 16, missed: u16::MAX, ..NO_VERDICT }.into(),
            other => panic!("a size of {other}"),
        };
        message.encode().expect("a valid message").len()
    };
    (size(0), size(vocabulary - 1))
}

#[test]
fn sizes_are_the_documents() {
    let rows = table("message | round");
    assert!(rows.len() >= 16);
    for row in rows {
        for (cell, vocabulary) in [(&row[3], 32000), (&row[4], 2048)] {
            let text = match sizes(&row, vocabulary) {
                (least, most) if least == most => format!("{least}"),
                (least, most) => format!("{least}–{most}"),
            };
            assert_eq!(*cell, text, "{row:?} at {vocabulary}");
        }
    }
}

#[test]
fn sources_are_the_documents() {
    use PowerSource::{Hwmon, Ina219, Pmic, Powercap, Replay, Simulated};
    let numbered = [Ina219, Hwmon, Pmic, Powercap, Replay, Simulated].map(|source| {
        let bytes = Message::from(EnergyReport { source, ..smallest_energy() }).encode();
        format!("{} {}", bytes.expect("a valid message")[4], source.name())
    });
    assert!(DOC.contains(&format!("`PowerSource`: {}.", numbered.join(", "))), "{numbered:?}");
}

/// The numbered names of a choice of the document.
fn numbered<T>(all: &[T], name: impl Fn(&T) -> &'static str) -> String {
    all.iter()
        .enumerate()
        .map(|(number, one)| format!("{number} {}", name(one)))
        .collect::<Vec<_>>()
        .join(", ")
}

#[test]
fn phases_and_reasons_are_the_documents() {
    for (phase, number) in FleetPhase::ALL.iter().zip(0..) {
        let bytes = Message::from(FleetReport { phase: *phase, ..smallest_fleet() }).encode();
        assert_eq!(bytes.expect("a valid message")[7], number);
    }
    for (reason, number) in FleetReason::ALL.iter().zip(0..) {
        let bytes = Message::from(FleetReport { reason: *reason, ..smallest_fleet() }).encode();
        assert_eq!(bytes.expect("a valid message")[9], number);
    }
    let flat = DOC.replace("\n  ", " ");
    let phases = format!("`FleetPhase`: {}.", numbered(&FleetPhase::ALL, |phase| phase.name()));
    let reasons = format!("`FleetReason`: {}.", numbered(&FleetReason::ALL, |reason| reason.name()));
    assert!(flat.contains(&phases), "{phases}");
    assert!(flat.contains(&reasons), "{reasons}");
}
