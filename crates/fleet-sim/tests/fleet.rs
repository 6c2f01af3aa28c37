//! The scenarios of `make rollout` with fewer boards.

use dunlin_fleet_sim::{
    BYTES_RATIO_MAX, Behaviour, RolloutFigures, RunOutcome, Scenario, missed, picture, run, scenarios,
};

const DEVICES: usize = 150;

fn scenario(name: &str) -> Scenario {
    let all = scenarios(DEVICES, 5);
    all.into_iter().find(|scenario| scenario.name == name).expect("a scenario of this name")
}

#[test]
fn every_scenario_reaches_its_marks() {
    let outcomes: Vec<RunOutcome> = scenarios(DEVICES, 5).iter().map(run).collect();
    let figures = RolloutFigures::of(&outcomes, 5);
    assert_eq!(figures.missed, Vec::<String>::new());
    assert_eq!((figures.devices, figures.scenarios.len()), (DEVICES, 10));
    assert_eq!((figures.damaged_beyond_step, figures.not_back), (0, 0));
    assert!(figures.bytes_ratio >= 1.0 && figures.bytes_ratio <= BYTES_RATIO_MAX);
    let find = |name: &str| outcomes.iter().find(|outcome| outcome.name == name).unwrap();
    let kills = find("kills").killed;
    assert_eq!((kills.controller, kills.store, kills.broker), (20, 20, 20));
    assert!(kills.boards > 20 && find("poisoned").poisoned_sent > 0 && find("storm").bytes_lost > 0);
    assert!(find("sound").offline > 0, "boards that were away have the release too");
}

#[test]
fn a_run_is_decided_by_its_scenario_and_seed() {
    let storm = Scenario { devices: 40, ..scenario("storm") };
    let first = run(&storm);
    assert_eq!(first, run(&storm));
    assert_ne!(first.samples, run(&Scenario { seed: 6, ..storm }).samples);
}

#[test]
fn a_picture_names_the_states_and_what_the_controller_did() {
    let outcome = run(&scenario("crashes"));
    let svg = picture(&outcome).unwrap();
    for text in ["<svg", "crashes: 150 boards", "minutes", "rolled back", "old release", "start", "stopped"] {
        assert!(svg.contains(text), "{text}");
    }
    assert_eq!(svg, picture(&outcome).unwrap());
    assert!(picture(&run(&scenario("sound"))).unwrap().contains("finished"));
}

#[test]
fn each_mark_can_be_missed() {
    let good = run(&Scenario { devices: 40, ..scenario("crashes") });
    assert_eq!(missed(&good), Vec::<String>::new());
    let wrong = [
        RunOutcome { damaged_beyond_step: 1, ..good.clone() },
        RunOutcome { not_back: 1, ..good.clone() },
        RunOutcome { bytes_sent: good.bytes_good * 107 / 100 + good.bytes_lost, ..good.clone() },
        RunOutcome { damaged: 0, ..good.clone() },
        RunOutcome { state: None, ..good.clone() },
        RunOutcome { sound: true, ..good.clone() },
    ];
    for outcome in wrong {
        let missed = missed(&outcome);
        assert!(!missed.is_empty(), "{outcome:?}");
        let figures = RolloutFigures::of(&[good.clone(), outcome], 5);
        assert_eq!(figures.missed, missed);
    }
}

#[test]
fn a_release_that_is_bad_only_on_some_boards_is_stopped_in_the_step_that_shows_it() {
    let some =
        Scenario { devices: 600, behaviour: Behaviour::CrashesOnSome(4), ..scenario("crashes-on-some") };
    let outcome = run(&some);
    assert_eq!(missed(&outcome), Vec::<String>::new());
    let RunOutcome { damaged, members, .. } = outcome;
    assert!(damaged > 0 && damaged < members, "{damaged} of {members}");
}
