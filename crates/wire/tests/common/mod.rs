//! One type for all messages of all topics, for tests that treat them alike.
#![allow(dead_code)] // each test binary uses its part

use dunlin_wire::limits::{
    BLOCK_BYTES_MAX, CHAIN_BYTES_MAX, CONTINUATION_TOKENS_MAX, CSR_BYTES_MAX, SEAL_CERTIFICATE_BYTES_MAX,
    SESSION_TOKENS_MAX, SIGNED_DOCUMENT_BYTES_MAX, VOCABULARY_SIZE_MAX,
};
use dunlin_wire::{
    BlockForm, BoardCommand, Close, CloseReason, Closed, Codes, CommandFields, CommandVerb, Context,
    Continuation, CouplingProfile, Credit, DecodeError, DevicePresence, Down, Draft, DraftFrame, EncodeError,
    EnergyReport, EngineName, EnrolAnswer, EnrolRequest, EnrolVerdict, Entry, FleetPhase, FleetReason,
    FleetReport, FleetTime, KeyId, Lease, Liveness, LogTime, MeterFaults, ModelName, ObjectBlock, ObjectId,
    Open, PREFIX_EMPTY, PhaseTotal, PhaseTotals, PieceSpan, PowerSource, Prefix, PrefixDigest, Price,
    Promise, Refusal, RefusalReason, Reply, Resync, Rollout, RolloutFields, RootNotice, Row, Rows,
    SamplingParams, Score, SetupReport, Signature, Signatures, StorePresence, SystemSlot, TargetId,
    Telemetry, Throttling, TimeFields, TokenId, Up, Verdict, VerifierId, VerifierPresence, Vocabulary,
    WantedPieces, Working,
};
use heapless::Vec;

pub(crate) type Bytes = std::vec::Vec<u8>;

/// The kinds of topic, by their messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Frames,
    Verdicts,
    Open,
    Reply,
    DevicePresence,
    VerifierPresence,
    Energy,
    Telemetry,
    Setup,
    Fleet,
    Rollout,
    Wanted,
    Block,
    Command,
    Time,
    Enrol,
    Certificate,
    StorePresence,
    Root,
}

impl On {
    pub(crate) const ALL: [Self; 19] = [
        Self::Frames,
        Self::Verdicts,
        Self::Open,
        Self::Reply,
        Self::DevicePresence,
        Self::VerifierPresence,
        Self::Energy,
        Self::Telemetry,
        Self::Setup,
        Self::Fleet,
        Self::Rollout,
        Self::Wanted,
        Self::Block,
        Self::Command,
        Self::Time,
        Self::Enrol,
        Self::Certificate,
        Self::StorePresence,
        Self::Root,
    ];

    pub(crate) fn decode(self, bytes: &[u8]) -> Result<Message, DecodeError> {
        match self {
            Self::Frames => Up::decode(bytes).map(Message::Up),
            Self::Verdicts => Down::decode(bytes).map(Message::Down),
            Self::Open => Open::decode(bytes).map(Message::Open),
            Self::Reply => Reply::decode(bytes).map(Message::Reply),
            Self::DevicePresence => DevicePresence::decode(bytes).map(Message::DevicePresence),
            Self::VerifierPresence => VerifierPresence::decode(bytes).map(Message::VerifierPresence),
            Self::Energy => EnergyReport::decode(bytes).map(Message::Energy),
            Self::Telemetry => Telemetry::decode(bytes).map(Message::Telemetry),
            Self::Setup => SetupReport::decode(bytes).map(Message::Setup),
            Self::Fleet => FleetReport::decode(bytes).map(Message::Fleet),
            Self::Rollout => Rollout::decode(bytes).map(Message::Rollout),
            Self::Wanted => WantedPieces::decode(bytes).map(Message::Wanted),
            Self::Block => ObjectBlock::decode(bytes).map(Message::from),
            Self::Command => BoardCommand::decode(bytes).map(Message::Command),
            Self::Time => FleetTime::decode(bytes).map(Message::Time),
            Self::Enrol => EnrolRequest::decode(bytes).map(Message::Enrol),
            Self::Certificate => EnrolAnswer::decode(bytes).map(Message::Certificate),
            Self::StorePresence => StorePresence::decode(bytes).map(Message::StorePresence),
            Self::Root => RootNotice::decode(bytes).map(Message::Root),
        }
    }
}

/// Any message.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // the messages are as the crate has them
pub(crate) enum Message {
    Up(Up),
    Down(Down),
    Open(Open),
    Reply(Reply),
    DevicePresence(DevicePresence),
    VerifierPresence(VerifierPresence),
    Energy(EnergyReport),
    Telemetry(Telemetry),
    Setup(SetupReport),
    Fleet(FleetReport),
    Rollout(Rollout),
    Wanted(WantedPieces),
    Block(OwnedBlock),
    Command(BoardCommand),
    Time(FleetTime),
    Enrol(EnrolRequest),
    Certificate(EnrolAnswer),
    StorePresence(StorePresence),
    Root(RootNotice),
}

/// An [`ObjectBlock`] with its bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OwnedBlock {
    pub(crate) object: [u8; 8],
    pub(crate) first: u32,
    pub(crate) count: u8,
    pub(crate) form: BlockForm,
    pub(crate) bytes: std::vec::Vec<u8>,
}

impl OwnedBlock {
    pub(crate) fn borrowed(&self) -> ObjectBlock<'_> {
        let Self { object, first, count, form, ref bytes } = *self;
        ObjectBlock { object, first, count, form, bytes }
    }
}

impl From<ObjectBlock<'_>> for Message {
    fn from(block: ObjectBlock<'_>) -> Self {
        let ObjectBlock { object, first, count, form, bytes } = block;
        Self::Block(OwnedBlock { object, first, count, form, bytes: bytes.to_vec() })
    }
}

impl Message {
    pub(crate) fn on(&self) -> On {
        match self {
            Self::Up(_) => On::Frames,
            Self::Down(_) => On::Verdicts,
            Self::Open(_) => On::Open,
            Self::Reply(_) => On::Reply,
            Self::DevicePresence(_) => On::DevicePresence,
            Self::VerifierPresence(_) => On::VerifierPresence,
            Self::Energy(_) => On::Energy,
            Self::Telemetry(_) => On::Telemetry,
            Self::Setup(_) => On::Setup,
            Self::Fleet(_) => On::Fleet,
            Self::Rollout(_) => On::Rollout,
            Self::Wanted(_) => On::Wanted,
            Self::Block(_) => On::Block,
            Self::Command(_) => On::Command,
            Self::Time(_) => On::Time,
            Self::Enrol(_) => On::Enrol,
            Self::Certificate(_) => On::Certificate,
            Self::StorePresence(_) => On::StorePresence,
            Self::Root(_) => On::Root,
        }
    }

    /// The name of the kind, as in the table of `docs/wire.md`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Up(Up::Draft(frame)) if !frame.is_plain() => "annotated",
            Self::Up(Up::Draft(_)) => "draft",
            Self::Up(Up::Context(_)) => "context",
            Self::Up(Up::Codes(_)) => "codes",
            Self::Up(Up::Close(_)) => "close",
            Self::Down(Down::Verdict(verdict)) if verdict.missed != 0 => "audited",
            Self::Down(Down::Verdict(_)) => "verdict",
            Self::Down(Down::Resync(_)) => "resync",
            Self::Down(Down::Closed(_)) => "closed",
            Self::Down(Down::Continuation(_)) => "continuation",
            Self::Down(Down::Working(_)) => "working",
            Self::Open(_) => "open",
            Self::Reply(Reply::Lease(_)) => "lease",
            Self::Reply(Reply::Refusal(_)) => "refusal",
            Self::DevicePresence(_) => "device-presence",
            Self::VerifierPresence(_) => "verifier-presence",
            Self::Energy(_) => "energy",
            Self::Telemetry(_) => "telemetry",
            Self::Setup(_) => "setup",
            Self::Fleet(_) => "fleet",
            Self::Rollout(_) => "rollout",
            Self::Wanted(_) => "wanted",
            Self::Block(_) => "block",
            Self::Command(_) => "command",
            Self::Time(_) => "time",
            Self::Enrol(_) => "enrol",
            Self::Certificate(_) => "certificate",
            Self::StorePresence(_) => "store-presence",
            Self::Root(_) => "root",
        }
    }

    pub(crate) fn encode(&self) -> Result<Bytes, EncodeError> {
        match self {
            Self::Up(Up::Draft(frame)) => frame.encode().map(widen),
            Self::Up(Up::Context(context)) => context.encode().map(widen),
            Self::Up(Up::Codes(codes)) => codes.encode().map(widen),
            Self::Up(Up::Close(close)) => close.encode().map(widen),
            Self::Down(down) => down.encode().map(widen),
            Self::Open(open) => open.encode().map(widen),
            Self::Reply(reply) => reply.encode().map(widen),
            Self::DevicePresence(presence) => presence.encode().map(widen),
            Self::VerifierPresence(presence) => presence.encode().map(widen),
            Self::Energy(report) => report.encode().map(widen),
            Self::Telemetry(telemetry) => telemetry.encode().map(widen),
            Self::Setup(report) => report.encode().map(widen),
            Self::Fleet(message) => message.encode().map(widen),
            Self::Rollout(message) => message.encode().map(widen),
            Self::Wanted(message) => message.encode().map(widen),
            Self::Block(message) => message.borrowed().encode().map(widen),
            Self::Command(message) => message.encode().map(widen),
            Self::Time(message) => message.encode().map(widen),
            Self::Enrol(message) => message.encode().map(widen),
            Self::Certificate(message) => message.encode().map(widen),
            Self::StorePresence(message) => message.encode().map(widen),
            Self::Root(message) => message.encode().map(widen),
        }
    }
}

fn widen<const N: usize>(bytes: Vec<u8, N>) -> Bytes {
    bytes.to_vec()
}

macro_rules! into_message {
    ($($from:ty => $wrap:expr;)*) => {
        $(impl From<$from> for Message {
            fn from(value: $from) -> Self {
                $wrap(value)
            }
        })*
    };
}

into_message! {
    DraftFrame => |v| Self::Up(Up::Draft(v));
    Context => |v| Self::Up(Up::Context(v));
    Codes => |v| Self::Up(Up::Codes(v));
    Close => |v| Self::Up(Up::Close(v));
    Verdict => |v| Self::Down(Down::Verdict(v));
    Resync => |v| Self::Down(Down::Resync(v));
    Closed => |v| Self::Down(Down::Closed(v));
    Continuation => |v| Self::Down(Down::Continuation(v));
    Working => |v| Self::Down(Down::Working(v));
    Open => Self::Open;
    Lease => |v| Self::Reply(Reply::Lease(v));
    Refusal => |v| Self::Reply(Reply::Refusal(v));
    DevicePresence => Self::DevicePresence;
    VerifierPresence => Self::VerifierPresence;
    EnergyReport => Self::Energy;
    Telemetry => Self::Telemetry;
    SetupReport => Self::Setup;
    FleetReport => Self::Fleet;
    Rollout => Self::Rollout;
    WantedPieces => Self::Wanted;
    OwnedBlock => Self::Block;
    BoardCommand => Self::Command;
    FleetTime => Self::Time;
    EnrolRequest => Self::Enrol;
    EnrolAnswer => Self::Certificate;
    StorePresence => Self::StorePresence;
    RootNotice => Self::Root;
}

pub(crate) const NONCE: u64 = 0x0123_4567_89ab_cdef;
pub(crate) const V1: Vocabulary =
    Vocabulary { size: 32000, fingerprint: [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef] };
pub(crate) const V2: Vocabulary =
    Vocabulary { size: 2048, fingerprint: [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10] };

pub(crate) const TARGET: TargetId = TargetId::from_bytes([0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xb0, 0xb1]);
/// 25 ms per pass, 1 ms per further row, queue unknown.
pub(crate) const PRICE: Price = Price { pass: LogTime(117), row: LogTime(80), queue: LogTime(0) };
const PRICE_MAX: Price = Price { pass: LogTime(255), row: LogTime(255), queue: LogTime(255) };

pub(crate) fn digest(tokens: &[TokenId]) -> PrefixDigest {
    tokens.iter().fold(PREFIX_EMPTY, |digest, token| digest.push(*token))
}

pub(crate) fn draft((token, uncertainty, importance): (TokenId, u8, u8)) -> Draft {
    let score = |k| Score::new(k).expect("a score of 0 to 15");
    Draft { token, uncertainty: score(uncertainty), importance: score(importance) }
}

/// A continuation of session 1, epoch 2.
pub(crate) fn continuation(round: u32, base: u32, token_bits: u8, tokens: &[TokenId]) -> Continuation {
    Continuation {
        session: 1,
        epoch: 2,
        round,
        base,
        prefix: digest(&[1, 450, 9999]).short(),
        pass: PRICE.pass,
        queue: PRICE.queue,
        token_bits,
        tokens: tokens.iter().copied().collect(),
    }
}

pub(crate) fn largest_continuation() -> Continuation {
    let count = CONTINUATION_TOKENS_MAX;
    Continuation {
        session: 255,
        epoch: 255,
        prefix: [0xff; 2],
        pass: LogTime(255),
        queue: LogTime(255),
        ..continuation(u32::MAX, SESSION_TOKENS_MAX - count as u32, 18, &vec![VOCABULARY_SIZE_MAX - 1; count])
    }
}

/// A frame of session 1, epoch 2.
pub(crate) fn frame(round: u32, base: u32, token_bits: u8, drafts: &[(TokenId, u8, u8)]) -> DraftFrame {
    let prefix = digest(&[1, 450, 9999]).short();
    let drafts = drafts.iter().map(|d| draft(*d)).collect();
    let (send, held, bonus, rows, credit) = (1, 0, true, Rows::None, None);
    DraftFrame {
        session: 1,
        epoch: 2,
        round,
        send,
        base,
        prefix,
        token_bits,
        drafts,
        held,
        bonus,
        rows,
        credit,
    }
}

pub(crate) fn row(entries: &[(TokenId, u8)]) -> Row {
    Row { entries: entries.iter().map(|&(token, weight)| Entry { token, weight }).collect() }
}

/// A row of `count` tokens up to the last of the vocabulary, each with `weight`.
pub(crate) fn last_tokens(token_bits: u8, count: u32, weight: u8) -> Row {
    let tokens = (1 << token_bits) - count..1 << token_bits;
    Row { entries: tokens.map(|token| Entry { token, weight }).collect() }
}

/// Round 3 at base 100 with 15 bits a token, like `eight_drafts`.
pub(crate) fn annotated(drafts: &[(TokenId, u8, u8)], held: u16, bonus: bool, rows: Rows) -> DraftFrame {
    DraftFrame { held, bonus, rows, ..frame(3, 100, 15, drafts) }
}

pub(crate) fn held_drafts() -> DraftFrame {
    annotated(&[(1, 0, 15), (450, 0, 0), (9999, 15, 0), (31999, 0, 0)], 0b1010, true, Rows::None)
}

pub(crate) fn top_k() -> DraftFrame {
    let rows = [row(&[(2, 1), (450, 200), (31999, 40)]), row(&[(9999, 255)])];
    let rows = Rows::TopK(rows.into_iter().collect());
    annotated(&[(450, 3, 12), (1, 0, 0), (9999, 15, 0)], 0b010, true, rows)
}

pub(crate) fn top_k_sampled() -> DraftFrame {
    let rows = Rows::TopKSampled([row(&[(2, 1), (450, 255)])].into_iter().collect());
    annotated(&[(450, 3, 12)], 0, false, rows)
}

pub(crate) fn lattice() -> DraftFrame {
    let rows = [row(&[(2, 10), (450, 70), (9999, 20)]), row(&[(31999, 100)])];
    let rows = Rows::Lattice { resolution: 100, rows: rows.into_iter().collect() };
    annotated(&[(450, 3, 12), (1, 0, 0), (31999, 8, 8)], 0b010, true, rows)
}

/// A plain frame with credit up to position 300 and two stop ids.
pub(crate) fn credited() -> DraftFrame {
    let credit = Credit { until: 300, again: false, stop: [2, 31999].into_iter().collect() };
    DraftFrame { credit: Some(credit), ..annotated(&[(450, 3, 12)], 0, true, Rows::None) }
}

/// Six rows of 64 entries, one of 32, and a held draft: 11066 bits, two of them in the last byte.
pub(crate) fn largest_annotated() -> DraftFrame {
    let counts = [64, 64, 64, 64, 64, 64, 32];
    let rows = Rows::TopK(counts.map(|count| last_tokens(18, count, 255)).into_iter().collect());
    let mut drafts = [(262_143, 15, 15); 8];
    drafts[7] = (262_143, 0, 0);
    let largest = frame(u32::MAX, 131_072 - 8, 18, &drafts);
    DraftFrame { session: 255, epoch: 255, send: 255, prefix: [0xff; 2], held: 1 << 7, rows, ..largest }
}

pub(crate) fn codes(round: u32, part: u8, codes: &[u8]) -> Codes {
    Codes { session: 1, epoch: 2, round, part, codes: codes.iter().copied().collect() }
}

pub(crate) fn largest_codes() -> Codes {
    Codes { session: 255, epoch: 255, ..codes(u32::MAX, 255, &[255; 1024]) }
}

pub(crate) fn largest_audited() -> Verdict {
    let (session, epoch, round, check, longest) = (255, 255, u32::MAX, 255, LogTime(255));
    let (accepted, token, missed) = (16, 262_143, u16::MAX);
    Verdict {
        session,
        epoch,
        round,
        check,
        send: 255,
        pass: longest,
        queue: longest,
        accepted,
        token,
        missed,
    }
}

pub(crate) fn eight_drafts() -> DraftFrame {
    let drafts = [
        (1, 0, 15),
        (450, 3, 12),
        (9999, 15, 0),
        (31999, 8, 8),
        (0, 1, 2),
        (16384, 4, 5),
        (12345, 6, 7),
        (2, 9, 10),
    ];
    frame(3, 100, 15, &drafts)
}

pub(crate) fn largest_draft() -> DraftFrame {
    let largest = frame(u32::MAX, 131_072 - 16, 18, &[(262_143, 15, 15); 16]);
    DraftFrame { session: 255, epoch: 255, send: 255, prefix: [0xff; 2], ..largest }
}

pub(crate) fn context(epoch: u8, offset: u32, prefix: Prefix, token_bits: u8, tokens: &[TokenId]) -> Context {
    let tokens = tokens.iter().copied().collect();
    Context { session: 1, epoch, offset, prefix, token_bits, tokens }
}

pub(crate) fn largest_context() -> Context {
    Context { session: 255, ..context(255, 131_072 - 256, [0xff; 2], 18, &[262_143; 256]) }
}

pub(crate) fn closed(reason: CloseReason) -> Closed {
    Closed { session: 1, epoch: 2, nonce: NONCE, reason }
}

pub(crate) fn open_resume() -> Open {
    let sampling = SamplingParams { temperature: 0.7, top_p: 0.95, top_k: 40 };
    let (session, epoch, nonce, seed) = (200, 255, u64::MAX, u64::MAX);
    Open { session, epoch, nonce, seed, sampling, vocabulary: V2, length: 131_072 }
}

pub(crate) fn lease_resumed() -> Lease {
    Lease {
        session: 200,
        epoch: 255,
        nonce: u64::MAX,
        verifier: verifier_id(&"z".repeat(32)),
        target: TargetId::from_bytes([0xff; 8]),
        promise: Promise::Approximate,
        coupling: CouplingProfile::Murmur,
        price: PRICE_MAX,
        draft_tokens_max: 16,
        credit_tokens_max: u16::MAX,
        context_tokens_max: 131_072,
        vocabulary_size: VOCABULARY_SIZE_MAX,
        length: 3,
        digest: digest(&[1, 450, 9999]).full(),
    }
}

pub(crate) fn verifier_id(text: &str) -> VerifierId {
    text.parse().expect("an id")
}

pub(crate) fn refusal(reason: RefusalReason) -> Refusal {
    Refusal { session: 1, epoch: 0, nonce: NONCE, reason }
}

pub(crate) fn verifier_presence(
    liveness: Liveness,
    vocabulary: Vocabulary,
    model: &str,
    load: u8,
) -> VerifierPresence {
    let model = ModelName::try_from(model).expect("a model's name of at most 64 bytes");
    VerifierPresence {
        generation: 7,
        liveness,
        vocabulary,
        target: TARGET,
        promise: Promise::Exact,
        coupling: CouplingProfile::SplitMix,
        model,
        engine: engine_name("candle 0.11"),
        numerics: engine_name("avx2, f32 cache"),
        price: PRICE,
        load,
        draining: false,
    }
}

fn engine_name(text: &str) -> EngineName {
    EngineName::try_from(text).expect("a name of at most 32 bytes")
}

pub(crate) fn largest_presence() -> VerifierPresence {
    let vocabulary = Vocabulary { size: 262_144, fingerprint: [0xff; 8] };
    let presence = verifier_presence(Liveness::Lost, vocabulary, &"m".repeat(64), u8::MAX);
    let (engine, numerics) = (engine_name(&"e".repeat(32)), engine_name(&"n".repeat(32)));
    let (target, promise, price) = (TargetId::from_bytes([0xff; 8]), Promise::Approximate, PRICE_MAX);
    VerifierPresence {
        generation: u32::MAX,
        target,
        promise,
        engine,
        numerics,
        price,
        draining: true,
        ..presence
    }
}

/// The first report of a run in which nothing else happened.
pub(crate) fn smallest_energy() -> EnergyReport {
    EnergyReport {
        run: 0,
        reports: 1,
        source: PowerSource::Ina219,
        requests: 0,
        phases: PhaseTotals::default(),
        idle_mw: None,
        uncertainty_uj: 0,
        committed: 0,
        drafted: 0,
        frames: 0,
        faults: MeterFaults::default(),
    }
}

/// A run of 60 s on a board of about 4 W.
pub(crate) fn typical_energy() -> EnergyReport {
    let phase = |energy_uj, time_us| PhaseTotal { energy_uj, time_us };
    EnergyReport {
        run: 0x9e37_79b9,
        reports: 3,
        source: PowerSource::Ina219,
        requests: 3,
        phases: PhaseTotals {
            load: phase(9_600_000, 3_000_000),
            draft: phase(118_000_000, 20_000_000),
            score: phase(5_200_000, 1_000_000),
            send: phase(1_300_000, 250_000),
            wait: phase(36_000_000, 12_000_000),
            idle: phase(64_000_000, 23_750_000),
        },
        idle_mw: Some(2_695),
        uncertainty_uj: 2_340_000,
        committed: 600,
        drafted: 720,
        frames: 90,
        faults: MeterFaults { gaps: 1, gap_us: 31_000, failed: 2, ..MeterFaults::default() },
    }
}

pub(crate) fn largest_energy() -> EnergyReport {
    let most = PhaseTotal { energy_uj: u64::MAX, time_us: u64::MAX };
    let phases = PhaseTotals { load: most, draft: most, score: most, send: most, wait: most, idle: most };
    EnergyReport {
        run: u32::MAX,
        reports: u32::MAX,
        source: PowerSource::Simulated,
        requests: u32::MAX,
        phases,
        idle_mw: Some(u32::MAX),
        uncertainty_uj: u64::MAX,
        committed: u64::MAX,
        drafted: u64::MAX,
        frames: u64::MAX,
        faults: LARGEST_FAULTS,
    }
}

const LARGEST_FAULTS: MeterFaults = MeterFaults {
    gaps: u32::MAX,
    gap_us: u64::MAX,
    clipped: u32::MAX,
    overflowed: u32::MAX,
    reinitialised: u32::MAX,
    failed: u32::MAX,
};

pub(crate) fn smallest_telemetry() -> Telemetry {
    Telemetry {
        run: 0,
        at_us: 0,
        source: PowerSource::Ina219,
        mean_mw: 0,
        peak_mw: 0,
        energy_uj: 0,
        temperature_dc: None,
        throttling: None,
        faults: MeterFaults::default(),
    }
}

/// The end of the run of [`typical_energy`]: 61.5 °C, and the clock was capped once.
pub(crate) fn typical_telemetry() -> Telemetry {
    Telemetry {
        run: 0x9e37_79b9,
        at_us: 60_000_000,
        source: PowerSource::Ina219,
        mean_mw: 3_902,
        peak_mw: 6_740,
        energy_uj: 234_100_000,
        temperature_dc: Some(615),
        throttling: Some(Throttling::new(Throttling::FREQUENCY_CAPPED << 4)),
        faults: MeterFaults { gaps: 1, gap_us: 31_000, failed: 2, ..MeterFaults::default() },
    }
}

pub(crate) fn largest_telemetry() -> Telemetry {
    Telemetry {
        run: u32::MAX,
        at_us: u64::MAX,
        source: PowerSource::Simulated,
        mean_mw: u32::MAX,
        peak_mw: u32::MAX,
        energy_uj: u64::MAX,
        temperature_dc: Some(i16::MIN),
        throttling: Some(Throttling::new(u8::MAX)),
        faults: LARGEST_FAULTS,
    }
}

/// Two mistakes of a set-up file.
pub(crate) fn typical_setup() -> SetupReport {
    SetupReport::new(2, ["line 3: no =", "broker is missing"])
}

pub(crate) fn largest_setup() -> SetupReport {
    SetupReport::new(usize::MAX, ["x".repeat(1001).as_str()])
}

pub(crate) fn signatures(keys: &[u8]) -> Signatures {
    keys.iter().map(|key| Signature { key: KeyId([*key; 8]), bytes: [key ^ 0xa5; 64] }).collect()
}

/// A board that waits for its first rollout.
pub(crate) fn smallest_fleet() -> FleetReport {
    FleetReport {
        report: 1,
        rollout: 0,
        command: 0,
        release: 0,
        target: 0,
        phase: FleetPhase::Idle,
        permille: 0,
        reason: FleetReason::None,
        detail: Default::default(),
        slot: SystemSlot::None,
        system: 0,
        min_number: 0,
        tries: 0,
        failures: 0,
        free_mib: 0,
        board: "a".parse().expect("an id"),
        updater: 0,
    }
}

/// A board that went back from release 13 to 12.
pub(crate) fn typical_fleet() -> FleetReport {
    FleetReport {
        report: 17,
        rollout: 41,
        command: 2,
        release: 12,
        target: 13,
        phase: FleetPhase::RolledBack,
        permille: 1000,
        reason: FleetReason::Golden,
        detail: "prompt 1 drafted other tokens".try_into().expect("160 bytes"),
        slot: SystemSlot::B,
        system: 11,
        min_number: 10,
        tries: 2,
        failures: 3,
        free_mib: 2048,
        board: "rpi4".parse().expect("an id"),
        updater: 0x0001_0200,
    }
}

pub(crate) fn largest_fleet() -> FleetReport {
    FleetReport {
        report: u32::MAX,
        rollout: u32::MAX,
        command: u32::MAX,
        release: u32::MAX,
        target: u32::MAX,
        phase: FleetPhase::Removed,
        permille: 1000,
        reason: FleetReason::Operator,
        detail: "d".repeat(160).as_str().try_into().expect("160 bytes"),
        slot: SystemSlot::B,
        system: u32::MAX,
        min_number: u32::MAX,
        tries: u8::MAX,
        failures: u16::MAX,
        free_mib: u32::MAX,
        board: "z".repeat(32).parse().expect("an id"),
        updater: u32::MAX,
    }
}

pub(crate) fn typical_rollout() -> Rollout {
    let fields = RolloutFields {
        number: 41,
        at: 1_796_083_200,
        until: 1_798_675_200,
        release: 13,
        object: ObjectId([0x5a; 32]),
        size: 900,
        permille: 100,
        salt: 0x9e37_79b9,
        paused: false,
        bytes_per_s: 262_144,
        deadline_min: 1440,
    };
    Rollout { fields, signatures: signatures(&[7]) }
}

pub(crate) fn largest_rollout() -> Rollout {
    let fields = RolloutFields {
        number: u32::MAX,
        at: u64::MAX - 1,
        until: u64::MAX,
        release: u32::MAX,
        object: ObjectId([0xff; 32]),
        size: SIGNED_DOCUMENT_BYTES_MAX as u16,
        permille: 1000,
        salt: u32::MAX,
        paused: true,
        bytes_per_s: u32::MAX,
        deadline_min: u16::MAX,
    };
    Rollout { fields, signatures: signatures(&[1, 2, 3]) }
}

pub(crate) fn wanted(spans: &[(u32, u8)]) -> WantedPieces {
    let spans = spans.iter().map(|&(first, count)| PieceSpan { first, count }).collect();
    WantedPieces { object: ObjectId([0x5a; 32]), spans }
}

/// Sixteen spans of two pieces, up to the last piece that has a number.
pub(crate) fn largest_wanted() -> WantedPieces {
    let spans: std::vec::Vec<_> = (0..16).map(|at| (u32::MAX - 1 - 3 * (15 - at), 2)).collect();
    wanted(&spans)
}

pub(crate) fn block(first: u32, count: u8, form: BlockForm, length: usize) -> OwnedBlock {
    OwnedBlock { object: [0x5a; 8], first, count, form, bytes: vec![0xb0; length] }
}

pub(crate) fn largest_block() -> OwnedBlock {
    block(u32::MAX - 7, 8, BlockForm::Raw, BLOCK_BYTES_MAX)
}

pub(crate) fn command(number: u32, until: u64, verb: CommandVerb, keys: &[u8]) -> BoardCommand {
    BoardCommand { fields: CommandFields { number, until, verb }, signatures: signatures(keys) }
}

pub(crate) fn time(at: u64, number: u32, keys: &[u8]) -> FleetTime {
    FleetTime { fields: TimeFields { at, number }, signatures: signatures(keys) }
}

pub(crate) fn enrol(length: usize) -> EnrolRequest {
    EnrolRequest { exchange: [0x11; 32], mac: [0x22; 32], csr: std::iter::repeat_n(0x30, length).collect() }
}

pub(crate) fn largest_enrol() -> EnrolRequest {
    enrol(CSR_BYTES_MAX)
}

pub(crate) fn granted(seal: usize, chain: usize) -> EnrolAnswer {
    let bytes = |length| std::iter::repeat_n(0x30, length);
    EnrolAnswer {
        request: [0x33; 8],
        verdict: EnrolVerdict::Granted,
        seal: bytes(seal).collect(),
        chain: bytes(chain).collect(),
    }
}

pub(crate) fn largest_certificate() -> EnrolAnswer {
    granted(SEAL_CERTIFICATE_BYTES_MAX, CHAIN_BYTES_MAX)
}

pub(crate) fn refused_certificate(verdict: EnrolVerdict) -> EnrolAnswer {
    EnrolAnswer { verdict, ..granted(0, 0) }
}

pub(crate) fn root_notice(version: u32, size: u16) -> RootNotice {
    RootNotice { version, object: ObjectId([0x5a; 32]), size }
}

pub(crate) fn store_presence(generation: u32, liveness: Liveness, load: u8) -> StorePresence {
    StorePresence { generation, liveness, load }
}
