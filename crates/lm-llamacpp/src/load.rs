//! The load of a model in this process, and all that a target does with it at first: for a target, and for the child process
//! that tries a file.

use crate::decoder::{CELLS_STEP, Decoder, Layout, Part, SEQUENCES_MAX, Shape};
use crate::facts::Facts;
use crate::journal::Journal;
use crate::order::{LlamaSettings, Order};
use crate::trial::{Findings, try_out};
use dunlin_lm::{Error, Result};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use std::path::Path;
use std::sync::OnceLock;

/// Runs `work` with llama.cpp's lines in the journal.
pub(crate) fn with_journal<R>(journal: &Journal, work: impl FnOnce() -> R) -> R {
    tracing::dispatcher::with_default(&tracing::Dispatch::new(journal.clone()), work)
}

/// Loads the model of an order; `progress` gets the bytes that were read, and returns false to stop.
pub(crate) fn load_model(
    order: &Order,
    tensor_bytes: u64,
    mut progress: impl FnMut(u64) -> bool + 'static,
    journal: &Journal,
) -> Result<(&'static LlamaBackend, LlamaModel)> {
    let path = order.weights.as_path();
    let backend = backend().ok_or_else(|| Error::engine("llama.cpp", "it can't be initialised"))?;
    // Without a receiver nobody wants the model any more.
    let params = LlamaModelParams::default().with_progress_callback(move |share| {
        progress((f64::from(share.clamp(0.0, 1.0)) * tensor_bytes as f64) as u64)
    });
    let model = LlamaModel::load_from_file(backend, path, &params);
    let model = model.map_err(|error| refused(path, &format!("{error}{}", journal.explain())))?;
    let rows = u32::try_from(model.n_vocab()).unwrap_or(0);
    if rows != order.rows {
        return Err(Error::value(path, "tokens of llama.cpp", order.rows, rows));
    }
    Ok((backend, model))
}

/// Loads and runs the model of an order as a target would: the trial of rows, the context of the sessions, and the last
/// position in it. llama.cpp's lines also go to standard error at once.
///
/// # Errors
/// It can't be a target, or llama.cpp fails.
pub(crate) fn rehearse(
    order: &Order,
    facts: &Facts,
    progress: impl FnMut(u64) -> bool + 'static,
) -> Result<Findings> {
    let journal = Journal::echoing();
    with_journal(&journal, || {
        let (backend, model) = load_model(order, facts.tensor_bytes, progress, &journal)?;
        let LlamaSettings { threads, is_wide, .. } = order.settings;
        let findings = try_out(&order.weights, &model, backend, (threads, is_wide), &journal)?;
        let shape = shape(&order.settings, order.context_max, findings);
        let failed = |message| Error::engine("llama.cpp", message);
        let mut decoder = Decoder::new(&model, backend, shape, &journal).map_err(failed)?;
        // Behind the last token of a full context; the company of a lone row takes one position more.
        let position = order.context_max.saturating_sub(1);
        let last = Part { sequence: shape.sequences - 1, position, tokens: &[order.rows - 1], rows: 1 };
        decoder.run(&[last]).map_err(failed)?;
        Ok(findings)
    })
}

fn refused(path: &Path, message: &str) -> Error {
    Error::format(
        path,
        "GGUF",
        format!("llama.cpp can't load it: {message}; convert it again, or take another model"),
    )
}

/// llama.cpp itself, which a process has once.
fn backend() -> Option<&'static LlamaBackend> {
    static BACKEND: OnceLock<Option<LlamaBackend>> = OnceLock::new();
    let init = || {
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().ok()
    };
    BACKEND.get_or_init(init).as_ref()
}

/// The context that the budget allows.
pub(crate) fn shape(settings: &LlamaSettings, context_max: usize, findings: Findings) -> Shape {
    let LlamaSettings { kv_bytes_max, sessions_max, threads, is_wide, .. } = *settings;
    let tokens = (kv_bytes_max as u64 / findings.token_bytes.max(1)).min(i32::MAX as u64 / 2) as usize;
    let sequences = sessions_max.clamp(1, SEQUENCES_MAX);
    // One cell more: see `company` of the decoder.
    let whole = (context_max + 1).next_multiple_of(CELLS_STEP);
    let least = |cells: usize| (cells / CELLS_STEP).max(1) * CELLS_STEP;
    if findings.is_exact {
        let sequences = sequences.min(tokens / whole).max(1);
        Shape { layout: Layout::Apart, sequences, cells: whole.min(least(tokens)), threads, is_wide }
    } else {
        let cells = least(tokens).min(whole.saturating_mul(sequences));
        Shape { layout: Layout::Shared, sequences, cells, threads, is_wide }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tokens: usize, context: usize, is_exact: bool) -> (usize, usize) {
        let settings = LlamaSettings {
            kv_bytes_max: tokens * 100,
            sessions_max: 8,
            context_max: None,
            threads: 1,
            is_wide: false,
        };
        let Shape { sequences, cells, .. } =
            shape(&settings, context, Findings { token_bytes: 100, is_exact });
        (sequences, cells)
    }

    #[test]
    fn an_exact_target_has_as_many_sessions_as_full_contexts_fit() {
        assert_eq!(of(10_000, 2047, true), (4, 2048));
        assert_eq!(of(10_000, 2048, true), (4, 2304), "a cell more");
        assert_eq!(of(1_000_000, 100, true), (8, 256), "no more than are asked for");
        assert_eq!(of(1000, 2047, true), (1, 768), "within the budget, if no context fits");
        assert_eq!(of(0, 2047, true), (1, 256));
    }

    #[test]
    fn others_share_all_cells() {
        assert_eq!(of(10_000, 2047, false), (8, 9984));
        assert_eq!(of(1_000_000, 255, false), (8, 2048), "no more than all sessions can fill");
    }
}
