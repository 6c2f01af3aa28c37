//! What holds for every message and for any bytes.

mod common;

use common::{
    Message, On, draft, largest_context, largest_draft, largest_presence, lease_resumed, open_resume,
};
use dunlin_wire::limits::{
    CONTEXT_CHUNK_TOKENS_MAX, DRAFT_TOKENS_MAX, SESSION_TOKENS_MAX, TOKEN_BITS_MAX, TOKEN_BITS_MIN,
    VOCABULARY_SIZE_MAX,
};
use dunlin_wire::{
    Close, CloseReason, Closed, Context, DecodeError, DevicePresence, Draft, DraftFrame, Lease, Liveness,
    ModelName, Open, Refusal, RefusalReason, Resync, SamplingParams, TokenId, VERSION, Verdict, VerifierId,
    VerifierPresence, Vocabulary,
};
use proptest::prelude::*;
use proptest::sample::select;

fn position() -> impl Strategy<Value = u32> {
    prop_oneof![0..=300u32, 0..=SESSION_TOKENS_MAX, Just(SESSION_TOKENS_MAX)]
}

fn round() -> impl Strategy<Value = u32> {
    number().prop_map(|round| round.max(1))
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
    let header = (any::<u8>(), any::<u8>(), round(), position(), any::<[u8; 2]>());
    let packed = (TOKEN_BITS_MIN..=TOKEN_BITS_MAX).prop_flat_map(|bits| (Just(bits), drafts(bits)));
    (header, packed).prop_map(|((session, epoch, round, base, prefix), (token_bits, drafts))| {
        let base = base.min(SESSION_TOKENS_MAX - drafts.len() as u32);
        let drafts = drafts.into_iter().collect();
        DraftFrame { session, epoch, round, base, prefix, token_bits, drafts }.into()
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
    use CloseReason::{Draining, Failed, Rejected, Unknown};
    let verdict =
        (any::<u8>(), any::<u8>(), round(), any::<u8>(), 0..=DRAFT_TOKENS_MAX as u8, 0..VOCABULARY_SIZE_MAX)
            .prop_map(|(session, epoch, round, check, accepted, token)| {
                Verdict { session, epoch, round, check, accepted, token }.into()
            });
    let resync = (any::<u8>(), any::<u8>(), position(), any::<[u8; 8]>())
        .prop_map(|(session, epoch, length, digest)| Resync { session, epoch, length, digest }.into());
    let closed = (any::<u8>(), any::<u8>(), select(&[Unknown, Draining, Failed, Rejected][..]))
        .prop_map(|(session, epoch, reason)| Closed { session, epoch, reason }.into());
    prop_oneof![verdict, resync, closed]
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
    let limits = (1..=DRAFT_TOKENS_MAX as u8, position());
    let lease = (any::<u8>(), any::<u8>(), any::<u64>(), verifier(), limits, position(), any::<[u8; 8]>())
        .prop_map(
            |(session, epoch, nonce, verifier, (draft_tokens_max, context_tokens_max), length, digest)| {
                Lease {
                    session,
                    epoch,
                    nonce,
                    verifier,
                    draft_tokens_max,
                    context_tokens_max,
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
    let verifier = (number(), liveness(), vocabulary(), model, any::<u16>(), any::<bool>()).prop_map(
        |(generation, liveness, vocabulary, model, slots_free, draining)| {
            VerifierPresence { generation, liveness, vocabulary, model, slots_free, draining }.into()
        },
    );
    prop_oneof![device, verifier]
}

fn message() -> impl Strategy<Value = Message> {
    let close = any::<(u8, u8)>().prop_map(|(session, epoch)| Close { session, epoch }.into());
    let largest = select(vec![
        Message::from(largest_draft()),
        largest_context().into(),
        open_resume().into(),
        lease_resumed().into(),
        largest_presence().into(),
    ]);
    prop_oneof![4 => draft_frame(), 2 => context(), 1 => close, 3 => answer(), 1 => open(), 2 => reply(), 2 => presence(), 1 => largest]
}

/// Bytes that are likely to get past the first one.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let likely = (0..16u8, prop::collection::vec(prop_oneof![0..20u8, any::<u8>()], 0..100)).prop_map(
        |(kind, mut rest)| {
            rest.insert(0, VERSION << 4 | kind);
            rest
        },
    );
    prop_oneof![4 => likely, 1 => prop::collection::vec(any::<u8>(), 0..700)]
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

/// Every count at every width: its own bytes are the value, and not one fewer or more is any.
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
