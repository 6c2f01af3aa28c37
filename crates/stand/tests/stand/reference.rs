//! The target alone, in this process, as the reference for every reply on the stand.

use crate::processes::model;
use dunlin_hlm::probabilities::Sampling;
use dunlin_lm::ModelDir;
use dunlin_lm_candle::CandleTarget;
use dunlin_verifier::reference::{Request, write};
use std::path::Path;

pub(crate) struct Reference {
    dir: ModelDir,
    target: CandleTarget,
}

impl Reference {
    pub(crate) fn load() -> Self {
        Self::of(&model("target"))
    }

    /// Loads another target with the same vocabulary.
    pub(crate) fn of(model: &Path) -> Self {
        let dir = ModelDir::open(model).unwrap();
        let target = CandleTarget::load(&dir, 64 << 20).unwrap();
        Self { dir, target }
    }

    /// The tokens of the reply.
    pub(crate) fn tokens(
        &mut self,
        prompt: &str,
        seed: u64,
        temperature: f32,
        tokens_max: usize,
    ) -> Vec<u32> {
        self.tokens_behind(prompt, &[], seed, temperature, tokens_max)
    }

    /// The tokens of the reply that follow its given first ones.
    pub(crate) fn tokens_behind(
        &mut self,
        prompt: &str,
        first: &[u32],
        seed: u64,
        temperature: f32,
        tokens_max: usize,
    ) -> Vec<u32> {
        let request = Request {
            prompt: [self.dir.first_turn(prompt).unwrap().as_slice(), first].concat(),
            tokens_max,
            stop: self.dir.prompt.stop.clone(),
            sampling: Sampling::new(temperature, 1.0, 0).unwrap(),
            seed,
        };
        write(&mut self.target, &request).unwrap().0
    }
}
