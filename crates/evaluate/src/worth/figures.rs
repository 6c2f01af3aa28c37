//! The figures of a pair that fits.

use super::agreement::PairAgreement;
use super::speed::{AssumedTimes, PairSpeed};
use super::traffic::RoundTripFigures;
use serde::Serialize;

/// The figures of a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairFigures {
    /// Prompts answered.
    pub prompts: usize,
    /// Most tokens of a reply.
    pub tokens_max: usize,
    /// Temperature of both models.
    pub temperature: f32,
    /// The seed from which all others are derived.
    pub seed: u64,
    /// Acceptance and greedy agreement.
    pub agreement: PairAgreement,
    /// Times measured on this machine.
    pub speed: PairSpeed,
    /// Times behind the figures below.
    pub times: AssumedTimes,
    /// The board whose powers are used.
    pub board: String,
    /// The channel whose rates, losses and headers are used.
    pub channel: String,
    /// Both ways to write at each round trip.
    pub round_trips: Vec<RoundTripFigures>,
}
