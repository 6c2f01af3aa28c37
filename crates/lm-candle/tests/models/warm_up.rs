//! The first pass of a target, in which candle packs its weights.

use crate::tiny::{Tiny, open};
use allocation_counter::measure;
use candle_core::quantized::GgmlDType;
use dunlin_lm::{Error, Extend, Target};
use dunlin_lm_candle::CandleTarget;

/// Bytes that one pass over `rows` tokens allocates.
fn pass_bytes(target: &mut CandleTarget, rows: usize) -> u64 {
    let session = target.open().unwrap();
    let tokens = vec![1; rows];
    let measured = measure(|| {
        let part = Extend { session, keep: 0, tokens: &tokens, rows };
        target.extend(&[part]).pop().unwrap().unwrap();
    });
    target.close(session);
    measured.bytes_total
}

#[test]
fn a_warm_target_packs_nothing_more() {
    for kind in [GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::Q8_0] {
        let model = open(&Tiny { vocabulary: 4096, ..Tiny::new(kind) });
        let mut target = model.target();
        target.warm_up().unwrap();
        for rows in [1, 2, 8] {
            let first = pass_bytes(&mut target, rows);
            assert_eq!(first, pass_bytes(&mut target, rows), "{kind:?}, {rows} rows");
        }
    }
}

#[test]
fn a_warm_up_leaves_nothing_behind() {
    let model = open(&Tiny::new(GgmlDType::Q8_0));
    // Room for one session of up to 64 tokens.
    let bytes = 64 * model.target().cache_bytes_per_token() as usize;
    let mut target = CandleTarget::load(&model.dir, bytes).unwrap();
    target.warm_up().unwrap();
    target.warm_up().unwrap();
    pass_bytes(&mut target, 3);
    let mut tight = CandleTarget::load(&model.dir, bytes - 1).unwrap();
    assert!(matches!(tight.warm_up(), Err(Error::CacheFull { used: 0, .. })));
}
