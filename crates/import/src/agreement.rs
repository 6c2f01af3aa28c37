//! The agreement of a drafter with its source: both read one text, matrix by matrix, and their choices are compared.
//!
//! The source runs whole and in its own precision; the drafter runs from the data file that was written, with its
//! chosen layers. No more than a piece of one matrix is held at a time, so memory does not grow with the models.

use crate::config::Decoder;
use crate::convert::{Quantized, ordered, ordered_numbers};
use crate::graph::{Embedding, Layer, Linear, Tensors};
use crate::quantize::{BLOCK, stored};
use crate::report::{Agreement, TEMPERATURE};
use crate::store::{LayerPart, Part, Rows, Store, pieces};
use crate::watch::Watch;
use dunlin_lm::target::check_tokens;
use dunlin_lm::{Error, ModelDir, Result};
use dunlin_lm_tract::graph::Place;
use half::f16;
use ndarray::{Array1, Array2, ArrayView2, Axis, Slice};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::num::NonZero;
use std::ops::Range;
use std::path::PathBuf;
use std::thread;

/// Most tokens of the text.
const TOKENS_MAX: usize = 192;

/// The user's words of the text.
pub const QUESTION: &str = "Why do leaves change their colour in autumn?";
/// The reply of the text, whose tokens are compared.
pub const REPLY: &str = "Leaves are green in summer because they hold chlorophyll, which takes up sunlight and helps the \
    tree to make sugar. When the days become shorter and the nights become cold, the tree stops making it. The green \
    fades, and the yellow and orange colours, which were in the leaf all the time, can be seen. Some trees also make \
    a red colour from the sugar that stays in the leaf. Later a thin layer of cork grows between the leaf and the \
    branch, the water no longer reaches the leaf, and it falls to the ground. The tree then rests until the spring.";

/// The tokens of the text, and the index of the first whose successor is compared.
///
/// # Errors
/// The tokenizer has no tokens for it, the weights have no row for one of them, or the chat template refuses it.
pub(crate) fn text(model: &ModelDir, decoder: &Decoder) -> Result<(Vec<u32>, usize)> {
    let mut tokens = model.first_turn(QUESTION)?;
    let reply = model.tokenizer.encode_text(REPLY)?;
    let first = tokens.len().saturating_sub(1);
    tokens.extend(reply);
    // A long system prompt of a template is cut at its beginning.
    let most = TOKENS_MAX.min(model.context_max).min(decoder.context);
    let skipped = tokens.len().saturating_sub(most);
    let (tokens, first) = (tokens.split_off(skipped), first.saturating_sub(skipped));
    check_tokens(&tokens, 0, most, decoder.vocabulary as u32)?;
    match tokens.len() {
        0 | 1 => Err(Error::value(&model.path, "text", "2 tokens or more of a built-in text", tokens.len())),
        _ => Ok((tokens, first)),
    }
}

/// The numbers that [`measure`] reads of the matrices.
pub(crate) fn numbers(decoder: &Decoder, layers: &[usize]) -> u64 {
    let table = (decoder.vocabulary * decoder.hidden) as u64;
    // The inner width of the drafter's MLP is filled up.
    let filled = 3 * decoder.hidden * (decoder.inner.next_multiple_of(BLOCK) - decoder.inner);
    let drafter = (decoder.layer_numbers() + filled as u64) * layers.len() as u64;
    decoder.layer_numbers() * decoder.layers as u64 + drafter + 6 * table
}

/// Compares the drafter that was written with its source on `tokens`, from the successor of `tokens[first]` on.
///
/// # Errors
/// A file fails, or the work was interrupted.
pub(crate) fn measure(
    mut source: SourceSide<'_>,
    mut drafter: DrafterSide<'_>,
    (tokens, first): (&[u32], usize),
    vocabulary: usize,
    watch: &mut Watch<'_>,
) -> Result<Agreement> {
    let compared = first.min(tokens.len() - 2)..tokens.len() - 1;
    let theirs = hidden(&mut source, tokens, watch)?.slice_axis(Axis(0), compared.clone().into()).to_owned();
    let ours = hidden(&mut drafter, tokens, watch)?.slice_axis(Axis(0), compared.into()).to_owned();
    let mut sums: [Vec<Sum>; 3] = std::array::from_fn(|_| vec![Sum::default(); theirs.nrows()]);
    let (mut four, mut own) = (0.0, 0.0);
    // Two rounds over the head: the sums of the distributions, then their overlaps.
    for round in 0..2 {
        let width = source.decoder.hidden;
        for rows in pieces(vocabulary, width, 1) {
            let numbers = source.rows(Matrix::Head, rows.clone())?;
            let rounded = drafter.rows(Matrix::Head, rows)?;
            let logits = [product(&theirs, &numbers), product(&ours, &rounded), product(&ours, &numbers)];
            watch.advance(3 * numbers.len())?;
            if round == 0 {
                logits.iter().zip(&mut sums).for_each(|(logits, sums)| add(logits, sums));
            } else {
                let part =
                    |drafter: usize| overlap((&logits[0], &sums[0]), (&logits[drafter], &sums[drafter]));
                (four, own) = (four + part(1), own + part(2));
            }
        }
    }
    let tokens = theirs.nrows();
    Ok(Agreement { tokens, four: four / tokens as f64, own: own / tokens as f64 })
}

/// A matrix of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Matrix {
    Embedding,
    Head,
    /// One of a layer's, by its index in the source.
    Layer(usize, LayerPart),
}

/// A model whose matrices can be read in pieces.
trait Side {
    fn decoder(&self) -> &Decoder;

    /// The layers that the model has, by their index in the source.
    fn layers(&self) -> Vec<usize>;

    /// Some rows of a matrix, `[rows × columns]`.
    fn rows(&mut self, matrix: Matrix, rows: Range<usize>) -> Result<Vec<f32>>;

    /// Rows and columns of a layer's matrix.
    fn shape(&self, layer: usize, part: LayerPart) -> (usize, usize);

    /// The bias of a layer's matrix, if it has one.
    fn bias(&mut self, layer: usize, part: LayerPart) -> Result<Option<Vec<f32>>>;

    /// The weights of a layer's norm.
    fn norm(&mut self, layer: usize, part: LayerPart) -> Result<Vec<f32>>;

    /// The weights of the last norm.
    fn last_norm(&mut self) -> Result<Vec<f32>>;
}

/// The source, in its own precision.
pub(crate) struct SourceSide<'s> {
    pub(crate) decoder: &'s Decoder,
    pub(crate) store: &'s mut Store,
}

impl Side for SourceSide<'_> {
    fn decoder(&self) -> &Decoder {
        self.decoder
    }

    fn layers(&self) -> Vec<usize> {
        (0..self.decoder.layers).collect()
    }

    fn rows(&mut self, matrix: Matrix, rows: Range<usize>) -> Result<Vec<f32>> {
        let part = match matrix {
            Matrix::Layer(layer, part) => Part::Layer(layer, part),
            Matrix::Head if self.store.has(Part::Head) => Part::Head,
            Matrix::Head | Matrix::Embedding => Part::Embedding,
        };
        let found = self.store.rows(part, rows.start, rows.len())?;
        let head = match matrix {
            Matrix::Layer(_, part) if self.decoder.is_permuted(part) => Some(self.decoder.head_dim),
            _ => None,
        };
        let Rows { kind, bytes, .. } = ordered(found, head);
        kind.dequantize(&bytes).map_err(|error| self.store.error(part, error))
    }

    fn shape(&self, _: usize, part: LayerPart) -> (usize, usize) {
        let shape = self.decoder.shape(part);
        (shape[0], shape[1])
    }

    fn bias(&mut self, layer: usize, part: LayerPart) -> Result<Option<Vec<f32>>> {
        let place = Part::Bias(layer, part);
        if !self.store.has(place) {
            return Ok(None);
        }
        let bias = self.store.vector(place)?;
        let is_permuted = self.decoder.is_permuted(part);
        Ok(Some(if is_permuted { ordered_numbers(&bias, self.decoder.head_dim) } else { bias }))
    }

    fn norm(&mut self, layer: usize, part: LayerPart) -> Result<Vec<f32>> {
        self.store.vector(Part::Layer(layer, part))
    }

    fn last_norm(&mut self) -> Result<Vec<f32>> {
        self.store.vector(Part::Norm)
    }
}

/// The drafter, from the data file that was written.
pub(crate) struct DrafterSide<'d> {
    pub(crate) decoder: &'d Decoder,
    pub(crate) tensors: &'d Tensors,
    /// The source's index of each layer.
    pub(crate) layers: &'d [usize],
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl DrafterSide<'_> {
    fn layer(&self, layer: usize) -> &Layer {
        let index = self.layers.iter().position(|other| *other == layer);
        &self.tensors.layers[index.expect("only layers of the drafter are read")]
    }

    fn linear(&self, layer: usize, part: LayerPart) -> Linear {
        let layer = self.layer(layer);
        match part {
            LayerPart::Query => layer.query,
            LayerPart::Key => layer.key,
            LayerPart::Value => layer.value,
            LayerPart::Output => layer.output,
            LayerPart::Gate => layer.gate,
            LayerPart::Up => layer.up,
            LayerPart::Down => layer.down,
            LayerPart::InputNorm | LayerPart::MlpNorm | LayerPart::QueryNorm | LayerPart::KeyNorm => {
                unreachable!("a norm is no matrix")
            }
        }
    }

    /// `length` bytes of the data file.
    fn bytes(&mut self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|error| Error::io(&self.path, error))?;
        Ok(bytes)
    }

    fn floats(&mut self, offset: u64, count: usize) -> Result<Vec<f32>> {
        let bytes = self.bytes(offset, count * size_of::<f32>())?;
        Ok(bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect())
    }

    fn vector(&mut self, place: Place) -> Result<Vec<f32>> {
        self.floats(place.offset, place.length as usize / size_of::<f32>())
    }

    fn quantized(&mut self, matrix: &Quantized, rows: Range<usize>) -> Result<Vec<f32>> {
        let blocks = matrix.blocks();
        let (first, count) = (rows.start * blocks, rows.len() * blocks);
        let scales =
            self.bytes(matrix.scales.offset + (first * size_of::<f16>()) as u64, count * size_of::<f16>())?;
        let scales = scales.chunks_exact(2).map(|x| f16::from_le_bytes([x[0], x[1]]).to_f32());
        let codes = self.bytes(matrix.codes.offset + (first * BLOCK / 2) as u64, count * BLOCK / 2)?;
        let blocks = codes.chunks_exact(BLOCK / 2).zip(scales);
        Ok(blocks
            .flat_map(|(codes, scale)| {
                codes.iter().flat_map(move |two| [stored(two & 15, scale), stored(two >> 4, scale)])
            })
            .collect())
    }
}

impl Side for DrafterSide<'_> {
    fn decoder(&self) -> &Decoder {
        self.decoder
    }

    fn layers(&self) -> Vec<usize> {
        self.layers.to_vec()
    }

    fn rows(&mut self, matrix: Matrix, rows: Range<usize>) -> Result<Vec<f32>> {
        let matrix = match matrix {
            Matrix::Head => self.tensors.head,
            Matrix::Layer(layer, part) => self.linear(layer, part).weight,
            Matrix::Embedding => match self.tensors.embedding {
                Embedding::Quantized(table) => table,
                Embedding::Floats(place) => {
                    let width = self.decoder.hidden;
                    let offset = place.offset + (rows.start * width * size_of::<f32>()) as u64;
                    return self.floats(offset, rows.len() * width);
                }
            },
        };
        self.quantized(&matrix, rows)
    }

    fn shape(&self, layer: usize, part: LayerPart) -> (usize, usize) {
        let weight = self.linear(layer, part).weight;
        (weight.rows, weight.columns)
    }

    fn bias(&mut self, layer: usize, part: LayerPart) -> Result<Option<Vec<f32>>> {
        self.linear(layer, part).bias.map(|(place, _)| self.vector(place)).transpose()
    }

    fn norm(&mut self, layer: usize, part: LayerPart) -> Result<Vec<f32>> {
        let layer = self.layer(layer);
        let heads = layer.head_norms;
        let place = match part {
            LayerPart::InputNorm => Some(layer.input_norm),
            LayerPart::MlpNorm => Some(layer.mlp_norm),
            LayerPart::QueryNorm => heads.map(|norms| norms.0),
            _ => heads.map(|norms| norms.1),
        };
        self.vector(place.expect("only norms of the architecture are read"))
    }

    fn last_norm(&mut self) -> Result<Vec<f32>> {
        self.vector(self.tensors.norm)
    }
}

/// The last layer's normalized output, `[tokens, hidden]`.
fn hidden(side: &mut impl Side, tokens: &[u32], watch: &mut Watch<'_>) -> Result<Array2<f32>> {
    let width = side.decoder().hidden;
    let mut x = Array2::zeros((tokens.len(), width));
    for (mut row, token) in x.rows_mut().into_iter().zip(tokens) {
        let token = *token as usize;
        row.assign(&Array1::from(side.rows(Matrix::Embedding, token..token + 1)?));
    }
    for layer in side.layers() {
        let input = normalized(&x, &side.norm(layer, LayerPart::InputNorm)?, side.decoder().epsilon);
        let mixed = attention(side, layer, &input, watch)?;
        x += &linear(side, layer, LayerPart::Output, &mixed, watch)?;
        let input = normalized(&x, &side.norm(layer, LayerPart::MlpNorm)?, side.decoder().epsilon);
        let mut gate = linear(side, layer, LayerPart::Gate, &input, watch)?;
        gate.mapv_inplace(|x| x / (1.0 + (-x).exp()));
        gate *= &linear(side, layer, LayerPart::Up, &input, watch)?;
        x += &linear(side, layer, LayerPart::Down, &gate, watch)?;
    }
    let weights = side.last_norm()?;
    Ok(normalized(&x, &weights, side.decoder().epsilon))
}

/// The mixed values of a layer's heads, `[tokens, heads × head_dim]`.
fn attention(
    side: &mut impl Side,
    layer: usize,
    input: &Array2<f32>,
    watch: &mut Watch<'_>,
) -> Result<Array2<f32>> {
    let mut query = linear(side, layer, LayerPart::Query, input, watch)?;
    let mut key = linear(side, layer, LayerPart::Key, input, watch)?;
    let value = linear(side, layer, LayerPart::Value, input, watch)?;
    let norms = match side.decoder().has_head_norms {
        true => Some((side.norm(layer, LayerPart::QueryNorm)?, side.norm(layer, LayerPart::KeyNorm)?)),
        false => None,
    };
    let decoder = side.decoder();
    let (dim, group) = (decoder.head_dim, decoder.heads / decoder.kv_heads);
    let (query_norm, key_norm) = norms.unzip();
    rotate(&mut query, query_norm.as_deref(), decoder);
    rotate(&mut key, key_norm.as_deref(), decoder);
    let mut mixed = Array2::zeros(query.raw_dim());
    for head in 0..decoder.heads {
        let own = Slice::from(head * dim..(head + 1) * dim);
        let shared = Slice::from(head / group * dim..(head / group + 1) * dim);
        let (query, key) = (query.slice_axis(Axis(1), own), key.slice_axis(Axis(1), shared));
        let mut scores = query.dot(&key.t()) / (dim as f32).sqrt();
        for (position, mut row) in scores.rows_mut().into_iter().enumerate() {
            row.slice_axis_mut(Axis(0), (position + 1..).into()).fill(f32::NEG_INFINITY);
            let most = row.fold(f32::NEG_INFINITY, |most, x| most.max(*x));
            row.mapv_inplace(|x| (x - most).exp());
            row /= row.sum();
        }
        mixed.slice_axis_mut(Axis(1), own).assign(&scores.dot(&value.slice_axis(Axis(1), shared)));
    }
    Ok(mixed)
}

/// Normalizes each head if there is a norm, and turns the pairs (i, i + D/2) of each by its position.
fn rotate(heads: &mut Array2<f32>, norm: Option<&[f32]>, decoder: &Decoder) {
    let half = decoder.head_dim / 2;
    for (position, mut row) in heads.rows_mut().into_iter().enumerate() {
        for mut head in row.exact_chunks_mut(decoder.head_dim) {
            if let Some(weights) = norm {
                let unit = root_mean_square(head.iter(), decoder.epsilon);
                head.iter_mut().zip(weights).for_each(|(x, weight)| *x = *x / unit * weight);
            }
            for (pair, frequency) in decoder.frequencies.iter().enumerate() {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                let (sin, cos) = (sin as f32, cos as f32);
                let (a, b) = (head[pair], head[pair + half]);
                (head[pair], head[pair + half]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
    }
}

fn root_mean_square<'x>(numbers: impl ExactSizeIterator<Item = &'x f32>, epsilon: f32) -> f32 {
    let count = numbers.len() as f32;
    (numbers.map(|x| x * x).sum::<f32>() / count + epsilon).sqrt()
}

fn normalized(x: &Array2<f32>, weights: &[f32], epsilon: f32) -> Array2<f32> {
    let mut out = x.clone();
    for mut row in out.rows_mut() {
        let unit = root_mean_square(row.iter(), epsilon);
        row.iter_mut().zip(weights).for_each(|(x, weight)| *x = *x / unit * weight);
    }
    out
}

/// The product with a layer's matrix, and its bias.
fn linear(
    side: &mut impl Side,
    layer: usize,
    part: LayerPart,
    x: &Array2<f32>,
    watch: &mut Watch<'_>,
) -> Result<Array2<f32>> {
    let (rows, columns) = side.shape(layer, part);
    let unit = side.decoder().head_dim.min(rows);
    let mut out = Array2::zeros((x.nrows(), rows));
    for rows in pieces(rows, columns, unit) {
        let numbers = side.rows(Matrix::Layer(layer, part), rows.clone())?;
        out.slice_axis_mut(Axis(1), rows.into()).assign(&product(x, &numbers));
        watch.advance(numbers.len())?;
    }
    if let Some(bias) = side.bias(layer, part)? {
        out += &Array1::from(bias);
    }
    Ok(out)
}

/// The products of the rows of `x`, `[tokens, columns]`, with those of a matrix: `[tokens, rows]`.
fn product(x: &Array2<f32>, matrix: &[f32]) -> Array2<f32> {
    let (tokens, columns) = x.dim();
    let rows = matrix.len() / columns;
    let mut out = Array2::zeros((rows, tokens));
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(rows);
    let share = rows.div_ceil(threads);
    thread::scope(|scope| {
        for (mut out, matrix) in out.axis_chunks_iter_mut(Axis(0), share).zip(matrix.chunks(share * columns))
        {
            scope.spawn(move || {
                let matrix =
                    ArrayView2::from_shape((out.nrows(), columns), matrix).expect("a share is of whole rows");
                out.assign(&matrix.dot(&x.t()));
            });
        }
    });
    out.reversed_axes()
}

/// The sum of a position's powers, over the largest logit so far.
#[derive(Clone, Copy, Debug)]
struct Sum {
    most: f64,
    sum: f64,
}

impl Default for Sum {
    fn default() -> Self {
        Self { most: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl Sum {
    fn add(&mut self, logit: f64) {
        if logit > self.most {
            self.sum *= (self.most - logit).exp();
            self.most = logit;
        }
        self.sum += (logit - self.most).exp();
    }

    fn probability(&self, logit: f64) -> f64 {
        (logit - self.most).exp() / self.sum
    }
}

/// Adds the logits of some tokens, `[positions, tokens]`, to the sums of the positions.
fn add(logits: &Array2<f32>, sums: &mut [Sum]) {
    for (row, sum) in logits.rows().into_iter().zip(sums) {
        row.iter().for_each(|logit| sum.add(f64::from(*logit) / TEMPERATURE));
    }
}

/// The overlap of two distributions in some tokens, summed over the positions.
fn overlap((one, ones): (&Array2<f32>, &[Sum]), (other, others): (&Array2<f32>, &[Sum])) -> f64 {
    let rows = one.rows().into_iter().zip(ones).zip(other.rows().into_iter().zip(others));
    rows.map(|((one, sum), (other, other_sum))| {
        let share = |(one, other): (&f32, &f32)| {
            let p = sum.probability(f64::from(*one) / TEMPERATURE);
            p.min(other_sum.probability(f64::from(*other) / TEMPERATURE))
        };
        one.iter().zip(other).map(share).sum::<f64>()
    })
    .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_those_of_whole_distributions() {
        let one = Array2::from_shape_vec((1, 4), vec![1.0, -2.0, 3.0, 3.5]).unwrap();
        let other = Array2::from_shape_vec((1, 4), vec![3.0, 0.0, 3.0, -1.0]).unwrap();
        let whole = |row: &Array2<f32>| {
            let powers: Vec<f64> = row.iter().map(|x| (f64::from(*x) / TEMPERATURE).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.into_iter().map(|power| power / sum).collect::<Vec<_>>()
        };
        let expected: f64 = whole(&one).iter().zip(&whole(&other)).map(|(p, q)| p.min(*q)).sum();
        let (mut ones, mut others) = ([Sum::default()], [Sum::default()]);
        let mut found = 0.0;
        for round in 0..2 {
            for part in [Slice::from(..3), Slice::from(3..)] {
                let [one, other] = [&one, &other].map(|all| all.slice_axis(Axis(1), part).to_owned());
                if round == 0 {
                    add(&one, &mut ones);
                    add(&other, &mut others);
                } else {
                    found += overlap((&one, &ones), (&other, &others));
                }
            }
        }
        assert!((found - expected).abs() < 1e-12, "{found} and {expected}");
    }

    #[test]
    fn a_product_is_the_same_in_shares() {
        let x = Array2::from_shape_fn((3, 5), |(i, j)| (i * 5 + j) as f32 / 7.0);
        let matrix: Vec<f32> = (0..35).map(|i| (i as f32 * 0.37).sin()).collect();
        let found = product(&x, &matrix);
        for ((token, row), number) in found.indexed_iter() {
            let expected: f32 = (0..5).map(|j| x[[token, j]] * matrix[row * 5 + j]).sum();
            assert!((number - expected).abs() < 1e-5);
        }
    }
}
