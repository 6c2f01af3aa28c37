//! Facts about the llama.cpp that is linked, from the cache of the cmake run that built it: what was asked for may differ,
//! since an older build in the same folder is kept.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Choices of the build, and what they are where nothing is asked for.
const CHOICES: [&str; 2] = ["GGML_CPU_REPACK", "GGML_LLAMAFILE"];

/// An option of ggml's, a macro of the compiler's, and the name that Rust detects the instruction set by.
const SETS: [(&str, &str, &str); 17] = [
    ("GGML_SSE42", "__SSE4_2__", "sse4.2"),
    ("GGML_AVX", "__AVX__", "avx"),
    ("GGML_AVX2", "__AVX2__", "avx2"),
    ("GGML_FMA", "__FMA__", "fma"),
    ("GGML_F16C", "__F16C__", "f16c"),
    ("GGML_BMI2", "__BMI2__", "bmi2"),
    ("GGML_AVX_VNNI", "__AVXVNNI__", "avxvnni"),
    ("GGML_AVX512", "__AVX512F__", "avx512f"),
    ("GGML_AVX512", "__AVX512BW__", "avx512bw"),
    ("GGML_AVX512", "__AVX512VL__", "avx512vl"),
    ("GGML_AVX512_VBMI", "__AVX512VBMI__", "avx512vbmi"),
    ("GGML_AVX512_VNNI", "__AVX512VNNI__", "avx512vnni"),
    ("GGML_AVX512_BF16", "__AVX512BF16__", "avx512bf16"),
    ("", "__AMX_INT8__", "amx-int8"),
    ("", "__ARM_FEATURE_DOTPROD", "dotprod"),
    ("", "__ARM_FEATURE_MATMUL_INT8", "i8mm"),
    ("", "__ARM_FEATURE_SVE", "sve"),
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let packages =
        env::var("DEP_LLAMA_GGML_CMAKE_DIR").expect("llama-cpp-sys-2 names the folder of its build");
    let path = PathBuf::from(packages).join("../../build/CMakeCache.txt");
    println!("cargo:rerun-if-changed={}", path.display());
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cache = entries(&text);
    for choice in CHOICES {
        println!("cargo:rerun-if-env-changed={choice}");
        let built = is_on(&cache, choice);
        let asked = env::var(choice).map_or(built, |asked| is_true(&asked));
        assert!(
            asked == built,
            "{choice}={} is asked for, but this target folder holds a llama.cpp of the other kind, which is kept: \
             give each kind a CARGO_TARGET_DIR of its own",
            if asked { "ON" } else { "OFF" }
        );
        println!("cargo:rustc-env=DUNLIN_{choice}={}", u8::from(built));
    }
    println!("cargo:rustc-env=DUNLIN_LLAMACPP_NATIVE={}", u8::from(is_on(&cache, "GGML_NATIVE")));
    println!("cargo:rustc-env=DUNLIN_LLAMACPP_SETS={}", instruction_sets(&cache).join(","));
}

/// The entries of a cmake cache, `NAME:TYPE=VALUE` each.
fn entries(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter(|line| !line.starts_with(['#', '/']))
        .filter_map(|line| line.split_once('='))
        .filter_map(|(name, value)| Some((name.split_once(':')?.0, value)))
        .collect()
}

fn is_true(value: &str) -> bool {
    ["1", "ON", "TRUE", "YES", "Y"].contains(&value.to_uppercase().as_str())
}

fn is_on(cache: &BTreeMap<&str, &str>, name: &str) -> bool {
    cache.get(name).is_some_and(|value| is_true(value))
}

/// The instruction sets that the compiler may use anywhere in ggml's kernels.
fn instruction_sets(cache: &BTreeMap<&str, &str>) -> Vec<&'static str> {
    let flags = cache.get("CMAKE_C_FLAGS").copied().unwrap_or_default();
    let mut flags: Vec<&str> = flags
        .split_whitespace()
        .filter(|flag| flag.starts_with("-march=") || flag.starts_with("-mcpu="))
        .collect();
    let is_native = is_on(cache, "GGML_NATIVE");
    if is_native {
        flags.push(if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("aarch64") {
            "-mcpu=native"
        } else {
            "-march=native"
        });
    }
    let macros = if flags.is_empty() { String::new() } else { compiler_macros(cache, &flags) };
    let has = |name: &str| macros.lines().any(|line| line.split_whitespace().nth(1) == Some(name));
    let is_x86 = env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64");
    let by_option = |option: &str| is_x86 && !is_native && is_on(cache, option);
    SETS.iter().filter(|(option, name, _)| has(name) || by_option(option)).map(|(_, _, set)| *set).collect()
}

/// The macros that the C compiler of the build defines with these flags.
fn compiler_macros(cache: &BTreeMap<&str, &str>, flags: &[&str]) -> String {
    let compiler = cache.get("CMAKE_C_COMPILER").copied().unwrap_or("cc");
    let output = Command::new(compiler).args(flags).args(["-dM", "-E", "-x", "c", "/dev/null"]).output();
    let output = output.unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(output.status.success(), "{compiler} {flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
