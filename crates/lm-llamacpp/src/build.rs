//! The llama.cpp that is linked: its version, the choices of its build, and the instruction sets that it needs.

/// The crate that brings llama.cpp, and its version.
pub(crate) const ENGINE: &str = "llama.cpp of llama-cpp-sys-2 0.1.161";

/// Choices of the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LlamaBuild {
    /// True if weights are packed when they are loaded: faster, but a row's bits depend on its place in the batch.
    pub repacks: bool,
    /// True if matrices are multiplied in tiles of rows, with the same effect.
    pub tiles: bool,
    /// True if it was compiled for the processor of the machine that built it.
    pub is_native: bool,
    /// True if layers may run on a GPU.
    pub uses_gpu: bool,
}

impl LlamaBuild {
    /// The build that is linked.
    pub const LINKED: Self = Self {
        repacks: is_set(env!("DUNLIN_GGML_CPU_REPACK")),
        tiles: is_set(env!("DUNLIN_GGML_LLAMAFILE")),
        is_native: is_set(env!("DUNLIN_LLAMACPP_NATIVE")),
        uses_gpu: cfg!(any(feature = "cuda", feature = "vulkan")),
    };

    /// True if its kernels compute each row by itself, so that its bits may be promised.
    pub const fn may_be_exact(&self) -> bool {
        !self.repacks && !self.tiles && !self.uses_gpu
    }

    /// Its name in an identity.
    pub(crate) fn name(&self) -> &'static str {
        match (self.uses_gpu, self.repacks, self.tiles) {
            (true, ..) => "gpu",
            (_, true, true) => "fast",
            (_, true, false) => "repack",
            (_, false, true) => "tiles",
            _ => "rows",
        }
    }
}

/// The instruction sets that the compiler may use anywhere, as Rust detects them.
pub(crate) fn instruction_sets() -> impl Iterator<Item = &'static str> {
    env!("DUNLIN_LLAMACPP_SETS").split(',').filter(|set| !set.is_empty())
}

const fn is_set(flag: &str) -> bool {
    matches!(flag.as_bytes(), [b'1'])
}

/// The instruction sets in words, such as `x86_64 with avx, avx2, fma`.
pub(crate) fn baseline() -> String {
    let sets: Vec<&str> = instruction_sets().collect();
    let arch = std::env::consts::ARCH;
    if sets.is_empty() { arch.into() } else { format!("{arch} with {}", sets.join(", ")) }
}

/// Checks that this processor has every instruction set that llama.cpp was compiled for.
///
/// # Errors
/// Names the sets that it lacks, and the remedy.
pub fn check_processor() -> Result<(), String> {
    lacking(instruction_sets(), &mut has)
}

fn lacking(
    sets: impl Iterator<Item = &'static str>,
    has: &mut dyn FnMut(&str) -> bool,
) -> Result<(), String> {
    let missing: Vec<&str> = sets.filter(|set| !has(set)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "llama.cpp was compiled for {}, and this processor lacks {}: build it on this machine, or for less with \
         GGML_AVX2=OFF and the like in the environment, or use the engine candle",
        baseline(),
        missing.join(", "),
    ))
}

/// True if this processor has an instruction set.
#[cfg(target_arch = "x86_64")]
fn has(set: &str) -> bool {
    match set {
        "sse4.2" => is_x86_feature_detected!("sse4.2"),
        "avx" => is_x86_feature_detected!("avx"),
        "avx2" => is_x86_feature_detected!("avx2"),
        "fma" => is_x86_feature_detected!("fma"),
        "f16c" => is_x86_feature_detected!("f16c"),
        "bmi2" => is_x86_feature_detected!("bmi2"),
        "avxvnni" => is_x86_feature_detected!("avxvnni"),
        "avx512f" => is_x86_feature_detected!("avx512f"),
        "avx512bw" => is_x86_feature_detected!("avx512bw"),
        "avx512vl" => is_x86_feature_detected!("avx512vl"),
        "avx512vbmi" => is_x86_feature_detected!("avx512vbmi"),
        "avx512vnni" => is_x86_feature_detected!("avx512vnni"),
        "avx512bf16" => is_x86_feature_detected!("avx512bf16"),
        // The standard library's own test is unstable.
        "amx-int8" => {
            let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            flags.split_whitespace().any(|flag| flag == "amx_int8")
        }
        _ => false,
    }
}

/// True if this processor has an instruction set.
#[cfg(target_arch = "aarch64")]
fn has(set: &str) -> bool {
    use std::arch::is_aarch64_feature_detected;
    match set {
        "dotprod" => is_aarch64_feature_detected!("dotprod"),
        "i8mm" => is_aarch64_feature_detected!("i8mm"),
        "sve" => is_aarch64_feature_detected!("sve"),
        _ => false,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has(_: &str) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_lock_file() {
        let lock = include_str!("../../../Cargo.lock");
        let (_, entry) = lock.split_once("name = \"llama-cpp-sys-2\"\nversion = \"").unwrap();
        let (version, _) = entry.split_once('"').unwrap();
        assert_eq!(ENGINE, format!("llama.cpp of llama-cpp-sys-2 {version}"));
    }

    #[test]
    fn a_processor_that_lacks_a_set_is_refused_by_name() {
        let sets = || ["avx", "avx2", "fma"].into_iter();
        assert_eq!(lacking(sets(), &mut |_| true), Ok(()));
        let error = lacking(sets(), &mut |set| set == "avx").unwrap_err();
        assert!(error.contains("this processor lacks avx2, fma: build it on this machine"), "{error}");
    }

    #[test]
    fn this_machine_runs_what_it_builds() {
        assert_eq!(check_processor(), Ok(()));
        assert!(instruction_sets().all(has));
    }
}
