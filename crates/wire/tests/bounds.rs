//! Every limit is reached, one more than the limit is refused, and the error names the field.

mod common;

use common::{
    Message, On, V1, block, codes, command, context, continuation, eight_drafts, enrol, frame, granted,
    largest_annotated, largest_audited, largest_block, largest_certificate, largest_codes, largest_context,
    largest_continuation, largest_draft, largest_energy, largest_enrol, largest_fleet, largest_presence,
    largest_rollout, largest_setup, largest_telemetry, largest_wanted, lease_resumed, open_resume, refusal,
    refused_certificate, root_notice, signatures, smallest_energy, smallest_fleet, smallest_telemetry, time,
    typical_rollout, typical_setup, typical_telemetry, verifier_presence, wanted,
};
use dunlin_wire::limits::{
    ANNOTATED_BYTES_MAX, ANNOTATED_HEADER_BYTES_MAX, BLOCK_BYTES_MAX, BLOCK_MESSAGE_BYTES_MAX,
    CERTIFICATE_BYTES_MAX, CHAIN_BYTES_MAX, CODES_BYTES_MAX, CODES_MAX, COMMAND_BYTES_MAX, CONTEXT_BYTES_MAX,
    CONTEXT_CHUNK_TOKENS_MAX, CSR_BYTES_MAX, DOCUMENT_BYTES_MAX, DRAFT_BYTES_MAX, DRAFT_TOKENS_MAX,
    ENERGY_BYTES_MAX, ENGINE_NAME_BYTES_MAX, ENROL_BYTES_MAX, FLEET_BYTES_MAX, FRAME_BYTES_MAX,
    MESSAGE_BYTES_MAX, MODEL_NAME_BYTES_MAX, PIECE_BYTES, ROLLOUT_BYTES_MAX, SEAL_CERTIFICATE_BYTES_MAX,
    SESSION_TOKENS_MAX, SETUP_BYTES_MAX, SIGNATURE_ENTRY_BYTES, SIGNATURES_MAX, SIGNED_DOCUMENT_BYTES_MAX,
    SIGNED_TEXT_BYTES_MAX, TELEMETRY_BYTES_MAX, TIME_BYTES_MAX, TOKEN_BITS_MAX, TOKEN_BITS_MIN,
    VOCABULARY_SIZE_MAX, WANTED_BYTES_MAX, WANTED_PIECES_MAX, WANTED_SPANS_MAX,
};
use dunlin_wire::{
    BlockForm, Codes, CommandVerb, Context, DecodeError, DraftFrame, EncodeError, EnergyReport, EngineName,
    EnrolRequest, EnrolVerdict, FleetReport, Lease, Liveness, LogTime, ModelName, Open, PhaseTotal,
    PhaseTotals, RefusalReason, Resync, Rollout, RolloutFields, RolloutScope, Score, SetupReport, Telemetry,
    Throttling, Up, Verdict, Vocabulary, Working, put_signatures, take_signatures, token_bits,
};

const VERDICT: Verdict = Verdict {
    session: 1,
    epoch: 2,
    round: 3,
    check: 4,
    send: 1,
    pass: LogTime(0),
    queue: LogTime(0),
    accepted: 5,
    token: 6,
    missed: 0,
};
const WORKING: Working = Working { session: 1, epoch: 2, round: 3, wait: LogTime(1) };
const RESYNC: Resync = Resync { session: 1, epoch: 2, round: 3, length: 3, digest: [0; 8] };

fn encoded(message: impl Into<Message>) -> Vec<u8> {
    message.into().encode().expect("a valid message").to_vec()
}

#[track_caller]
fn refused(message: impl Into<Message>, field: &'static str) {
    assert_eq!(message.into().encode(), Err(EncodeError::OutOfRange(field)));
}

#[track_caller]
fn impossible(on: On, bytes: &[u8], field: &'static str) {
    assert_eq!(on.decode(bytes), Err(DecodeError::Impossible(field)), "{bytes:02x?}");
}

#[test]
fn the_largest_messages_have_the_named_sizes() {
    let largest: [(Message, usize); 16] = [
        (largest_draft().into(), DRAFT_BYTES_MAX),
        (largest_context().into(), CONTEXT_BYTES_MAX),
        (largest_presence().into(), MESSAGE_BYTES_MAX),
        (largest_annotated().into(), ANNOTATED_BYTES_MAX),
        (largest_codes().into(), CODES_BYTES_MAX),
        (largest_energy().into(), ENERGY_BYTES_MAX),
        (largest_telemetry().into(), TELEMETRY_BYTES_MAX),
        (largest_setup().into(), SETUP_BYTES_MAX),
        (largest_fleet().into(), FLEET_BYTES_MAX),
        (largest_rollout().into(), ROLLOUT_BYTES_MAX),
        (largest_wanted().into(), WANTED_BYTES_MAX),
        (command(u32::MAX, u64::MAX, CommandVerb::Log, &[1, 2, 3]).into(), COMMAND_BYTES_MAX),
        (time(u64::MAX, u32::MAX, &[1, 2, 3]).into(), TIME_BYTES_MAX),
        (largest_enrol().into(), ENROL_BYTES_MAX),
        (largest_block().into(), BLOCK_MESSAGE_BYTES_MAX),
        (largest_certificate().into(), CERTIFICATE_BYTES_MAX),
    ];
    for (message, limit) in largest.clone() {
        let mut bytes = encoded(message.clone());
        assert_eq!(bytes.len(), limit, "{}", message.kind());
        assert_eq!(message.on().decode(&bytes), Ok(message.clone()));
        bytes.push(0);
        let found = limit + 1;
        assert_eq!(message.on().decode(&bytes), Err(DecodeError::Oversize { found, limit }));
    }
    let small = largest.iter().map(|(_, limit)| *limit).take(14);
    assert_eq!(small.max(), Some(FRAME_BYTES_MAX));
    let tail = 11_066_usize.div_ceil(8); // see largest_annotated
    assert_eq!(encoded(largest_annotated()).len() - tail, ANNOTATED_HEADER_BYTES_MAX);
}

#[test]
fn each_list_and_number_of_the_largest_is_at_its_limit() {
    let (draft, context, presence) = (largest_draft(), largest_context(), largest_presence());
    assert_eq!(
        (draft.drafts.len(), draft.token_bits, draft.base + 16),
        (DRAFT_TOKENS_MAX, TOKEN_BITS_MAX, SESSION_TOKENS_MAX)
    );
    assert_eq!(
        (context.tokens.len(), context.token_bits, context.offset + 256),
        (CONTEXT_CHUNK_TOKENS_MAX, TOKEN_BITS_MAX, SESSION_TOKENS_MAX)
    );
    assert!(draft.drafts.iter().all(|d| d.token == VOCABULARY_SIZE_MAX - 1 && d.importance == Score::MAX));
    assert_eq!((presence.vocabulary.size, presence.model.len()), (VOCABULARY_SIZE_MAX, MODEL_NAME_BYTES_MAX));
    assert_eq!([presence.engine.len(), presence.numerics.len()], [ENGINE_NAME_BYTES_MAX; 2]);
    assert!(ModelName::try_from("m".repeat(MODEL_NAME_BYTES_MAX + 1).as_str()).is_err());
    assert!(EngineName::try_from("e".repeat(ENGINE_NAME_BYTES_MAX + 1).as_str()).is_err());
    assert_eq!((Score::new(15), Score::new(16)), (Some(Score::MAX), None));
}

#[test]
fn token_bits_hold_every_id_of_the_vocabulary() {
    let sizes = [1, 2, 255, 256, 257, 2048, 2049, 32000, 32768, 32769, 131_072, VOCABULARY_SIZE_MAX];
    assert_eq!(sizes.map(token_bits), [8, 8, 8, 8, 9, 11, 12, 15, 15, 16, 17, TOKEN_BITS_MAX]);
    assert_eq!(token_bits(0), TOKEN_BITS_MIN);
    assert!(token_bits(VOCABULARY_SIZE_MAX + 1) > TOKEN_BITS_MAX);
}

#[test]
fn eight_drafts_fit_32_bytes_while_round_and_base_are_short() {
    let size = |bits, round, base| encoded(frame(round, base, bits, &[(1, 2, 3); 8])).len();
    for (vocabulary, least) in [(32000, 32), (2048, 28)] {
        let bits = token_bits(vocabulary);
        assert_eq!(size(bits, 1, 0), least);
        assert_eq!(size(bits, 127, 127), least);
        assert_eq!(size(bits, 127, 16383), least + 1);
        assert_eq!(size(bits, 16383, 127), least + 1);
        assert_eq!(size(bits, 128, 128), least + 2);
    }
}

#[test]
fn a_frame_outside_its_limits_is_not_encoded() {
    let draft = |base, bits, token| DraftFrame { round: 1, ..frame(1, base, bits, &[(token, 0, 0)]) };
    refused(draft(0, TOKEN_BITS_MIN - 1, 0), "token_bits");
    refused(draft(0, TOKEN_BITS_MAX + 1, 0), "token_bits");
    refused(DraftFrame { round: 0, ..draft(0, 15, 0) }, "round");
    refused(DraftFrame { send: 0, ..draft(0, 15, 0) }, "send");
    refused(draft(SESSION_TOKENS_MAX, 15, 0), "base");
    refused(draft(u32::MAX, 15, 0), "base");
    refused(DraftFrame { base: SESSION_TOKENS_MAX - 15, ..largest_draft() }, "base");
    refused(frame(1, SESSION_TOKENS_MAX + 1, 15, &[]), "base");
    assert!(draft(SESSION_TOKENS_MAX - 1, 15, 0).encode().is_ok());
    assert!(frame(1, SESSION_TOKENS_MAX, 15, &[]).encode().is_ok());
    for bits in TOKEN_BITS_MIN..=TOKEN_BITS_MAX {
        refused(draft(0, bits, 1 << bits), "token");
        refused(context(0, 0, [0; 2], bits, &[0, 1 << bits]), "token");
    }
    refused(draft(0, 15, u32::MAX), "token");
    let chunk: Context = context(0, 0, [0; 2], 15, &[1]);
    refused(Context { token_bits: TOKEN_BITS_MIN - 1, ..chunk.clone() }, "token_bits");
    refused(Context { token_bits: TOKEN_BITS_MAX + 1, ..chunk.clone() }, "token_bits");
    refused(Context { offset: SESSION_TOKENS_MAX, ..chunk.clone() }, "offset");
    refused(Context { offset: u32::MAX, ..chunk.clone() }, "offset");
    refused(Context { offset: SESSION_TOKENS_MAX - 255, ..largest_context() }, "offset");
    assert!(Context { offset: SESSION_TOKENS_MAX - 1, ..chunk.clone() }.encode().is_ok());
    refused(Context { tokens: Default::default(), ..chunk }, "tokens");
}

#[test]
fn weights_outside_their_limits_are_refused() {
    refused(codes(0, 0, &[1]), "round");
    refused(codes(1, 0, &[]), "codes");
    for part in [0, 255] {
        assert!(codes(1, part, &[7; CODES_MAX]).encode().is_ok());
    }
    let last = (usize::from(u8::MAX) + 1) * CODES_MAX;
    assert_eq!(last, VOCABULARY_SIZE_MAX as usize, "the last weight of the last part is the last token's");
    let part = |header: &[u8], count: usize| [header, &vec![7; count]].concat();
    impossible(On::Frames, &part(&[0x1d, 1, 2, 0, 0, 1], 1), "round");
    impossible(On::Frames, &part(&[0x1d, 1, 2, 3, 0, 0], 0), "codes");
    impossible(On::Frames, &part(&[0x1d, 1, 2, 3, 0, 0x81, 0x08], 1025), "codes");
    let error = |count| Up::decode(&part(&[0x1d, 1, 2, 3, 0, 0x80, 0x08], count)).err();
    assert_eq!(
        [0, 1023, 1024, 1025].map(error),
        [Some(DecodeError::Truncated), Some(DecodeError::Truncated), None, Some(DecodeError::Trailing)]
    );
    let full: Codes = codes(3, 0, &[7; CODES_MAX]);
    assert_eq!(Up::decode(&part(&[0x1d, 1, 2, 3, 0, 0x80, 0x08], 1024)), Ok(Up::Codes(full)));
}

#[test]
fn an_answer_outside_its_limits_is_not_encoded() {
    refused(Verdict { round: 0, ..VERDICT }, "round");
    refused(Verdict { send: 0, ..VERDICT }, "send");
    refused(Resync { round: 0, ..RESYNC }, "round");
    refused(Working { round: 0, ..WORKING }, "round");
    refused(Working { wait: LogTime(0), ..WORKING }, "wait");
    refused(Verdict { accepted: DRAFT_TOKENS_MAX as u8 + 1, ..VERDICT }, "accepted");
    refused(Verdict { token: VOCABULARY_SIZE_MAX, ..VERDICT }, "token");
    for accepted in 0..DRAFT_TOKENS_MAX as u8 {
        refused(Verdict { accepted, missed: 1 << accepted, ..VERDICT }, "missed");
        encoded(Verdict { accepted: accepted + 1, missed: 1 << accepted, ..VERDICT });
    }
    refused(Resync { length: SESSION_TOKENS_MAX + 1, ..RESYNC }, "length");
}

#[test]
fn a_continuation_outside_its_limits_is_not_encoded() {
    refused(continuation(0, 3, 15, &[1]), "round");
    refused(continuation(1, 0, 15, &[1]), "base");
    refused(continuation(1, 3, 15, &[]), "tokens");
    refused(continuation(1, 3, 7, &[1]), "token_bits");
    refused(continuation(1, 3, 19, &[1]), "token_bits");
    refused(continuation(1, 3, 8, &[256]), "token");
    refused(continuation(1, SESSION_TOKENS_MAX - 1, 8, &[1, 2]), "base");
    encoded(continuation(1, SESSION_TOKENS_MAX - 2, 8, &[1, 2]));
    assert_eq!(encoded(largest_continuation()).len(), 162);
}

#[test]
fn impossible_continuations_are_named() {
    let one = || continuation(1, 3, 8, &[7]);
    impossible(On::Verdicts, &patched(one(), 4, &[0]), "round");
    impossible(On::Verdicts, &patched(one(), 5, &[0]), "base");
    impossible(On::Verdicts, &patched(one(), 10, &[7]), "token_bits");
    impossible(On::Verdicts, &patched(one(), 10, &[19]), "token_bits");
    impossible(On::Verdicts, &[&encoded(one())[..11], &[64], &[0; 65]].concat(), "tokens");
    let error = |bytes: &[u8]| dunlin_wire::Down::decode(bytes).err();
    assert_eq!(error(&encoded(one())[..12]), Some(DecodeError::Truncated));
    assert_eq!(error(&[&encoded(one())[..], &[0]].concat()), Some(DecodeError::Trailing));
}

#[test]
fn a_session_message_outside_its_limits_is_not_encoded() {
    for size in [0, VOCABULARY_SIZE_MAX + 1] {
        let vocabulary = Vocabulary { size, ..V1 };
        refused(Open { vocabulary, ..open_resume() }, "vocabulary");
        refused(refusal(RefusalReason::Vocabulary(vocabulary)), "vocabulary");
        refused(verifier_presence(Liveness::Here, vocabulary, "", 0), "vocabulary");
    }
    refused(Open { length: SESSION_TOKENS_MAX + 1, ..open_resume() }, "length");
    refused(Lease { length: SESSION_TOKENS_MAX + 1, ..lease_resumed() }, "length");
    refused(Lease { context_tokens_max: SESSION_TOKENS_MAX + 1, ..lease_resumed() }, "context_tokens_max");
    for vocabulary_size in [0, VOCABULARY_SIZE_MAX + 1] {
        refused(Lease { vocabulary_size, ..lease_resumed() }, "vocabulary_size");
    }
    refused(Lease { draft_tokens_max: 0, ..lease_resumed() }, "draft_tokens_max");
    refused(Lease { draft_tokens_max: DRAFT_TOKENS_MAX as u8 + 1, ..lease_resumed() }, "draft_tokens_max");
}

#[test]
fn impossible_frames_are_named() {
    let none = |shape| [0x11, 1, 1, 2, 3, 100, 0x0e, 0xd5, shape];
    impossible(On::Frames, &[0x11, 0, 1, 2, 3, 100, 0x0e, 0xd5, 119], "send");
    for bits in TOKEN_BITS_MIN..=TOKEN_BITS_MAX {
        let decoded = On::Frames.decode(&none((bits - TOKEN_BITS_MIN) * 17));
        assert_eq!(decoded, Ok(frame(3, 100, bits, &[]).into()));
    }
    for shape in 187..=255 {
        impossible(On::Frames, &none(shape), "shape");
    }
    for bits in [0, TOKEN_BITS_MIN - 1, TOKEN_BITS_MAX + 1, 255] {
        impossible(On::Frames, &[0x12, 1, 2, 0, 0, 0, bits, 0, 0], "token_bits");
    }
    impossible(On::Frames, &[0x11, 1, 1, 2, 0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0, 0, 119], "number");
    impossible(On::Frames, &[0x11, 1, 1, 2, 0, 100, 0x0e, 0xd5, 119], "round");
}

#[test]
fn a_text_beyond_the_session_is_named() {
    let draft = |low: u8, count: u8| {
        let header = [0x11, 1, 1, 2, 3, 0x80 | low, 0xff, 0x07, 0, 0, count]; // base 1023 · 128 + low, 8 bits a token
        [&header[..], &vec![0; 2 * usize::from(count)]].concat()
    };
    for count in 2..=DRAFT_TOKENS_MAX as u8 {
        assert!(Up::decode(&draft(128 - count, count)).is_ok(), "{count} drafts");
        impossible(On::Frames, &draft(129 - count, count), "base");
    }
    assert!(Up::decode(&draft(127, 1)).is_ok());
    assert!(Up::decode(&[0x11, 1, 1, 2, 3, 0x80, 0x80, 0x08, 0, 0, 119]).is_ok());
    impossible(On::Frames, &[0x11, 1, 1, 2, 3, 0x80, 0x80, 0x08, 0, 0, 1, 0, 0], "base");
    impossible(On::Frames, &[0x11, 1, 1, 2, 3, 0x81, 0x80, 0x08, 0, 0, 119], "base");
    impossible(On::Frames, &[0x11, 1, 1, 2, 3, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 1, 0, 0], "base");
    assert!(Up::decode(&[0x12, 1, 2, 0xff, 0xff, 0x07, 0, 0, 8, 0, 0]).is_ok());
    impossible(On::Frames, &[0x12, 1, 2, 0xff, 0xff, 0x07, 0, 0, 8, 1, 0, 0], "offset");
    impossible(On::Frames, &[0x12, 1, 2, 0x80, 0x80, 0x08, 0, 0, 8, 0, 0], "offset");
    impossible(On::Frames, &[0x12, 1, 2, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 8, 0, 0], "offset");
}

#[test]
fn a_tail_has_exactly_the_length_of_its_count() {
    let tail = |header: &[u8], length| Up::decode(&[header, &vec![0; length]].concat()).err();
    let drafts = [0x11, 1, 1, 2, 3, 0, 0, 0, 7 * 17 + 8]; // 8 × 23 bits
    assert_eq!(
        [0, 22, 23, 24].map(|length| tail(&drafts, length)),
        [Some(DecodeError::Truncated), Some(DecodeError::Truncated), None, Some(DecodeError::Trailing)]
    );
    let tokens = [0x12, 1, 2, 0, 0, 0, 15, 255]; // 256 × 15 bits
    assert_eq!(
        [0, 479, 480, 481].map(|length| tail(&tokens, length)),
        [Some(DecodeError::Truncated), Some(DecodeError::Truncated), None, Some(DecodeError::Trailing)]
    );
    assert_eq!(tail(&[0x12, 1, 2, 0, 0, 0, 8], 0), Some(DecodeError::Truncated), "no count");
}

/// `bytes` with `patch` written over them from `at` on.
fn patched(message: impl Into<Message>, at: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(message);
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

#[test]
fn impossible_answers_are_named() {
    impossible(On::Verdicts, &patched(VERDICT, 3, &[0]), "round");
    impossible(On::Verdicts, &patched(VERDICT, 5, &[0]), "send");
    impossible(On::Verdicts, &patched(RESYNC, 3, &[0]), "round");
    impossible(On::Verdicts, &patched(VERDICT, 8, &[17]), "accepted");
    impossible(
        On::Verdicts,
        &patched(Verdict { token: 262_143, ..VERDICT }, 9, &[0x80, 0x80, 0x10]),
        "token",
    );
    let audited = Verdict { missed: 1, ..VERDICT };
    impossible(On::Verdicts, &patched(audited, 8, &[0]), "missed");
    impossible(On::Verdicts, &patched(audited, 10, &[0b10_0000]), "missed");
    impossible(On::Verdicts, &patched(audited, 3, &[0]), "round");
    impossible(On::Verdicts, &patched(largest_audited(), 18, &[0x04]), "number");
    impossible(On::Verdicts, &[0x16, 1, 2, 9, 5], "text or choice");
    let at_limit = Resync { length: SESSION_TOKENS_MAX, ..RESYNC };
    impossible(On::Verdicts, &patched(at_limit, 4, &[0x81, 0x80, 0x08]), "length");
    impossible(On::Reply, &[0x19, 1, 2, 3, 5], "text or choice");
    impossible(On::DevicePresence, &[0x1a, 0, 3], "text or choice");
}

#[test]
fn impossible_session_messages_are_named() {
    let open = encoded(open_resume());
    let size = open.len() - 13; // two bytes of size, eight of fingerprint, three of length
    impossible(On::Open, &patched(open_resume(), open.len() - 3, &[0x81, 0x80, 0x08]), "length");
    impossible(On::Open, &[&open[..size], &[0], &open[size + 2..]].concat(), "vocabulary");
    impossible(On::Open, &[&open[..size], &[0x81, 0x80, 0x10], &open[size + 2..]].concat(), "vocabulary");
    let (text, after) = (14, 46); // of the 32 bytes of the id
    impossible(On::Reply, &patched(lease_resumed(), after + 8, &[3]), "text or choice"); // promise
    impossible(On::Reply, &patched(lease_resumed(), after + 9, &[2]), "text or choice"); // coupling
    let limits = after + 13;
    impossible(On::Reply, &patched(lease_resumed(), text, b"Z"), "text or choice");
    impossible(On::Reply, &patched(lease_resumed(), text, b"\xff"), "text or choice");
    impossible(On::Reply, &patched(lease_resumed(), limits, &[0]), "draft_tokens_max");
    impossible(On::Reply, &patched(lease_resumed(), limits, &[17]), "draft_tokens_max");
    impossible(On::Reply, &patched(lease_resumed(), limits + 4, &[0x81, 0x80, 0x08]), "context_tokens_max");
    let long = Lease { length: SESSION_TOKENS_MAX, ..lease_resumed() };
    impossible(On::Reply, &patched(lease_resumed(), limits + 7, &[0x81, 0x80, 0x10]), "vocabulary_size");
    impossible(On::Reply, &patched(long, limits + 10, &[0x81, 0x80, 0x08]), "length");
    let lease = encoded(lease_resumed());
    impossible(On::Reply, &[&lease[..text - 1], &[0], &lease[after..]].concat(), "text or choice");
    impossible(On::Reply, &[&lease[..text - 1], &[33, b'z'], &lease[text..]].concat(), "text or choice");
    impossible(On::Reply, &[0x19, 1, 2, 3, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], "vocabulary");
}

#[test]
fn impossible_presence_is_named() {
    let presence = || verifier_presence(Liveness::Here, V1, "m", 0);
    let bytes = encoded(presence());
    impossible(On::VerifierPresence, &patched(presence(), bytes.len() - 1, &[2]), "flag");
    impossible(On::VerifierPresence, &patched(presence(), 2, &[3]), "text or choice");
    impossible(On::VerifierPresence, &[&bytes[..3], &[0], &bytes[6..]].concat(), "vocabulary");
    let model = 24; // first byte, generation, liveness, size, fingerprint, target, promise, coupling
    let long = [&bytes[..model], &[65], &[b'm'; 65][..], &bytes[model + 2..]].concat();
    let (found, limit) = (long.len(), MESSAGE_BYTES_MAX);
    assert!(found < limit);
    impossible(On::VerifierPresence, &long, "text or choice");
}

#[test]
fn a_second_form_of_a_value_is_refused() {
    let second =
        |on: On, bytes: &[u8]| assert_eq!(on.decode(bytes), Err(DecodeError::NotCanonical), "{bytes:02x?}");
    second(On::Frames, &[0x11, 1, 1, 2, 0x83, 0x00, 0, 0, 0, 119]);
    second(On::Frames, &[0x12, 1, 2, 0x80, 0x80, 0x00, 0, 0, 8, 0, 0]);
    second(On::Verdicts, &[0x14, 1, 2, 3, 4, 1, 0, 0, 5, 0x86, 0x00]);
    second(On::Verdicts, &[0x16, 1, 2, 9, 0x80, 0x00]);
    second(On::Verdicts, &[0x1e, 1, 2, 3, 4, 1, 0, 0, 5, 6, 0]); // a verdict whose `missed` is 0
    second(On::Verdicts, &[0x1e, 1, 2, 3, 4, 1, 0, 0, 5, 6, 0x81, 0x00]);
    second(On::Frames, &[0x1d, 1, 2, 3, 0, 0x81, 0x00, 7]);
    second(On::DevicePresence, &[0x1a, 0x80, 0x00, 0]);
    for bit in 0..7 {
        let mut late = encoded(frame(300, 4097, 11, &[(2047, 15, 15), (0, 0, 0), (1024, 1, 14)]));
        *late.last_mut().expect("bytes") |= 1 << bit; // 57 bits leave 7 of padding
        second(On::Frames, &late);
        let mut chunk = encoded(context(0, 0, [0; 2], 15, &[1, 450, 9999, 31999, 2, 3, 4]));
        *chunk.last_mut().expect("bytes") |= 1 << bit; // 105 bits leave 7 of padding
        second(On::Frames, &chunk);
    }
}

#[test]
fn no_bytes_and_unknown_kinds_are_named() {
    for on in On::ALL {
        assert_eq!(on.decode(&[]), Err(DecodeError::Empty));
        assert_eq!(on.decode(&[0x10, 0, 0]), Err(DecodeError::UnknownKind(0)));
        assert_eq!(on.decode(&[0x1f]), Err(DecodeError::Truncated));
        for kind in 0..16 {
            assert_eq!(on.decode(&[0x1f, kind, 0]), Err(DecodeError::NotCanonical), "{kind}");
        }
        for kind in 31..=255 {
            assert_eq!(on.decode(&[0x1f, kind, 0]), Err(DecodeError::UnknownKind(kind)));
        }
    }
    assert_eq!(Up::decode(&encoded(eight_drafts())[..7]), Err(DecodeError::Truncated));
}

/// A short kind is refused in the extended form.
#[test]
fn a_short_kind_is_not_taken_in_the_long_form() {
    let bytes = encoded(eight_drafts());
    let long = [&[0x1f, 1], &bytes[1..]].concat();
    assert_eq!(Up::decode(&long), Err(DecodeError::NotCanonical));
}

#[test]
fn energy_outside_its_limits_is_refused() {
    refused(EnergyReport { reports: 0, ..smallest_energy() }, "reports");
    impossible(On::Energy, &patched(smallest_energy(), 3, &[0]), "reports");
    impossible(On::Energy, &patched(smallest_energy(), 4, &[6]), "text or choice");
    impossible(On::Energy, &patched(smallest_energy(), 18, &[2]), "option");
    impossible(On::Energy, &patched(largest_energy(), 6, &[0x1f]), "number");
    impossible(On::Energy, &patched(largest_energy(), 27, &[0x02]), "number"); // a phase's energy
    impossible(On::Telemetry, &patched(smallest_telemetry(), 4, &[6]), "text or choice");
    impossible(On::Telemetry, &patched(smallest_telemetry(), 8, &[2]), "option");
    impossible(On::Telemetry, &patched(largest_telemetry(), 41, &[0x07]), "number"); // temperature
    let second = |on: On, bytes: &[u8]| assert_eq!(on.decode(bytes), Err(DecodeError::NotCanonical));
    let (report, telemetry) = (encoded(smallest_energy()), encoded(smallest_telemetry()));
    second(On::Energy, &[&report[..2], &[0x80, 0x00], &report[3..]].concat());
    second(On::Telemetry, &[&telemetry[..3], &[0x80, 0x00], &telemetry[4..]].concat());
}

#[test]
fn a_set_up_outside_its_limits_is_refused() {
    refused(SetupReport { mistakes: 0, ..typical_setup() }, "mistakes");
    for letter in ['\u{1b}', '\r', '\0', '\u{85}', '\u{7f}'] {
        let text = [letter].into_iter().collect();
        refused(SetupReport { mistakes: 1, text }, "text");
    }
    let header = |mistakes, length: &[u8], text: &[u8]| [&[0x1f, 18, mistakes], length, text].concat();
    impossible(On::Setup, &header(0, &[1], b"a"), "mistakes");
    impossible(On::Setup, &header(1, &[1], b"\x1b"), "text");
    impossible(On::Setup, &header(1, &[2], b"a\xff"), "text");
    impossible(On::Setup, &header(1, &[0xe9, 0x07], &[b'a'; 1000]), "length"); // 1001
    let error = |bytes: &[u8]| SetupReport::decode(bytes).err();
    assert_eq!(error(&header(1, &[3], b"ab")), Some(DecodeError::Truncated));
    assert_eq!(error(&header(1, &[1], b"ab")), Some(DecodeError::Trailing));
    assert_eq!(error(&header(1, &[0x81, 0], b"a")), Some(DecodeError::NotCanonical));
}

#[test]
fn what_has_no_room_in_a_report_is_cut_between_letters() {
    let said = |lines: &[&str]| SetupReport::new(lines.len(), lines.iter().copied());
    assert_eq!(said(&["a\u{1b}[2J\nb", "c"]).text, "a [2J b\nc");
    assert_eq!(said(&[]).mistakes, 1, "a report is of a mistake");
    for length in 990..1010 {
        let line = "x".repeat(length) + "é";
        let report = said(&[&line, "next"]);
        assert!(report.text.len() <= 1000 && report.encode().is_ok());
        let whole = format!("{line}\nnext");
        let cut = report.text.strip_suffix('…');
        assert!(cut.map_or(*report.text == *whole, |kept| whole.starts_with(kept)), "{length}");
        assert_eq!(cut.is_none(), whole.len() <= 997, "{length}");
    }
}

#[test]
fn every_temperature_and_flag_comes_back() {
    for temperature in i16::MIN..=i16::MAX {
        let telemetry = Telemetry { temperature_dc: Some(temperature), ..typical_telemetry() };
        let bytes = telemetry.encode().expect("a valid message");
        assert_eq!(Telemetry::decode(&bytes), Ok(telemetry));
    }
    let size = |dc| encoded(Telemetry { temperature_dc: Some(dc), ..smallest_telemetry() }).len();
    assert_eq!([0, -64, 63, 64, -8192, 8191, 8192, i16::MIN].map(size), [17, 17, 17, 18, 18, 18, 19, 19]);
    for flags in 0..=u8::MAX {
        let throttling = Throttling::new(flags);
        let named = |t: Throttling| {
            let set = [t.under_voltage(), t.frequency_capped(), t.throttled(), t.soft_temperature_limit()];
            set.iter().rev().fold(0, |flags, set| flags << 1 | u8::from(*set))
        };
        assert_eq!(throttling.flags(), flags);
        assert_eq!(named(throttling.since_boot()) << 4 | named(throttling), flags);
    }
}

#[test]
fn phases_are_summed_up_to_the_largest_number() {
    let phase = |energy_uj, time_us| PhaseTotal { energy_uj, time_us };
    let phases = PhaseTotals {
        load: phase(1, 2),
        draft: phase(10, 20),
        score: phase(100, 200),
        send: phase(1000, 2000),
        wait: phase(10_000, 20_000),
        idle: phase(100_000, 200_000),
    };
    assert_eq!(phases.sum(), phase(111_111, 222_222));
    assert_eq!(largest_energy().phases.sum(), phase(u64::MAX, u64::MAX));
    let names = phases.named().map(|(name, _)| name);
    assert_eq!(names, ["load", "draft", "score", "send", "wait", "idle"]);
}

#[test]
fn a_state_of_an_update_outside_its_limits_is_refused() {
    refused(FleetReport { report: 0, ..smallest_fleet() }, "report");
    refused(FleetReport { permille: 1001, ..smallest_fleet() }, "permille");
    let detail = "a\u{1b}".try_into().expect("160 bytes");
    refused(FleetReport { detail, ..smallest_fleet() }, "detail");
    impossible(On::Fleet, &patched(smallest_fleet(), 2, &[0]), "report");
    impossible(On::Fleet, &patched(smallest_fleet(), 7, &[15]), "text or choice");
    impossible(On::Fleet, &patched(smallest_fleet(), 9, &[26]), "text or choice");
    impossible(On::Fleet, &patched(smallest_fleet(), 11, &[3]), "text or choice");
    impossible(On::Fleet, &patched(smallest_fleet(), 18, b"Z"), "text or choice");
    impossible(On::Fleet, &patched(largest_fleet(), 28, &[0xe9, 0x07]), "permille");
    impossible(On::Fleet, &patched(largest_fleet(), 33, b"\x07"), "detail");
}

#[test]
fn a_rollout_outside_its_limits_is_refused() {
    let of = |fields| Rollout { fields, ..typical_rollout() };
    let typical = typical_rollout().fields;
    refused(of(RolloutFields { number: 0, ..typical }), "number");
    refused(of(RolloutFields { until: typical.at, ..typical }), "until");
    refused(of(RolloutFields { release: 0, ..typical }), "release");
    refused(of(RolloutFields { permille: 1001, ..typical }), "permille");
    refused(of(RolloutFields { deadline_min: 0, ..typical }), "deadline_min");
    for size in [0, SIGNED_DOCUMENT_BYTES_MAX as u16 + 1] {
        refused(of(RolloutFields { size, ..typical }), "size");
        refused(root_notice(1, size), "size");
    }
    refused(root_notice(0, 1), "version");
    refused(command(0, 1, CommandVerb::Report, &[1]), "number");
    refused(time(1, 0, &[1]), "number");
    for message in [
        encoded(typical_rollout()),
        encoded(command(1, 1, CommandVerb::Log, &[1])),
        encoded(time(1, 1, &[1])),
    ] {
        let on = [On::Rollout, On::Command, On::Time].into_iter().find(|on| on.decode(&message).is_ok());
        let mut zero = message.clone();
        zero[if on == Some(On::Time) { 3 } else { 2 }] = 0;
        impossible(on.expect("a topic"), &zero, "number");
    }
    impossible(On::Command, &patched(command(1, 1, CommandVerb::Log, &[1]), 4, &[5]), "text or choice");
    impossible(On::Root, &patched(root_notice(1, 1), 2, &[0]), "version");
    impossible(On::Root, &patched(root_notice(1, 1), 35, &[0]), "size");
}

#[test]
fn signatures_are_one_to_three_of_ascending_keys() {
    assert_eq!((DOCUMENT_BYTES_MAX, SIGNATURES_MAX), (16_384, 3));
    for keys in [&[][..], &[2, 1], &[1, 1]] {
        refused(time(1, 1, keys), "signatures");
    }
    let good = encoded(time(1, 1, &[1, 2, 3]));
    for count in [0, 4, 255] {
        impossible(On::Time, &patched(time(1, 1, &[1, 2, 3]), 4, &[count]), "signatures");
    }
    let (head, tail) = good.split_at(5);
    let (one, two) =
        (&tail[..SIGNATURE_ENTRY_BYTES], &tail[SIGNATURE_ENTRY_BYTES..2 * SIGNATURE_ENTRY_BYTES]);
    for pair in [[two, one], [one, one]] {
        impossible(On::Time, &[&head[..4], &[2], pair[0], pair[1]].concat(), "signatures");
    }
    assert!(On::Time.decode(&[&head[..4], &[2], one, two].concat()).is_ok());
    let bytes = put_signatures(&signatures(&[1, 2])).expect("two signatures");
    assert_eq!(take_signatures(&bytes), Ok(signatures(&[1, 2])));
}

#[test]
fn the_text_that_is_signed_names_purpose_and_addressee() {
    let id = "z".repeat(32);
    let (ring, device) = (RolloutScope::Ring(id.parse().unwrap()), id.parse().unwrap());
    let fields = largest_rollout().fields;
    let texts = [
        fields.signed_text(&ring).unwrap(),
        fields.signed_text(&RolloutScope::Device(id.parse().unwrap())).unwrap(),
        command(u32::MAX, u64::MAX, CommandVerb::Log, &[1]).fields.signed_text(&device).unwrap(),
        time(u64::MAX, u32::MAX, &[1]).fields.signed_text().unwrap(),
    ];
    let begins = [
        "dunlin rollout 1\0dl1/r/",
        "dunlin rollout 1\0dl1/d/",
        "dunlin command 1\0dl1/d/",
        "dunlin time 1\0dl1/t\0",
    ];
    for (text, begin) in texts.iter().zip(begins) {
        assert!(text.starts_with(begin.as_bytes()) && text.len() <= SIGNED_TEXT_BYTES_MAX, "{begin}");
    }
    assert!(texts[0].ends_with(&encoded(largest_rollout())[2..83]), "the fields as they are sent");
}

#[test]
fn spans_ascend_with_gaps_and_are_a_window_at_most() {
    for (spans, field) in [
        (&[][..], "spans"),
        (&[(0, 0)], "count"),
        (&[(0, 33)], "count"),
        (&[(0, 16), (20, 17)], "count"),
        (&[(0, 2), (2, 1)], "first"),
        (&[(5, 1), (0, 1)], "first"),
        (&[(0, 2), (1, 1)], "first"),
        (&[(u32::MAX, 2)], "first"),
    ] {
        refused(wanted(spans), field);
        let head = [&[0x1f, 23][..], &[0x5a; 32], &[spans.len() as u8]].concat();
        let tail = |&(first, count): &(u32, u8)| {
            let first = encoded(time(1, first.max(1), &[1]))[3..]
                .iter()
                .take(if first > 127 { 5 } else { 1 })
                .copied()
                .collect::<Vec<_>>();
            [first, vec![count]].concat()
        };
        if spans.iter().all(|span| span.0 != 0) {
            impossible(On::Wanted, &[head, spans.iter().flat_map(tail).collect()].concat(), field);
        }
    }
    assert!(wanted(&[(0, WANTED_PIECES_MAX as u8)]).encode().is_ok());
    assert!(wanted(&[(u32::MAX, 1)]).encode().is_ok());
    let many = [&[0x1f, 23][..], &[0x5a; 32], &[WANTED_SPANS_MAX as u8 + 1], &[0; 64]].concat();
    impossible(On::Wanted, &many, "spans");
}

#[test]
fn a_block_has_the_bytes_of_its_pieces() {
    for (first, count, form, length, field) in [
        (0, 0, BlockForm::Raw, 0, "count"),
        (0, 9, BlockForm::Raw, BLOCK_BYTES_MAX, "count"),
        (7, 2, BlockForm::Raw, 2 * PIECE_BYTES, "count"),
        (0, 2, BlockForm::Raw, PIECE_BYTES, "length"),
        (0, 2, BlockForm::Raw, 2 * PIECE_BYTES + 1, "length"),
        (0, 1, BlockForm::Raw, 0, "length"),
        (0, 1, BlockForm::Zstd, 0, "length"),
        (0, 1, BlockForm::Zstd, PIECE_BYTES, "length"),
        (0, 1, BlockForm::Absent, 1, "length"),
    ] {
        refused(block(first, count, form, length), field);
    }
    for (first, count, form, length) in [
        (0, 8, BlockForm::Raw, BLOCK_BYTES_MAX),
        (7, 1, BlockForm::Raw, 1),
        (8, 2, BlockForm::Raw, PIECE_BYTES + 1),
        (8, 8, BlockForm::Zstd, BLOCK_BYTES_MAX - 1),
        (0, 1, BlockForm::Absent, 0),
    ] {
        let message = Message::from(block(first, count, form, length).borrowed());
        assert_eq!(On::Block.decode(&encoded(message.clone())), Ok(message));
    }
    let bytes = encoded(block(2, 1, BlockForm::Raw, 9));
    impossible(On::Block, &[&bytes[..11], &[0], &bytes[12..]].concat(), "count");
    impossible(On::Block, &[&bytes[..12], &[3], &bytes[13..]].concat(), "text or choice");
    impossible(On::Block, &[&bytes[..13], &[0x81, 0x80, 0x02], &bytes[14..]].concat(), "length"); // 32769
    impossible(On::Block, &[&bytes[..11], &[2], &bytes[12..]].concat(), "length");
}

#[test]
fn an_enrolment_outside_its_limits_is_refused() {
    refused(EnrolRequest { csr: Default::default(), ..enrol(1) }, "length");
    refused(granted(0, 0), "chain");
    refused(refused_certificate(EnrolVerdict::Granted), "chain");
    let with = |seal, chain| {
        let mut answer = granted(seal, chain);
        answer.verdict = EnrolVerdict::Name;
        answer
    };
    refused(with(0, 1), "chain");
    refused(with(1, 0), "seal");
    let request = encoded(enrol(16));
    impossible(On::Enrol, &[&request[..66], &[0]].concat(), "length");
    impossible(On::Enrol, &[&request[..66], &[0x81, 0x08], &[0; 1000][..]].concat(), "length"); // 1025
    assert!(enrol(CSR_BYTES_MAX).encode().is_ok());
    let answer = encoded(granted(8, 16));
    impossible(On::Certificate, &patched(granted(8, 16), 10, &[6]), "text or choice");
    impossible(On::Certificate, &patched(granted(8, 16), 10, &[1]), "chain");
    impossible(On::Certificate, &[&answer[..11], &[0x81, 0x02, 1], &[0; 258][..]].concat(), "seal"); // 257
    impossible(On::Certificate, &[&answer[..11], &[0, 0x81, 0x18], &[0; 3073][..]].concat(), "chain"); // 3073
    assert_eq!((SEAL_CERTIFICATE_BYTES_MAX, CHAIN_BYTES_MAX), (256, 3072));
}
