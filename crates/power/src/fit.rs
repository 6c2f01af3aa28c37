//! Power of each phase by least squares. The model: a reading is the mean of the phases' powers in its window,
//! weighted by each phase's share of the window.
//!
//! The idea comes from Quanto (Fonseca, Dutta, Levis, Stoica: "Quanto: Tracking Energy in Networked Embedded
//! Systems", OSDI 2008): with a single meter and known times, the power of each consumer can be estimated. Here, old
//! readings fade, because power may drift. A phase's readings fade only through later readings of the same phase, so
//! that a rare phase is not forgotten.

use super::phase::{ByPhase, EnergyPhase, PHASES};

/// Readings of a phase after which older ones have faded to 1/e; 18 s of the phase at 117 Hz.
const MEMORY: f64 = 2048.0;
/// Weight of the assumption that a phase's power equals the first reading, in readings of that phase alone.
const PRIOR: f64 = 1e-3;

type Vector = [f64; PHASES];
type PhaseMatrix = [Vector; PHASES];

/// Recursive least squares.
#[derive(Clone, Debug)]
pub struct PowerFit {
    /// The normal matrix: Σ f fᵀ over the phases' shares f, faded.
    known: PhaseMatrix,
    watts: Vector,
    begun: bool,
}

impl Default for PowerFit {
    fn default() -> Self {
        let known = std::array::from_fn(|i| std::array::from_fn(|j| if i == j { PRIOR } else { 0.0 }));
        Self { known, watts: Vector::default(), begun: false }
    }
}

impl PowerFit {
    /// Adds a reading of `watts`. `shares` are the phases' shares of its window, with the sum 1.
    pub fn observe(&mut self, shares: &ByPhase<f64>, watts: f64) {
        if !std::mem::replace(&mut self.begun, true) {
            self.watts = [watts; PHASES];
        }
        let shares = &shares.0;
        let keep: Vector = std::array::from_fn(|i| 1.0 - shares[i] / MEMORY);
        let faded: PhaseMatrix =
            std::array::from_fn(|i| std::array::from_fn(|j| self.known[i][j] * keep[i] * keep[j]));
        // Fading reduces the weight of earlier readings but must not change the powers, so the right side is rebuilt
        // from them.
        let right = std::array::from_fn(|i| dot(&faded[i], &self.watts) + shares[i] * watts);
        self.known = std::array::from_fn(|i| std::array::from_fn(|j| faded[i][j] + shares[i] * shares[j]));
        self.watts = solve(self.known, right);
    }

    /// The power of each phase, W. A phase without a reading has the first reading's power.
    pub fn watts(&self) -> ByPhase<f64> {
        ByPhase(self.watts)
    }

    /// The number of readings that contain the phase, each weighted by the square of its share.
    pub fn weight(&self, phase: EnergyPhase) -> f64 {
        self.known[phase as usize][phase as usize] - PRIOR
    }
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Solves a symmetric, positive definite system with Cholesky's decomposition.
fn solve(mut a: PhaseMatrix, mut b: Vector) -> Vector {
    for i in 0..PHASES {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| a[i][k] * a[j][k]).sum();
            // Rounding may make this negative, so keep it positive for the root.
            a[i][j] = if i == j { (a[i][i] - sum).max(1e-12).sqrt() } else { (a[i][j] - sum) / a[j][j] };
        }
        b[i] = (b[i] - (0..i).map(|k| a[i][k] * b[k]).sum::<f64>()) / a[i][i];
    }
    for i in (0..PHASES).rev() {
        b[i] = (b[i] - (i + 1..PHASES).map(|k| a[k][i] * b[k]).sum::<f64>()) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(draft: f64, wait: f64, score: f64) -> ByPhase<f64> {
        let mut shares = ByPhase::default();
        (shares[EnergyPhase::Draft], shares[EnergyPhase::Wait], shares[EnergyPhase::Score]) =
            (draft, wait, score);
        shares
    }

    #[test]
    fn mixtures_tell_the_phases_apart() {
        let mut fit = PowerFit::default();
        for round in 0..300 {
            let draft = f64::from(round % 7) / 7.0;
            let score = f64::from(round % 3) * 0.01;
            let wait = 1.0 - draft - score;
            fit.observe(&shares(draft, wait, score), draft * 6.8 + wait * 2.7 + score * 4.0);
        }
        let watts = fit.watts();
        assert!((watts[EnergyPhase::Draft] - 6.8).abs() < 1e-3, "{watts:?}");
        assert!((watts[EnergyPhase::Wait] - 2.7).abs() < 1e-3, "{watts:?}");
        assert!((watts[EnergyPhase::Score] - 4.0).abs() < 0.1, "{watts:?}");
    }

    #[test]
    fn a_phase_drifts_with_its_own_readings_alone() {
        let mut fit = PowerFit::default();
        (0..5000).for_each(|_| fit.observe(&shares(0.0, 1.0, 0.0), 2.7));
        (0..20_000).for_each(|_| fit.observe(&shares(1.0, 0.0, 0.0), 5.0));
        assert!((fit.watts()[EnergyPhase::Wait] - 2.7).abs() < 1e-6);
        (0..20_000).for_each(|_| fit.observe(&shares(1.0, 0.0, 0.0), 6.0));
        assert!((fit.watts()[EnergyPhase::Draft] - 6.0).abs() < 1e-3, "{:?}", fit.watts());
    }

    #[test]
    fn nothing_makes_it_infinite() {
        let mut fit = PowerFit::default();
        for watts in [0.0, 1e9, -1e9, 0.0, 5.0] {
            for draft in [0.0, 1.0, 0.5, 1e-12] {
                fit.observe(&shares(draft, 1.0 - draft, 0.0), watts);
                assert!(fit.watts().0.iter().all(|watts| watts.is_finite()));
            }
        }
    }
}
