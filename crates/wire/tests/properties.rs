//! Properties of every message and of arbitrary bytes.

mod common;

use common::{
    Message, On, OwnedBlock, draft, largest_audited, largest_codes, largest_context, largest_draft,
    largest_energy, largest_presence, largest_setup, largest_telemetry, lattice, lease_resumed, open_resume,
    row,
};
use dunlin_wire::limits::{
    CODES_MAX, CONTEXT_CHUNK_TOKENS_MAX, CONTINUATION_TOKENS_MAX, DRAFT_TOKENS_MAX, ROW_ENTRIES_MAX,
    SESSION_TOKENS_MAX, SIGNED_DOCUMENT_BYTES_MAX, STOP_IDS_MAX, TOKEN_BITS_MAX, TOKEN_BITS_MIN,
    VOCABULARY_SIZE_MAX,
};
use dunlin_wire::{
    BlockForm, BoardCommand, Close, CloseReason, Closed, Codes, CommandFields, CommandVerb, Context,
    Continuation, CouplingProfile, Credit, DecodeError, DevicePresence, Draft, DraftFrame, EnergyReport,
    EngineName, EnrolAnswer, EnrolRequest, EnrolVerdict, FleetPhase, FleetReason, FleetReport, FleetTime,
    KeyId, Lease, Liveness, LogTime, MeterFaults, ModelName, ObjectId, Open, PhaseTotal, PhaseTotals,
    PieceSpan, PowerSource, Price, Promise, Refusal, RefusalReason, Resync, Rollout, RolloutFields,
    RootNotice, Row, Rows, SamplingParams, Score, SetupReport, Signature, Signatures, StorePresence,
    SystemSlot, TargetId, Telemetry, Throttling, TimeFields, TokenId, VERSION, Verdict, VerifierId,
    VerifierPresence, Vocabulary, WantedPieces, Working, judged_drafts_max,
};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeSet;

fn position() -> impl Strategy<Value = u32> {
    prop_oneof![0..=300u32, 0..=SESSION_TOKENS_MAX, Just(SESSION_TOKENS_MAX)]
}

fn round() -> impl Strategy<Value = u32> {
    number().prop_map(|round| round.max(1))
}

fn send() -> impl Strategy<Value = u8> {
    prop_oneof![1..=3u8, 1..=u8::MAX]
}

/// A credit's tokens beyond a frame's base, its `again` flag, and numbers that become stop ids.
fn credit() -> impl Strategy<Value = Option<(u32, bool, Vec<u32>)>> {
    prop::option::weighted(
        0.3,
        (number(), any::<bool>(), prop::collection::vec(any::<u32>(), 0..=STOP_IDS_MAX)),
    )
}

fn time() -> impl Strategy<Value = LogTime> {
    any::<u8>().prop_map(LogTime)
}

fn price() -> impl Strategy<Value = Price> {
    (time(), time(), time()).prop_map(|(pass, row, queue)| Price { pass, row, queue })
}

fn target() -> impl Strategy<Value = (TargetId, Promise)> {
    let promises = [Promise::Exact, Promise::Distribution, Promise::Approximate];
    (any::<[u8; 8]>().prop_map(TargetId::from_bytes), select(promises.to_vec()))
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..=300u32, any::<u32>(), Just(u32::MAX)]
}

fn vocabulary() -> impl Strategy<Value = Vocabulary> {
    (1..=VOCABULARY_SIZE_MAX, any::<[u8; 8]>())
        .prop_map(|(size, fingerprint)| Vocabulary { size, fingerprint })
}

fn liveness() -> impl Strategy<Value = Liveness> {
    select(&[Liveness::Here, Liveness::Left, Liveness::Lost][..])
}

fn drafts(token_bits: u8) -> impl Strategy<Value = Vec<Draft>> {
    let one = (0..1u32 << token_bits, 0..16u8, 0..16u8).prop_map(draft);
    prop::collection::vec(one, 0..=DRAFT_TOKENS_MAX)
}

fn tokens(token_bits: u8) -> impl Strategy<Value = Vec<TokenId>> {
    let few_or_all = prop_oneof![1..=20usize, 1..=CONTEXT_CHUNK_TOKENS_MAX];
    few_or_all.prop_flat_map(move |count| prop::collection::vec(0..1u32 << token_bits, count))
}

fn draft_frame() -> impl Strategy<Value = Message> {
    let header = (any::<[u8; 2]>(), send(), round(), position(), any::<[u8; 2]>(), credit());
    let packed = (TOKEN_BITS_MIN..=TOKEN_BITS_MAX).prop_flat_map(|bits| (Just(bits), drafts(bits)));
    (header, packed).prop_map(|(([session, epoch], send, round, base, prefix, raw), (token_bits, drafts))| {
        let base = base.min(SESSION_TOKENS_MAX - drafts.len() as u32);
        let drafts = drafts.into_iter().collect();
        let (held, bonus, rows) = (0, true, Rows::None);
        let credit = raw.map(|(beyond, again, stop)| Credit {
            until: base.saturating_add(beyond).min(SESSION_TOKENS_MAX),
            again,
            stop: stop
                .iter()
                .map(|id| id >> (32 - token_bits))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        });
        DraftFrame {
            session,
            epoch,
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
        .into()
    })
}

/// Arbitrary numbers, from which `row_of` makes a row.
type RawRow = Vec<(u32, u8)>;

/// The form of a row.
#[derive(Clone, Copy, Debug)]
enum Form {
    TopK,
    Sampled,
    Lattice(u8),
}

fn row_of(raw: &[(u32, u8)], token_bits: u8, form: Form) -> Row {
    let tokens: BTreeSet<u32> = raw.iter().map(|(token, _)| token >> (32 - token_bits)).collect();
    let weights = match form {
        Form::TopK => raw.iter().map(|(_, weight)| (*weight).max(1)).collect(),
        Form::Sampled => (0..raw.len()).map(|at| if at == 0 { 255 } else { raw[at].1.max(1) }).collect(),
        Form::Lattice(resolution) => {
            let cuts = raw.iter().take(tokens.len() - 1).filter(|(_, cut)| (1..resolution).contains(cut));
            let mut ends: BTreeSet<u8> = cuts.map(|(_, cut)| *cut).collect();
            ends.insert(resolution);
            ends.iter().scan(0, |start, end| Some(end - std::mem::replace(start, *end))).collect::<Vec<_>>()
        }
    };
    row(&tokens.into_iter().zip(weights).collect::<Vec<_>>())
}

/// A frame of at most `drafts` drafts and `entries` entries a row; most of them are annotated.
fn annotated(drafts: usize, entries: usize) -> impl Strategy<Value = Message> {
    let raw = prop::collection::vec(any::<(u32, u8)>(), 1..=entries);
    let draft = (any::<u32>(), 0..16u8, 0..16u8, any::<bool>(), raw);
    let drafts = prop::collection::vec(draft, 0..=drafts);
    let header = (any::<[u8; 3]>(), send(), round(), position(), TOKEN_BITS_MIN..=TOKEN_BITS_MAX);
    (header, drafts, 0..5u8, 1..=255u8, any::<bool>()).prop_map(
        move |(([session, epoch, prefix], send, round, base, token_bits), raw, form, resolution, bonus)| {
            let form = [None, None, Some(Form::TopK), Some(Form::Sampled), Some(Form::Lattice(resolution))]
                [usize::from(form)]
            .ok_or(form);
            let of_lattice = if let Ok(Form::Lattice(resolution)) = form { Some(resolution) } else { None };
            let most = match form {
                Ok(_) => judged_drafts_max(token_bits, entries, of_lattice),
                Err(1) => 1,
                Err(_) => DRAFT_TOKENS_MAX,
            };
            let (mut held, mut list, mut drafts) = (0, Vec::<&RawRow>::new(), heapless::Vec::new());
            for (at, (token, uncertainty, importance, hold, row)) in raw.iter().enumerate() {
                let mut one = common::draft((token >> (32 - token_bits), *uncertainty, *importance));
                if *hold || list.len() == most {
                    held |= 1 << at;
                    (one.uncertainty, one.importance) = (Score::default(), Score::default());
                } else {
                    list.push(row);
                }
                drafts.push(one).expect("room for DRAFT_TOKENS_MAX");
            }
            let rows =
                || list.iter().map(|raw| row_of(raw, token_bits, form.expect("a form with rows"))).collect();
            let rows = match form {
                _ if list.is_empty() => Rows::None,
                Err(0) => Rows::None,
                Err(_) => Rows::Full,
                Ok(Form::TopK) => Rows::TopK(rows()),
                Ok(Form::Sampled) => Rows::TopKSampled(rows()),
                Ok(Form::Lattice(resolution)) => Rows::Lattice { resolution, rows: rows() },
            };
            let (base, bonus) = (base.min(SESSION_TOKENS_MAX - raw.len() as u32), bonus || raw.is_empty());
            let prefix = [prefix, !prefix];
            let credit = None;
            DraftFrame {
                session,
                epoch,
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
            .into()
        },
    )
}

fn codes() -> impl Strategy<Value = Message> {
    let count = prop_oneof![4 => 1..=20usize, 1 => 1..=CODES_MAX];
    let codes = count.prop_flat_map(|count| prop::collection::vec(any::<u8>(), count));
    (any::<[u8; 3]>(), round(), codes).prop_map(|([session, epoch, part], round, codes)| {
        Codes { session, epoch, round, part, codes: codes.into_iter().collect() }.into()
    })
}

fn context() -> impl Strategy<Value = Message> {
    let header = (any::<u8>(), any::<u8>(), position(), any::<[u8; 2]>());
    let packed = (TOKEN_BITS_MIN..=TOKEN_BITS_MAX).prop_flat_map(|bits| (Just(bits), tokens(bits)));
    (header, packed).prop_map(|((session, epoch, offset, prefix), (token_bits, tokens))| {
        let offset = offset.min(SESSION_TOKENS_MAX - tokens.len() as u32);
        let tokens = tokens.into_iter().collect();
        Context { session, epoch, offset, prefix, token_bits, tokens }.into()
    })
}

fn answer() -> impl Strategy<Value = Message> {
    use CloseReason::{Draining, Failed, Policy, Rejected, Unknown};
    let verdict = (
        any::<[u8; 3]>(),
        round(),
        (send(), time(), time()),
        0..=DRAFT_TOKENS_MAX as u8,
        0..VOCABULARY_SIZE_MAX,
        any::<(bool, u16)>(),
    )
        .prop_map(
            |([session, epoch, check], round, (send, pass, queue), accepted, token, (some, missed))| {
                let missed = if some { missed & ((1u32 << accepted) - 1) as u16 } else { 0 };
                Verdict { session, epoch, round, check, send, pass, queue, accepted, token, missed }.into()
            },
        );
    let resync = (any::<u8>(), any::<u8>(), round(), position(), any::<[u8; 8]>()).prop_map(
        |(session, epoch, round, length, digest)| Resync { session, epoch, round, length, digest }.into(),
    );
    let closed =
        (any::<u8>(), any::<u8>(), any::<u64>(), select(&[Unknown, Draining, Failed, Rejected, Policy][..]))
            .prop_map(|(session, epoch, nonce, reason)| Closed { session, epoch, nonce, reason }.into());
    let continuation =
        (any::<[u8; 3]>(), round(), 1..=SESSION_TOKENS_MAX, any::<[u8; 2]>(), token_bits_and_tokens())
            .prop_map(|([session, epoch, pass], round, base, prefix, (token_bits, tokens))| {
                let base = base.min(SESSION_TOKENS_MAX - tokens.len() as u32);
                let (pass, queue) = (LogTime(pass), LogTime(!pass));
                let tokens = tokens.into_iter().collect();
                Continuation { session, epoch, round, base, prefix, pass, queue, token_bits, tokens }.into()
            });
    let working =
        (any::<u8>(), any::<u8>(), round(), 1..=u8::MAX).prop_map(|(session, epoch, round, wait)| {
            Working { session, epoch, round, wait: LogTime(wait) }.into()
        });
    prop_oneof![verdict, resync, closed, continuation, working]
}

fn token_bits_and_tokens() -> impl Strategy<Value = (u8, std::vec::Vec<TokenId>)> {
    (TOKEN_BITS_MIN..=TOKEN_BITS_MAX).prop_flat_map(|bits| {
        (Just(bits), proptest::collection::vec(0..1u32 << bits, 1..=CONTINUATION_TOKENS_MAX))
    })
}

fn open() -> impl Strategy<Value = Message> {
    let sampling = (any::<f32>(), any::<f32>(), number())
        .prop_map(|(temperature, top_p, top_k)| SamplingParams { temperature, top_p, top_k });
    (any::<u8>(), any::<u8>(), any::<u64>(), any::<u64>(), sampling, vocabulary(), position()).prop_map(
        |(session, epoch, nonce, seed, sampling, vocabulary, length)| {
            Open { session, epoch, nonce, seed, sampling, vocabulary, length }.into()
        },
    )
}

fn verifier() -> impl Strategy<Value = VerifierId> {
    "[a-z0-9-]{1,32}".prop_map(|text| text.parse().expect("an id"))
}

fn reply() -> impl Strategy<Value = Message> {
    let limits = (1..=DRAFT_TOKENS_MAX as u8, any::<u16>(), position(), 1..=VOCABULARY_SIZE_MAX);
    let lease = (
        any::<[u8; 2]>(),
        any::<u64>(),
        verifier(),
        (target(), price()),
        limits,
        position(),
        any::<[u8; 8]>(),
    )
        .prop_map(
            |([session, epoch], nonce, verifier, ((target, promise), price), limits, length, digest)| {
                let (draft_tokens_max, credit_tokens_max, context_tokens_max, vocabulary_size) = limits;
                Lease {
                    session,
                    epoch,
                    nonce,
                    verifier,
                    target,
                    promise,
                    coupling: [CouplingProfile::SplitMix, CouplingProfile::Murmur][usize::from(epoch % 2)],
                    price,
                    draft_tokens_max,
                    credit_tokens_max,
                    context_tokens_max,
                    vocabulary_size,
                    length,
                    digest,
                }
                .into()
            },
        );
    let reason = prop_oneof![
        vocabulary().prop_map(RefusalReason::Vocabulary),
        number().prop_map(RefusalReason::TooLong),
        select(&[RefusalReason::Sampling, RefusalReason::Full, RefusalReason::Draining][..]),
    ];
    let refusal = (any::<u8>(), any::<u8>(), any::<u64>(), reason)
        .prop_map(|(session, epoch, nonce, reason)| Refusal { session, epoch, nonce, reason }.into());
    prop_oneof![lease, refusal]
}

fn presence() -> impl Strategy<Value = Message> {
    let device = (number(), liveness())
        .prop_map(|(generation, liveness)| DevicePresence { generation, liveness }.into());
    let model = "[ -~]{0,64}|é{0,32}".prop_map(|text| ModelName::try_from(text.as_str()).expect("64 bytes"));
    let name =
        || "[ -~]{0,32}|é{0,16}".prop_map(|text| EngineName::try_from(text.as_str()).expect("32 bytes"));
    let names = (model, name(), name());
    let verifier = (number(), liveness(), vocabulary(), target(), names, price(), any::<u8>(), any::<bool>())
        .prop_map(|(generation, liveness, vocabulary, (target, promise), names, price, load, draining)| {
            let (model, engine, numerics) = names;
            let coupling = [CouplingProfile::SplitMix, CouplingProfile::Murmur][usize::from(load % 2)];
            VerifierPresence {
                generation,
                liveness,
                vocabulary,
                target,
                promise,
                coupling,
                model,
                engine,
                numerics,
                price,
                load,
                draining,
            }
            .into()
        });
    prop_oneof![device, verifier]
}

fn large() -> impl Strategy<Value = u64> {
    prop_oneof![0..=300u64, any::<u32>().prop_map(u64::from), any::<u64>(), Just(u64::MAX)]
}

fn source() -> impl Strategy<Value = PowerSource> {
    use PowerSource::{Hwmon, Ina219, Pmic, Powercap, Replay, Simulated};
    select(&[Ina219, Hwmon, Pmic, Powercap, Replay, Simulated][..])
}

fn faults() -> impl Strategy<Value = MeterFaults> {
    (number(), large(), [number(), number(), number(), number()]).prop_map(
        |(gaps, gap_us, [clipped, overflowed, reinitialised, failed])| MeterFaults {
            gaps,
            gap_us,
            clipped,
            overflowed,
            reinitialised,
            failed,
        },
    )
}

fn phases() -> impl Strategy<Value = PhaseTotals> {
    let phase = || (large(), large()).prop_map(|(energy_uj, time_us)| PhaseTotal { energy_uj, time_us });
    [phase(), phase(), phase(), phase(), phase(), phase()].prop_map(
        |[load, draft, score, send, wait, idle]| PhaseTotals { load, draft, score, send, wait, idle },
    )
}

fn energy() -> impl Strategy<Value = Message> {
    let counters = (round(), number(), [large(), large(), large(), large()]);
    (number(), source(), phases(), prop::option::of(number()), counters, faults()).prop_map(
        |(run, source, phases, idle_mw, (reports, requests, numbers), faults)| {
            let [uncertainty_uj, committed, drafted, frames] = numbers;
            EnergyReport {
                run,
                reports,
                source,
                requests,
                phases,
                idle_mw,
                uncertainty_uj,
                committed,
                drafted,
                frames,
                faults,
            }
            .into()
        },
    )
}

fn telemetry() -> impl Strategy<Value = Message> {
    let throttling = prop::option::of(any::<u8>().prop_map(Throttling::new));
    let state = (prop::option::of(any::<i16>()), throttling, faults());
    (number(), source(), [large(), large()], [number(), number()], state).prop_map(
        |(run, source, [at_us, energy_uj], [mean_mw, peak_mw], (temperature_dc, throttling, faults))| {
            Telemetry { run, at_us, source, mean_mw, peak_mw, energy_uj, temperature_dc, throttling, faults }
                .into()
        },
    )
}

fn setup() -> impl Strategy<Value = Message> {
    let lines = prop::collection::vec("\\PC{0,20}", 0..60);
    (1..=usize::from(u16::MAX), lines)
        .prop_map(|(mistakes, lines)| SetupReport::new(mistakes, lines.iter().map(String::as_str)).into())
}

fn signatures() -> impl Strategy<Value = Signatures> {
    prop::collection::btree_map(any::<[u8; 8]>(), any::<[u8; 32]>(), 1..=3).prop_map(|keys| {
        let one = |(key, half): ([u8; 8], [u8; 32])| {
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&half);
            bytes[32..].copy_from_slice(&half);
            Signature { key: KeyId(key), bytes }
        };
        keys.into_iter().map(one).collect()
    })
}

fn fleet() -> impl Strategy<Value = Message> {
    let choices = (select(&FleetPhase::ALL[..]), select(&FleetReason::ALL[..]), 0..=1000u16);
    let texts = ("\\PC{0,40}", "[a-z0-9-]{1,32}");
    let numbers = [number(), number(), number(), number(), number(), number(), number(), number()];
    (round(), numbers, choices, texts, any::<(u8, u16)>()).prop_map(
        |(report, numbers, (phase, reason, permille), (detail, board), (tries, failures))| {
            let [rollout, command, release, target, system, min_number, free_mib, updater] = numbers;
            let detail = detail.as_str().try_into().expect("40 characters");
            let slot = [SystemSlot::None, SystemSlot::A, SystemSlot::B][usize::from(tries % 3)];
            let board = board.parse().expect("an id");
            FleetReport {
                report,
                rollout,
                command,
                release,
                target,
                phase,
                permille,
                reason,
                detail,
                slot,
                system,
                min_number,
                tries,
                failures,
                free_mib,
                board,
                updater,
            }
            .into()
        },
    )
}

fn told() -> impl Strategy<Value = Message> {
    let document = || 1..=SIGNED_DOCUMENT_BYTES_MAX as u16;
    let fields = (round(), round(), [large(), large()], any::<[u8; 32]>(), document(), 0..=1000u16);
    let more = (number(), any::<bool>(), number(), 1..=u16::MAX);
    let rollout = (fields, more, signatures()).prop_map(|(fields, more, signatures)| {
        let (number, release, [one, other], object, size, permille) = fields;
        let (salt, paused, bytes_per_s, deadline_min) = more;
        let at = one.min(other).min(u64::MAX - 1);
        let (until, object) = (one.max(other).max(at + 1), ObjectId(object));
        let fields = RolloutFields {
            number,
            at,
            until,
            release,
            object,
            size,
            permille,
            salt,
            paused,
            bytes_per_s,
            deadline_min,
        };
        Rollout { fields, signatures }.into()
    });
    let verbs = [
        CommandVerb::Report,
        CommandVerb::Restart,
        CommandVerb::Reboot,
        CommandVerb::Forget,
        CommandVerb::Log,
    ];
    let command = (round(), large(), select(verbs.to_vec()), signatures()).prop_map(
        |(number, until, verb, signatures)| {
            BoardCommand { fields: CommandFields { number, until, verb }, signatures }.into()
        },
    );
    let time = (large(), round(), signatures()).prop_map(|(at, number, signatures)| {
        FleetTime { fields: TimeFields { at, number }, signatures }.into()
    });
    let root = (round(), any::<[u8; 32]>(), document())
        .prop_map(|(version, object, size)| RootNotice { version, object: ObjectId(object), size }.into());
    prop_oneof![rollout, command, time, root]
}

fn pieces() -> impl Strategy<Value = Message> {
    let gaps = prop::collection::vec((1..=1000u32, 1..=2u8), 1..=16);
    let wanted = (any::<[u8; 32]>(), gaps).prop_map(|(object, gaps)| {
        let mut at = 0;
        let spans = gaps.iter().map(|&(gap, count)| {
            let first = at + gap;
            at = first + u32::from(count);
            PieceSpan { first, count }
        });
        WantedPieces { object: ObjectId(object), spans: spans.collect() }.into()
    });
    let forms = [BlockForm::Raw, BlockForm::Zstd, BlockForm::Absent];
    let block = (any::<[u8; 8]>(), number(), 1..=8u8, select(forms.to_vec()), any::<(u8, u8)>()).prop_map(
        |(object, first, count, form, (fill, length))| {
            let count = count.min(8 - (first % 8) as u8);
            let length = match form {
                BlockForm::Raw => (usize::from(count) - 1) * 4096 + 1 + usize::from(length),
                BlockForm::Zstd => 1 + usize::from(length),
                BlockForm::Absent => 0,
            };
            Message::Block(OwnedBlock { object, first, count, form, bytes: vec![fill; length] })
        },
    );
    let store = (number(), liveness(), any::<u8>())
        .prop_map(|(generation, liveness, load)| StorePresence { generation, liveness, load }.into());
    prop_oneof![2 => wanted, 1 => block, 1 => store]
}

fn enrolment() -> impl Strategy<Value = Message> {
    let bytes = |least, most| prop::collection::vec(any::<u8>(), least..=most);
    let request = (any::<[u8; 32]>(), any::<[u8; 32]>(), bytes(1, 60)).prop_map(|(exchange, mac, csr)| {
        EnrolRequest { exchange, mac, csr: csr.into_iter().collect() }.into()
    });
    let granted = (any::<[u8; 8]>(), bytes(0, 60), bytes(1, 60)).prop_map(|(request, seal, chain)| {
        let (seal, chain) = (seal.into_iter().collect(), chain.into_iter().collect());
        EnrolAnswer { request, verdict: EnrolVerdict::Granted, seal, chain }.into()
    });
    let reasons = [
        EnrolVerdict::Token,
        EnrolVerdict::Expired,
        EnrolVerdict::Used,
        EnrolVerdict::Name,
        EnrolVerdict::Request,
    ];
    let refused = (any::<[u8; 8]>(), select(reasons.to_vec())).prop_map(|(request, verdict)| {
        EnrolAnswer { request, verdict, seal: Default::default(), chain: Default::default() }.into()
    });
    prop_oneof![request, granted, refused]
}

fn message() -> impl Strategy<Value = Message> {
    let close = any::<(u8, u8)>().prop_map(|(session, epoch)| Close { session, epoch }.into());
    let largest = select(vec![
        Message::from(largest_draft()),
        largest_context().into(),
        open_resume().into(),
        lease_resumed().into(),
        largest_presence().into(),
        lattice().into(),
        largest_codes().into(),
        largest_audited().into(),
        largest_energy().into(),
        largest_telemetry().into(),
        largest_setup().into(),
        common::largest_fleet().into(),
        common::largest_rollout().into(),
        common::largest_wanted().into(),
    ]);
    let measured = prop_oneof![energy(), telemetry(), setup()];
    prop_oneof![4 => draft_frame(), 4 => annotated(4, 4), 1 => codes(), 2 => context(), 1 => close, 3 => answer(), 1 => open(), 2 => reply(), 2 => presence(), 2 => measured, 2 => fleet(), 2 => told(), 1 => pieces(), 1 => enrolment(), 1 => largest]
}

/// Frames with few drafts and entries, and with up to the maximum.
fn annotated_of_any_size() -> impl Strategy<Value = Message> {
    prop_oneof![
        annotated(4, 4),
        annotated(DRAFT_TOKENS_MAX, 30),
        annotated(DRAFT_TOKENS_MAX, ROW_ENTRIES_MAX)
    ]
}

/// The start of a frame with rows, followed by arbitrary bytes.
fn tails() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let header = (0..=10u8, 0..=3u8, 0..18u8)
        .prop_map(|(width, count, mode)| vec![0x1c, 1, 1, 2, 3, 100, 0x0e, 0xd5, width * 17 + count, mode]);
    let few = prop_oneof![0..4u8, any::<u8>()]; // small resolutions, indices and steps are possible more often
    (header, prop::collection::vec(few, 1..60))
}

/// Bytes that are likely to get past the first one.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let rest = || prop::collection::vec(prop_oneof![0..20u8, any::<u8>()], 0..100);
    let likely = (0..16u8, rest()).prop_map(|(kind, rest)| [vec![VERSION << 4 | kind], rest].concat());
    let extended = (16..32u8, rest()).prop_map(|(kind, rest)| [vec![VERSION << 4 | 15, kind], rest].concat());
    prop_oneof![4 => likely, 1 => extended, 1 => prop::collection::vec(any::<u8>(), 0..700)]
}

fn encoded(message: &Message) -> Vec<u8> {
    message.encode().expect("a valid message").to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_comes_back(message in message()) {
        prop_assert_eq!(message.on().decode(&encoded(&message)), Ok(message));
    }

    #[test]
    fn what_decodes_is_canonical(bytes in bytes()) {
        for on in On::ALL {
            if let Ok(message) = on.decode(&bytes) {
                prop_assert_eq!(encoded(&message), &bytes[..]);
            }
        }
    }

    #[test]
    fn every_annotated_frame_comes_back(message in annotated_of_any_size()) {
        prop_assert_eq!(message.on().decode(&encoded(&message)), Ok(message));
    }

    #[test]
    fn what_decodes_from_any_tail_is_canonical((header, tail) in tails()) {
        for length in 0..=tail.len() {
            for padding in 0..8 {
                let mut bytes = [&header[..], &tail[..length]].concat();
                *bytes.last_mut().expect("a header") &= 0xff << padding;
                if let Ok(message) = On::Frames.decode(&bytes) {
                    prop_assert_eq!(encoded(&message), bytes);
                }
            }
        }
    }

    #[test]
    fn a_cut_message_is_refused(message in message()) {
        let bytes = encoded(&message);
        for length in 0..bytes.len() {
            let error = if length == 0 { DecodeError::Empty } else { DecodeError::Truncated };
            prop_assert_eq!(message.on().decode(&bytes[..length]), Err(error), "{} of {}", length, bytes.len());
        }
    }

    #[test]
    fn a_byte_too_many_is_refused(message in message()) {
        let bytes = encoded(&message);
        for extra in 0..=u8::MAX {
            let longer = [&bytes[..], &[extra]].concat();
            let error = message.on().decode(&longer);
            prop_assert!(
                matches!(error, Err(DecodeError::Trailing | DecodeError::Oversize { .. })),
                "{error:?} with {extra}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_is_refused_or_another_value(message in message()) {
        let bytes = encoded(&message);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            for on in On::ALL {
                if let Ok(other) = on.decode(&flipped) {
                    prop_assert_ne!(encoded(&other), &bytes[..], "bit {}", bit);
                    prop_assert_eq!(encoded(&other), flipped.clone(), "bit {}", bit);
                }
            }
        }
    }

    #[test]
    fn another_version_is_named(first: u8, rest in prop::collection::vec(any::<u8>(), 0..700)) {
        let (found, ours) = (first >> 4, VERSION);
        let bytes = [vec![first], rest].concat();
        for on in On::ALL {
            let error = on.decode(&bytes).err();
            match found.cmp(&ours) {
                std::cmp::Ordering::Greater => prop_assert_eq!(error, Some(DecodeError::NewerVersion { found, ours })),
                std::cmp::Ordering::Less => prop_assert_eq!(error, Some(DecodeError::OlderVersion { found, ours })),
                std::cmp::Ordering::Equal => {}
            }
        }
    }
}

/// Every count at every width decodes from its exact bytes; one byte fewer or more is refused.
#[test]
fn every_list_has_its_length_and_no_other() {
    let exact = |message: Message| {
        let bytes = encoded(&message);
        for length in 1..bytes.len() {
            let cut = On::Frames.decode(&bytes[..length]);
            assert_eq!(cut, Err(DecodeError::Truncated), "{length} of {}", bytes.len());
        }
        let longer = On::Frames.decode(&[&bytes[..], &[0]].concat());
        assert!(matches!(longer, Err(DecodeError::Trailing | DecodeError::Oversize { .. })), "{longer:?}");
        assert_eq!(On::Frames.decode(&bytes), Ok(message));
    };
    for bits in TOKEN_BITS_MIN..=TOKEN_BITS_MAX {
        let mut frame = common::frame(1, 0, bits, &[]);
        exact(frame.clone().into());
        for _ in 0..DRAFT_TOKENS_MAX {
            frame.drafts.push(draft((0, 0, 0))).expect("room for DRAFT_TOKENS_MAX");
            exact(frame.clone().into());
        }
        let mut chunk = common::context(1, 0, [0; 2], bits, &[]);
        for _ in 0..CONTEXT_CHUNK_TOKENS_MAX {
            chunk.tokens.push(0).expect("room for CONTEXT_CHUNK_TOKENS_MAX");
            exact(chunk.clone().into());
        }
    }
}
