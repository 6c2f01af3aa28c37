//! The scenarios, and the marks that each must reach.

use crate::release::Behaviour;

/// The network's treatment of messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// The part of messages without a guarantee that is lost.
    pub loss: f64,
    /// The part that arrives twice.
    pub twice: f64,
    /// Shortest delay in milliseconds.
    pub delay_ms: u64,
    /// Most that is added to it: messages overtake each other.
    pub jitter_ms: u64,
}

/// The number of kills by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kills {
    /// Kills of the controller.
    pub controller: usize,
    /// Kills of a store.
    pub store: usize,
    /// Kills of the broker, which then has no retained message any more.
    pub broker: usize,
    /// Power cuts of boards.
    pub boards: usize,
}

/// A rollout of one release.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Its name, also of its picture.
    pub name: &'static str,
    /// The new release's agent.
    pub behaviour: Behaviour,
    /// The network.
    pub weather: Weather,
    /// The kills.
    pub kills: Kills,
    /// Boards without power until the others are done, per mille.
    pub offline_permille: usize,
    /// Minutes for which a step must be good.
    pub soak_min: u32,
    /// True if one store of three sends wrong blocks.
    pub poisoned: bool,
    /// The number of boards.
    pub devices: usize,
    /// Decides everything that is left to chance.
    pub seed: u64,
}

const FAIR: Weather = Weather { loss: 0.001, twice: 0.0, delay_ms: 20, jitter_ms: 30 };
const STORM: Weather = Weather { loss: 0.3, twice: 0.1, delay_ms: 20, jitter_ms: 900 };

/// All scenarios with so many boards.
pub fn scenarios(devices: usize, seed: u64) -> Vec<Scenario> {
    let fair = |name: &'static str, behaviour: Behaviour| Scenario {
        name,
        behaviour,
        weather: FAIR,
        kills: Kills::default(),
        offline_permille: 10,
        soak_min: 20,
        poisoned: false,
        devices,
        seed,
    };
    vec![
        fair("sound", Behaviour::Sound),
        fair("crashes", Behaviour::Crashes),
        fair("hangs", Behaviour::Hangs),
        fair("leaks", Behaviour::Leaks),
        fair("other-tokens", Behaviour::OtherTokens),
        fair("no-broker", Behaviour::NoBroker),
        fair("crashes-on-some", Behaviour::CrashesOnSome(5)),
        Scenario { weather: STORM, offline_permille: 0, ..fair("storm", Behaviour::Sound) },
        Scenario {
            // A controller that is killed begins to wait anew.
            soak_min: 3,
            kills: Kills { controller: 20, store: 20, broker: 20, boards: devices / 5 },
            ..fair("kills", Behaviour::Sound)
        },
        Scenario { poisoned: true, ..fair("poisoned", Behaviour::Sound) },
    ]
}

impl Scenario {
    /// True if all boards are to have the new release at the end.
    pub fn is_sound(&self) -> bool {
        self.behaviour == Behaviour::Sound
    }
}
