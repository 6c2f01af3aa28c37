//! The numerics of a target: candle's version, and the kernels that it uses on this processor.
//!
//! The order of summation differs between candle's kernels for different instruction sets. So the same weights give
//! other bits on another kind of processor.

use crate::kv::KvType;

/// The engine and its version.
pub(crate) const ENGINE: &str = "candle 0.11.1";

/// The kernels that candle uses here, and the cache type, such as `avx2 f32`.
pub(crate) fn numerics(cache: KvType) -> String {
    format!("{} {}", kernels(), cache.name())
}

/// The name of candle's kernels on this processor, found by candle's own order of checks.
#[cfg(target_arch = "x86_64")]
fn kernels() -> String {
    let forced = |name: &str| std::env::var(name).as_deref() == Ok("1");
    let (avx2_forced, vnni_forced) = (forced("MISTRALRS_FORCE_AVX2"), forced("MISTRALRS_FORCE_AVXVNNI"));
    let (avx2, wide) = (is_x86_feature_detected!("avx2"), is_x86_feature_detected!("avx512f"));
    let quantized = if !avx2_forced && !vnni_forced && wide && is_x86_feature_detected!("avx512vnni") {
        if has_amx() { "avx512-vnni-amx" } else { "avx512-vnni" }
    } else if !avx2_forced && avx2 && (vnni_forced || is_x86_feature_detected!("avxvnni")) {
        "avx-vnni"
    } else if avx2 && is_x86_feature_detected!("fma") {
        "avx2"
    } else {
        "x86-64"
    };
    // candle chooses the kernels for products of floats by another rule than those for blocks.
    if wide && !quantized.starts_with("avx512") { format!("{quantized}+avx512f") } else { quantized.into() }
}

#[cfg(target_arch = "aarch64")]
fn kernels() -> String {
    use std::arch::is_aarch64_feature_detected;
    let name = if is_aarch64_feature_detected!("i8mm") {
        "neon-i8mm"
    } else if is_aarch64_feature_detected!("dotprod") {
        "neon-dotprod"
    } else {
        "neon"
    };
    name.into()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn kernels() -> String {
    std::env::consts::ARCH.into()
}

/// True when candle multiplies tiles. It then packs weights a second time, for batches of 32 rows and more.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_amx() -> bool {
    // The standard library's own test is unstable.
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "amx_int8")
}

/// True when candle multiplies tiles.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn has_amx() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_lock_file() {
        let lock = include_str!("../../../Cargo.lock");
        let (_, entry) = lock.split_once("name = \"candle-core\"\nversion = \"").unwrap();
        let (version, _) = entry.split_once('"').unwrap();
        assert_eq!(ENGINE, format!("candle {version}"));
    }

    #[test]
    fn numerics_name_kernels_and_cache() {
        for (cache, end) in [(KvType::F32, " f32"), (KvType::F16, " f16")] {
            let numerics = numerics(cache);
            assert!(numerics.ends_with(end) && numerics.len() <= 32, "{numerics}");
        }
    }
}
