//! A verifier whose target takes a fixed time for each pass: the demo target behind a clock, in a process of its own.
//!
//! The process is this test program, which runs one test alone: [`a_verifier_with_a_paced_target`].

use crate::processes::{model, until};
use dunlin_lm::{Extend, ModelDir, Target, WithExtend};
use dunlin_lm_candle::CandleTarget;
use dunlin_service::Service;
use dunlin_stand::process::Process;
use dunlin_verifier::engine::TargetEngine;
use dunlin_verifier::{Config, Hooks, Served, serve};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Orders to the process: the broker's port, the verifier's name, milliseconds a pass, the file to write when ready.
const ENV: &str = "DUNLIN_STAND_PACED";

/// Starts such a verifier and waits until it is ready.
pub(crate) fn spawn(dir: &Path, broker: u16, id: &str, pass: Duration) -> Process {
    let ready = dir.join(format!("ready-{id}"));
    let _ = std::fs::remove_file(&ready);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["paced::a_verifier_with_a_paced_target", "--exact"]);
    command.env(ENV, format!("{broker} {id} {} {}", pass.as_millis(), ready.display()));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let process = child.into();
    until("the paced verifier is ready", || ready.is_file());
    process
}

/// Serves if it was started for that, and else does nothing.
#[test]
fn a_verifier_with_a_paced_target() {
    let Ok(orders) = std::env::var(ENV) else { return };
    let mut orders = orders.splitn(4, ' ');
    let mut next = || orders.next().unwrap();
    let (broker, id) = (next().parse::<u16>().unwrap(), next().parse().unwrap());
    let (pass, ready) = (Duration::from_millis(next().parse().unwrap()), PathBuf::from(next()));
    let config =
        Config { id, broker: format!("mqtt://127.0.0.1:{broker}").parse().unwrap(), ..Config::default() };
    let dir = ModelDir::open(model("target")).unwrap();
    let mut target = TargetEngine::Rows(Box::new(paced(&dir, pass)));
    let measured = target.warm_up().unwrap();
    let served = Served { target, name: dir.name, prefixes: dir.prefixes.into(), measured };
    let (_stop, stopped) = mpsc::channel(2);
    let (_status, status) = mpsc::channel(1);
    let announce = Box::new(move || Ok(std::fs::write(ready, "")?));
    let hooks = Hooks { stop: stopped, status, ready: announce, service: Service::unmanaged() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(&config, served, hooks)).unwrap();
}

/// The demo target, whose passes take no less than a fixed time.
fn paced(dir: &ModelDir, pass: Duration) -> impl Target + 'static {
    let extend = move |target: &mut CandleTarget, batch: &[Extend<'_>]| {
        let began = Instant::now();
        let rows = target.extend(batch);
        #[allow(
            clippy::disallowed_methods,
            reason = "the sleep is the pass, and nothing waits for its end by guessing"
        )]
        std::thread::sleep(pass.saturating_sub(began.elapsed()));
        rows
    };
    WithExtend { target: CandleTarget::load(dir, 64 << 20).unwrap(), extend }
}
