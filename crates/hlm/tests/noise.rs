//! The noise by which a device draws: that of its lease, or of nobody yet.

mod bench;
mod machines;

use bench::{Bench, EPOCH, PROMPT, lease, reply, session};
use dunlin_hlm::TokenId;
use dunlin_hlm::coupling::{NoiseColumn, couple, couple_murmur, couple_under};
use dunlin_hlm::device::{Learned, ReplyLimits, SessionIdentity};
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_wire::{CouplingProfile, Lease};
use machines::SIZE;

const SEED: u64 = 11;

/// A row of which no token is sure.
fn row() -> Vec<f32> {
    (0..SIZE).map(|id| (id % 7) as f32 / 4.0).collect()
}

fn sampling(top_p: f32, top_k: u32) -> Sampling {
    Sampling::new(1.0, top_p, top_k).expect("valid")
}

fn distribution(sampling: &Sampling) -> Distribution {
    Distribution::from_logits(&row(), sampling).expect("mass")
}

/// Sixteen drafts behind the prompt under a lease with this noise, the first of them drawn before it.
fn drafts(profile: CouplingProfile, sampling: Sampling) -> (Vec<TokenId>, Vec<TokenId>) {
    let identity = SessionIdentity { seed: SEED, sampling, ..session() };
    let mut bench = Bench::of(bench::config(16), identity, Learned::default());
    bench.say(&PROMPT, ReplyLimits { stop: Vec::new(), ..reply(40) });
    bench.open_sent();
    bench.give(&row(), None);
    let before = bench.provisional();
    bench.lease(&Lease { coupling: profile, ..lease(EPOCH, &[]) });
    bench.sent();
    while bench.provisional().len() < 16 && bench.drafter().is_some() {
        bench.give(&row(), None);
    }
    (before, bench.drafts_sent())
}

#[test]
fn a_device_draws_with_the_noise_of_its_lease() {
    for (top_p, top_k, column) in
        [(1.0, 0, NoiseColumn::Token), (0.9, 0, NoiseColumn::Rank), (1.0, 9, NoiseColumn::Rank)]
    {
        let sampling = sampling(top_p, top_k);
        let distribution = distribution(&sampling);
        let own: Vec<TokenId> = (3..19).map(|at| couple(&distribution, SEED, at)).collect();
        let server = |at| couple_murmur(&distribution, SEED, at, column).expect("a last token");
        let theirs: Vec<TokenId> = (3..19).map(server).collect();
        assert_ne!(own, theirs);
        let (before, sent) = drafts(CouplingProfile::SplitMix, sampling);
        assert_eq!((before.as_slice(), sent), (&own[..1], own.clone()));
        let (before, sent) = drafts(CouplingProfile::Murmur, sampling);
        assert_eq!((before.as_slice(), sent), (&own[..1], theirs), "what was drawn before is drawn anew");
    }
}

/// The reason for the profile: equal distributions under equal noise agree always, under other noise by chance.
#[test]
fn drafts_under_the_servers_noise_stand() {
    let sampling = sampling(1.0, 0);
    let distribution = distribution(&sampling);
    let agreed = |profile| {
        let same = |at: &u64| {
            couple_under(profile, &distribution, &sampling, SEED, *at)
                == couple_murmur(&distribution, SEED, *at, NoiseColumn::Token).expect("a last token")
        };
        (1..=1000).filter(same).count()
    };
    assert_eq!(agreed(CouplingProfile::Murmur), 1000);
    assert!(agreed(CouplingProfile::SplitMix) < 100);
    assert_eq!(
        couple_under(CouplingProfile::Murmur, &distribution, &sampling, SEED, 0),
        couple(&distribution, SEED, 0),
        "an empty text has no last token"
    );
}
