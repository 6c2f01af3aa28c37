//! A verifier with a scripted target, for `make bench`: without a model, only protocol and link take time in a round.
//!
//! `scripted BROKER SEED VOCABULARY CONTEXT` prints `ready` on standard output and serves until it is killed.

use anyhow::{Context, Result};
use dunlin_lm::Toy;
use dunlin_service::Service;
use dunlin_verifier::engine::TargetEngine;
use dunlin_verifier::{Config, Hooks, Served, serve};
use std::env;
use std::io::{Write, stdout};
use tokio::runtime;
use tokio::sync::mpsc;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [broker, seed, vocabulary, context] = arguments.as_slice() else {
        anyhow::bail!("usage: scripted BROKER SEED VOCABULARY CONTEXT");
    };
    let toy = Toy { context_max: context.parse()?, ..Toy::new(seed.parse()?, vocabulary.parse()?, 1.0) };
    let config = Config { broker: broker.parse()?, ..Config::default() };
    let served = Served {
        target: TargetEngine::Rows(Box::new(toy.target())),
        name: "scripted".into(),
        prefixes: Default::default(),
        measured: Default::default(),
    };
    let (_kept, stop) = mpsc::channel(1);
    let (_unasked, status) = mpsc::channel(1);
    let ready = Box::new(|| writeln!(stdout(), "ready").context("standard output"));
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let hooks = Hooks { stop, status, ready, service: Service::unmanaged() };
    runtime.block_on(serve(&config, served, hooks))?;
    Ok(())
}
