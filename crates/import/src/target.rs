//! A target's GGUF file: the weights of a folder of safetensors in Q8_0.

use crate::config::{Decoder, Scaling};
use crate::convert::permuted;
use crate::data::{SummedFile, little_endian};
use crate::report::{Kept, TensorReport};
use crate::store::{LayerPart, Part, Rows, Store, pieces};
use crate::watch::Watch;
use dunlin_gguf::BlockType;
use dunlin_gguf::write::{ALIGNMENT, HeaderWriter};
use dunlin_lm::{Error, Result};
use half::f16;
use std::path::Path;

/// Numbers in a block.
const BLOCK: usize = 32;
/// ggml's number for a file that is mostly of type Q8_0.
const MOSTLY_Q8_0: u32 = 7;

/// A tensor of the file.
struct Entry {
    name: String,
    part: Part,
    shape: Vec<usize>,
}

impl Entry {
    fn rows(&self) -> usize {
        if self.shape.len() == 1 { 1 } else { self.shape[0] }
    }

    fn columns(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    fn kind(&self) -> BlockType {
        let is_matrix = self.shape.len() == 2;
        match (is_matrix, self.columns().is_multiple_of(BLOCK)) {
            (false, _) => BlockType::F32,
            (true, true) => BlockType::Q8_0,
            (true, false) => BlockType::F16,
        }
    }
}

/// Writes the file; returns what became of its matrices.
///
/// # Errors
/// A file fails, a number is infinite, none or too large, the positions have no form in such a file, or the work was
/// interrupted.
pub(crate) fn write(
    (path, decoder, store): (&Path, &Decoder, &mut Store),
    name: &str,
    data: &mut SummedFile,
    watch: &mut Watch<'_>,
) -> Result<Vec<TensorReport>> {
    let entries = entries(decoder, store);
    let factors = factors(path, decoder)?;
    let mut header = metadata(decoder, name);
    if let Some(factors) = &factors {
        let added = header.tensor("rope_freqs.weight", &[factors.len() as u64], BlockType::F32);
        added.map_err(|error| Error::gguf(path, error))?;
    }
    for entry in &entries {
        let shape: Vec<u64> = entry.shape.iter().map(|size| *size as u64).collect();
        header.tensor(&entry.name, &shape, entry.kind()).map_err(|error| Error::gguf(path, error))?;
    }
    data.write(&header.encode())?;
    if let Some(factors) = factors {
        data.write(&little_endian(&factors))?;
        data.align_to(ALIGNMENT)?;
    }
    watch.expect(entries.iter().map(|entry| (entry.rows() * entry.columns()) as u64).sum());
    let mut reports = Vec::new();
    for entry in &entries {
        reports.extend(tensor(decoder, store, entry, data, watch)?);
        data.align_to(ALIGNMENT)?;
    }
    Ok(reports)
}

/// The tensors, with their names in GGUF files.
fn entries(decoder: &Decoder, store: &Store) -> Vec<Entry> {
    let table = vec![decoder.vocabulary, decoder.hidden];
    let entry = |name: &str, part, shape| Entry { name: name.into(), part, shape };
    let mut entries = vec![
        entry("token_embd.weight", Part::Embedding, table.clone()),
        entry("output_norm.weight", Part::Norm, vec![decoder.hidden]),
    ];
    if store.has(Part::Head) {
        entries.push(entry("output.weight", Part::Head, table));
    }
    for layer in 0..decoder.layers {
        for (part, name, _) in LayerPart::NAMES {
            let place = Part::Layer(layer, part);
            if !store.has(place) {
                continue;
            }
            let shape = decoder.shape(part);
            let bias = Part::Bias(layer, part);
            if store.has(bias) {
                entries.push(entry(&format!("blk.{layer}.{name}.bias"), bias, shape[..1].to_vec()));
            }
            entries.push(entry(&format!("blk.{layer}.{name}.weight"), place, shape));
        }
    }
    entries
}

/// The architecture's name in GGUF files, where a Mistral is a Llama.
fn architecture(decoder: &Decoder) -> &'static str {
    if decoder.architecture == "mistral" { "llama" } else { decoder.architecture }
}

/// True if the rows of queries and keys are ordered for pairs of neighbours in this architecture's files.
fn is_permuted(decoder: &Decoder) -> bool {
    architecture(decoder) == "llama"
}

fn metadata(decoder: &Decoder, name: &str) -> HeaderWriter {
    let mut header = HeaderWriter::default();
    let architecture = architecture(decoder);
    header.string("general.architecture", architecture);
    header.string("general.name", name);
    header.u32("general.file_type", MOSTLY_Q8_0);
    for (key, number) in [
        ("block_count", decoder.layers),
        ("context_length", decoder.context),
        ("embedding_length", decoder.hidden),
        ("feed_forward_length", decoder.inner),
        ("attention.head_count", decoder.heads),
        ("attention.head_count_kv", decoder.kv_heads),
        ("attention.key_length", decoder.head_dim),
        ("attention.value_length", decoder.head_dim),
        ("rope.dimension_count", decoder.head_dim),
    ] {
        header.u32(&format!("{architecture}.{key}"), u32::try_from(number).unwrap_or(u32::MAX));
    }
    header.f32(&format!("{architecture}.attention.layer_norm_rms_epsilon"), decoder.epsilon);
    header.f32(&format!("{architecture}.rope.freq_base"), decoder.base as f32);
    match decoder.scaling {
        Scaling::Linear(factor) if factor != 1.0 => {
            header.string(&format!("{architecture}.rope.scaling.type"), "linear");
            header.f32(&format!("{architecture}.rope.scaling.factor"), factor as f32);
        }
        Scaling::Linear(_) | Scaling::Llama3 { .. } => {}
    }
    header
}

/// Divisors of the angles, for Llama 3's positions.
fn factors(path: &Path, decoder: &Decoder) -> Result<Option<Vec<f32>>> {
    if let Scaling::Linear(_) = decoder.scaling {
        return Ok(None);
    }
    if architecture(decoder) != "llama" {
        let what = format!("Llama 3's rotary positions in a model of architecture {}", decoder.architecture);
        return Err(Error::unsupported(path, what, "use a GGUF file of this model"));
    }
    let pairs = (0..).map(|pair| f64::from(pair) * -2.0 / decoder.head_dim as f64);
    let plain = pairs.map(|power| decoder.base.powf(power));
    Ok(Some(plain.zip(&decoder.frequencies).map(|(plain, scaled)| (plain / scaled) as f32).collect()))
}

/// Writes a tensor; returns the report of a matrix.
fn tensor(
    decoder: &Decoder,
    store: &mut Store,
    entry: &Entry,
    data: &mut SummedFile,
    watch: &mut Watch<'_>,
) -> Result<Option<TensorReport>> {
    let (Part::Layer(_, part) | Part::Bias(_, part)) = entry.part else {
        return whole(store, entry, None, data, watch);
    };
    let turned = is_permuted(decoder) && matches!(part, LayerPart::Query | LayerPart::Key);
    whole(store, entry, turned.then_some(decoder.head_dim), data, watch)
}

/// Writes a tensor whose heads of this size are put from halves to neighbours, if there is one.
fn whole(
    store: &mut Store,
    entry: &Entry,
    head: Option<usize>,
    data: &mut SummedFile,
    watch: &mut Watch<'_>,
) -> Result<Option<TensorReport>> {
    if entry.shape.len() == 1 {
        let numbers = store.vector(entry.part)?;
        let rows = Rows { kind: BlockType::F32, row_bytes: size_of::<f32>(), bytes: little_endian(&numbers) };
        data.write(&permuted(rows, head).bytes)?;
        watch.advance(numbers.len())?;
        return Ok(None);
    }
    let (mut error, mut square) = (0.0, 0.0);
    for range in pieces(entry.rows(), entry.columns(), head.unwrap_or(1)) {
        let rows = permuted(store.rows(entry.part, range.start, range.len())?, head);
        let numbers = rows.kind.dequantize(&rows.bytes).map_err(|error| store.error(entry.part, error))?;
        let (bytes, found) = match entry.kind() {
            BlockType::Q8_0 => q8_0(&numbers),
            _ => halves(&numbers),
        };
        // Large numbers overflow 16 bits, too.
        if !(found.0.is_finite() && found.1.is_finite()) {
            let finite = |number: &&f32| number.is_finite();
            let largest = numbers.iter().filter(finite).fold(0.0f32, |most, number| most.max(number.abs()));
            return Err(match numbers.iter().find(|number| !number.is_finite()) {
                Some(number) => store.not_finite(entry.part, number),
                None => store.not_finite(entry.part, largest),
            });
        }
        (error, square) = (error + found.0, square + found.1);
        data.write(&bytes)?;
        watch.advance(numbers.len())?;
    }
    let (name, source) = store.described(entry.part)?;
    let kept = if entry.kind() == BlockType::Q8_0 { Kept::Bytes } else { Kept::Halves };
    let error = if square > 0.0 { (error / square).sqrt() } else { 0.0 };
    Ok(Some(TensorReport { name: name.into(), source, kept, error }))
}

/// Bytes, and the sums of the squared errors and of the squares.
type Stored = (Vec<u8>, (f64, f64));

/// Numbers as 16-bit floats.
fn halves(numbers: &[f32]) -> Stored {
    let (mut error, mut square) = (0.0, 0.0);
    let mut bytes = Vec::with_capacity(numbers.len() * size_of::<f16>());
    for number in numbers {
        let half = f16::from_f32(*number);
        error += f64::from(number - half.to_f32()).powi(2);
        square += f64::from(*number).powi(2);
        bytes.extend(half.to_le_bytes());
    }
    (bytes, (error, square))
}

/// Numbers in Q8_0: blocks of 32 with a scale of 16 bits, the largest number becoming 127.
fn q8_0(numbers: &[f32]) -> Stored {
    let (mut error, mut square) = (0.0, 0.0);
    let mut bytes = Vec::with_capacity(numbers.len() / BLOCK * (BLOCK + 2));
    for block in numbers.as_chunks::<BLOCK>().0 {
        // A number that isn't one is passed on to the sums: a maximum would swallow it.
        let most = block.iter().fold(0.0f32, |most, number| most.max(number.abs()));
        let scale = most / 127.0;
        let half = f16::from_f32(scale);
        bytes.extend(half.to_le_bytes());
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        for number in block {
            let level = (number * inverse).round().clamp(-127.0, 127.0) as i8;
            error += f64::from(number - f32::from(level) * half.to_f32()).powi(2);
            square += f64::from(*number).powi(2);
            bytes.push(level as u8);
        }
    }
    (bytes, (error, square))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_8_bits_are_read_back() {
        let numbers: Vec<f32> = (0..64).map(|i| ((i * 37) % 64) as f32 / 16.0 - 2.0).collect();
        let (bytes, (error, square)) = q8_0(&numbers);
        let found = BlockType::Q8_0.dequantize(&bytes).unwrap();
        let lost: f64 = found.iter().zip(&numbers).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        assert!((lost - error).abs() < 1e-9 && error / square < 1e-4, "{lost}, {error} of {square}");
        assert_eq!(q8_0(&[0.0; BLOCK]).0, [0; BLOCK + 2]);
    }

    #[test]
    fn what_16_bits_cannot_hold_is_no_finite_sum() {
        for number in [f32::NAN, f32::INFINITY, 1e9] {
            let mut block = [1.0; BLOCK];
            block[3] = number;
            for stored in [q8_0(&block), halves(&block)] {
                assert!(!(stored.1.0.is_finite() && stored.1.1.is_finite()), "{number}");
            }
        }
    }
}
