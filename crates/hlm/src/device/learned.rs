//! The measurements of a device, of the model pair and the link, and a record of them that outlives the device.
//!
//! Invariant: a record is foreign data. It is taken over whole if measurements could have given every number in it,
//! and refused by name otherwise.

use super::Device;
use super::candidates::Candidates;
use crate::calibration::{Calibration, CalibrationBin};
use crate::conformal::Conformal;
use crate::economy::Economy;
use crate::rtt::Rtt;
use crate::stop::{StopConfig, StopRule, StopSums};
use crate::uncertainty::SCORES;
use thiserror::Error;

/// Measurements of the model pair and of the link; the next session starts from them.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Rejection rate by uncertainty.
    pub calibration: Calibration,
    /// Times of drafting and of rounds, and the prices that weigh them.
    pub stop: StopRule,
    /// Threshold of the `risk` policy; `None` before the first session that audits tokens.
    pub conformal: Option<Conformal>,
    /// Time from a frame to its answer beyond the time that the verifier announced.
    pub(crate) rtt: Rtt,
    /// Time from a request for a lease to its answer, for which the target does nothing.
    pub(crate) handshake: Rtt,
    /// Time between two continuations beyond the time that the verifier announced for a token.
    pub(crate) gap: Rtt,
    /// Costs of drafting and of streaming.
    pub economy: Economy,
    /// Verifiers whose presence was received.
    pub(crate) candidates: Candidates,
}

/// The measurements that are worth keeping: those of the pair and of the link's speed. Prices belong to the board's
/// power, timeouts and announced times to the present.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct LearnedRecord {
    calibration: [CalibrationBin; SCORES],
    stop: StopSums,
    /// The threshold of [`Conformal`].
    risk_threshold: Option<f64>,
    economy: Economy,
}

/// A part of a record that no measurements could have given. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} has a number that is no measurement")]
pub struct LearnedError(&'static str);

impl Default for Learned {
    fn default() -> Self {
        Self {
            calibration: Calibration::new(),
            stop: StopRule::new(&StopConfig::default()),
            conformal: None,
            rtt: Rtt::default(),
            handshake: Rtt::default(),
            gap: Rtt::default(),
            economy: Economy::default(),
            candidates: Candidates::default(),
        }
    }
}

impl Learned {
    /// The measurements that are worth keeping.
    pub fn record(&self) -> LearnedRecord {
        LearnedRecord {
            // The rates follow from the counts.
            calibration: self.calibration.bins().map(|bin| CalibrationBin { expected_rejection: 0.0, ..bin }),
            stop: self.stop.sums(),
            risk_threshold: self.conformal.map(|conformal| conformal.threshold()),
            economy: self.economy,
        }
    }

    /// Goes on from a record. Prices, timeouts and known verifiers stay.
    ///
    /// # Errors
    /// Names the part of the record that is invalid.
    pub fn recall(&mut self, record: &LearnedRecord) -> Result<(), LearnedError> {
        let mut next = self.clone();
        next.calibration = Calibration::from_bins(record.calibration).ok_or(LearnedError("calibration"))?;
        if !next.stop.recall(record.stop) {
            return Err(LearnedError("stop"));
        }
        if let Some(threshold) = record.risk_threshold {
            next.conformal = Some(Conformal::at(threshold).ok_or(LearnedError("risk_threshold"))?);
        }
        if !next.economy.recall(&record.economy) {
            return Err(LearnedError("economy"));
        }
        *self = next;
        Ok(())
    }
}

impl Device {
    /// Measurements of the model pair and the link, for the next session.
    pub fn learned(&self) -> Learned {
        self.learned.clone()
    }

    /// The measurements that are worth keeping beyond this device.
    pub fn record(&self) -> LearnedRecord {
        self.learned.record()
    }

    /// Goes on from the record of another time, for example with the target that now verifies.
    ///
    /// # Errors
    /// Names the part of the record that is invalid.
    pub fn recall(&mut self, record: &LearnedRecord) -> Result<(), LearnedError> {
        self.learned.recall(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::economy::Way;
    use crate::economy::tests::CONDITIONS;
    use crate::stop::Prices;
    use crate::time::Duration;
    use crate::uncertainty::Unit;
    use dunlin_wire::Score;

    fn experienced() -> Learned {
        let mut learned =
            Learned { conformal: Some(Conformal::new(Unit::clamped(0.01))), ..Learned::default() };
        for i in 0..200u8 {
            learned.calibration.observe(Score::new(i % 16).unwrap(), i % 5 == 0);
            learned.stop.observe_draft(Duration::from_millis(7));
            learned.stop.observe_round(3, Duration::from_millis(20), Duration::from_millis(90));
            learned.economy.observe_feed(9, Duration::from_millis(30));
            learned.economy.observe_round_trip(Duration::from_millis(300));
            learned.economy.observe_text(&CONDITIONS, 4, 0.9);
            learned.economy.observe_round(&CONDITIONS, 4, 4, 0.3);
            learned.economy.observe_reply(20);
        }
        learned
    }

    #[test]
    fn a_record_gives_the_same_decisions_back() {
        let before = experienced();
        let mut after = Learned::default();
        after.stop.set_prices(Prices::new(5.0, 2.0).unwrap());
        after.recall(&before.record()).unwrap();
        assert_eq!(after.record(), before.record());
        assert_eq!(after.calibration, before.calibration, "the fitted rates follow from the counts");
        assert_eq!(after.stop.prices(), Prices::new(5.0, 2.0).unwrap(), "prices are the board's");
        for way in [Way::Draft, Way::Stream] {
            assert_eq!(after.economy.cost(way, &CONDITIONS), before.economy.cost(way, &CONDITIONS));
        }
    }

    type Spoil = fn(&mut LearnedRecord, f64);

    #[test]
    fn what_is_no_measurement_is_refused_by_name_and_changes_nothing() {
        let mut learned = experienced();
        let before = learned.record();
        let spoilt: [(&str, Spoil); 3] = [
            ("calibration", |record, x| record.calibration[3].observed = x),
            ("calibration", |record, x| record.calibration[3].rejected = x),
            ("risk_threshold", |record, x| record.risk_threshold = Some(x)),
        ];
        for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            for (part, spoil) in spoilt {
                let mut record = before.clone();
                spoil(&mut record, bad);
                assert_eq!(learned.recall(&record), Err(LearnedError(part)), "{bad}");
                assert_eq!(learned.record(), before);
            }
        }
        let mut record = before.clone();
        record.calibration[3].rejected = record.calibration[3].observed + 1.0;
        assert_eq!(learned.recall(&record), Err(LearnedError("calibration")), "more rejected than observed");
    }
}
