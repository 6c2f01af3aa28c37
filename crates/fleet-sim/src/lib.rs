//! Updates of a fleet in virtual time: boards, stores and a controller with the machines of `fleet-core`, at a broker
//! that loses, repeats and reorders. A scenario and its seed decide everything, so a run can be repeated.

mod agenda;
mod board;
mod broker;
mod marks;
mod outcome;
mod picture;
mod release;
mod scenario;
mod world;

pub use marks::{BYTES_RATIO_MAX, RolloutFigures, ScenarioFigures, missed};
pub use outcome::{RunOutcome, ShownState, StateSample};
pub use picture::picture;
pub use release::Behaviour;
pub use scenario::{Kills, Scenario, Weather, scenarios};
pub use world::run;
