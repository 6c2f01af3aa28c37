//! From a source to a drafter's folder.

use crate::agreement::{self, DrafterSide, SourceSide};
use crate::config::Decoder;
use crate::convert::{Wanted, floats, ordered_numbers, quantized};
use crate::data::{SummedFile, write_whole};
use crate::graph::{Embedding, Layer, Linear, Tensors, encoded};
use crate::layers::LayerChoice;
use crate::quantize::BLOCK;
use crate::report::{Agreement, ImportReport, TensorReport};
use crate::store::{LayerPart, Part, Store};
use crate::watch::Watch;
use crate::{gguf, hugging_face, target};
use dunlin_gguf::BlockType;
use dunlin_lm::bundle::{FileSum, NewManifest};
use dunlin_lm::{Error, ModelDir, Result, Role};
use dunlin_lm_tract::graph::Place;
use dunlin_wire::limits::MODEL_NAME_BYTES_MAX;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const GRAPH: &str = "model.onnx";
const DATA: &str = "model.onnx_data";
const TOKENIZER: &str = "tokenizer.json";
const TEMPLATE: &str = "chat_template.jinja";
const MANIFEST: &str = "model.toml";
const TARGET: &str = "model.gguf";
const TARGET_QUANTIZATION: &str = "gguf-q8_0";
const QUANTIZATION: &str = "matmulnbits-4bit-block32";
const LICENCE_UNKNOWN: &str = "not named by the source";

/// Begins the name of a folder that is not yet whole.
const PREFIX: &str = ".dunlin-import-";

/// Most bytes of an embedding that is kept as floats. A larger one is stored in 4 bits.
pub(crate) const EMBEDDING_BYTES_MAX: usize = 16 << 20;

/// An import to be made.
#[derive(Clone, Debug)]
pub struct Import {
    /// A GGUF file, a folder with one, or a Hugging Face folder with safetensors.
    pub source: PathBuf,
    /// The folder to make; it may exist if it is empty.
    pub out: PathBuf,
    /// The drafter's name in reports; that of the source if `None`.
    pub name: Option<String>,
    /// The side that the model is for. A target is made of a Hugging Face folder only, with all of its layers.
    pub role: Role,
    /// The layers to take.
    pub layers: LayerChoice,
    /// The bits of the head's weights.
    pub head: HeadBits,
}

/// The bits of the head's weights. The head decides the most about how often a draft is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadBits {
    /// 4 or 8, by the acceptance that is measured with the source as the target.
    #[default]
    Measured,
    /// 4, as everywhere.
    Four,
    /// About 8: twice the bytes and twice the time of the head.
    Eight,
}

/// The files that were written.
struct Written {
    tensors: Vec<TensorReport>,
    agreement: Option<Agreement>,
    /// Bytes of the weights.
    bytes: u64,
}

/// A source that was opened.
struct Source {
    /// Its tokenizer, prompt forms and names.
    model: ModelDir,
    /// The file or folder of its weights.
    path: PathBuf,
    /// The tokenizer's file, if it has one that can be copied.
    tokenizer: Option<PathBuf>,
    decoder: Decoder,
    store: Store,
    licence: Option<String>,
    notices: Vec<String>,
}

/// Makes a drafter's folder of a source.
///
/// The folder is made beside its place, under a name with a dot, and moved there when it is whole. Its `model.toml` is
/// written last, so a folder that was left by a crash doesn't load.
///
/// # Errors
/// The source is damaged, of another architecture or not of the shape that it claims; `out` has files; the disk is
/// full; or `watch` ended it.
pub fn import(import: &Import, watch: &mut Watch<'_>) -> Result<ImportReport> {
    check_place(&import.out)?;
    import_to(import, Destination::Given, watch)
}

/// The place of a folder that is made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destination<'r> {
    /// The user's choice; the folder is named later.
    Given,
    /// Beside its source, where it is found again. What is there is older, or the rest of an import that was killed.
    Kept {
        /// Name and text of the file that tells what it was made of.
        record: (&'r str, &'r str),
    },
}

/// Makes a folder at a place where nothing, an empty folder or an older one is.
///
/// # Errors
/// As [`import`].
pub(crate) fn import_to(
    import: &Import,
    place: Destination<'_>,
    watch: &mut Watch<'_>,
) -> Result<ImportReport> {
    let mut source = Source::open(&import.source)?;
    if import.role == Role::Target && (&import.layers, import.head) != (&LayerChoice::All, HeadBits::Measured)
    {
        let expected = "all layers, and no bits of the head";
        return Err(Error::value(
            &import.out,
            "a target's form",
            expected,
            "--layers, --drop-layers or --head-bits",
        ));
    }
    if import.role == Role::Target && source.tokenizer.is_none() {
        let expected = "a folder of safetensors: a GGUF file is a target as it is";
        return Err(Error::value(&source.path, "source", expected, "a GGUF file"));
    }
    source.decoder.check(&source.path, &source.store)?;
    let layers = source.decoder.chosen(&source.path, &import.layers)?;
    let parent =
        import.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = match place {
        Destination::Given => {
            fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
            source.notices.extend(left_over(parent));
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent);
            folder.map_err(|e| Error::io(parent, e))?
        }
        Destination::Kept { .. } => unfinished(parent, &import.out)?,
    };
    let name = match &import.name {
        Some(name) if name.len() > MODEL_NAME_BYTES_MAX || name.is_empty() => {
            let expected = format!("1 to {MODEL_NAME_BYTES_MAX} bytes");
            return Err(Error::value(&import.out, "name", expected, name.len()));
        }
        Some(name) => name.clone(),
        None => source.name(&layers),
    };
    let Written { tensors, agreement, bytes } = match import.role {
        Role::Drafter => source.write_drafter(folder.path(), (&name, &layers), import.head, watch)?,
        Role::Target => source.write_target(folder.path(), &name, watch)?,
    };
    source.compare(&ModelDir::open(folder.path())?)?;
    if let Destination::Kept { record: (name, text) } = place {
        write_whole(&folder.path().join(name), text.as_bytes())?;
        remove(&import.out)?;
    }
    settle(folder, &import.out)?;
    Ok(ImportReport {
        folder: import.out.clone(),
        architecture: source.decoder.architecture,
        layers,
        source_layers: source.decoder.layers,
        agreement,
        tensors,
        bytes,
        notices: source.notices,
    })
}

/// Refuses a place that is taken.
fn check_place(out: &Path) -> Result<()> {
    match out.read_dir() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(out, error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::value(out, "folder", "none, or an empty one", "one with files")),
        },
    }
}

/// A notice of the folders that killed imports left in `parent`. One of an import that still runs is among them.
fn left_over(parent: &Path) -> Option<String> {
    let names = parent.read_dir().ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut left: Vec<String> = names.filter(|name| name.starts_with(PREFIX)).collect();
    left.sort();
    let parent = parent.display();
    (!left.is_empty()).then(|| {
        format!(
            "{parent} has {} of an import that was killed, unless one is running: remove it",
            left.join(", ")
        )
    })
}

/// A folder under one name, so that those of killed imports don't add up.
fn unfinished(parent: &Path, out: &Path) -> Result<tempfile::TempDir> {
    let mut name = OsString::from(PREFIX);
    name.push(out.file_name().unwrap_or_default());
    let made = remove(&parent.join(&name)).and_then(|()| {
        let folder = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in(parent);
        folder.map_err(|e| Error::io(parent, e))
    });
    made.map_err(|error| {
        let expected = "a model that can be loaded as it is, or a folder to keep its import in";
        let remedy = "make one elsewhere with `dunlin-agent import`, or allow writing here";
        Error::value(out, "import", expected, format!("{error}: {remedy}"))
    })
}

/// Removes a folder with all that is in it, if there is one.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(folder, error)),
        _ => Ok(()),
    }
}

/// Moves the finished folder to its place.
fn settle(folder: tempfile::TempDir, out: &Path) -> Result<()> {
    let wrong = |error| Error::io(out, error);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary folder is its owner's alone; a model is nobody's secret.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(wrong)?;
    }
    // Renaming replaces an empty folder only.
    fs::rename(folder.path(), out).map_err(wrong)?;
    let _ = folder.keep();
    Ok(())
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let mut notices = Vec::new();
        if hugging_face::is_source(path) {
            let tokenizer = path.join(TOKENIZER);
            if !tokenizer.is_file() {
                let expected = "the folder's tokenizer.json; transformers writes one with save_pretrained";
                return Err(Error::value(path, "tokenizer", expected, "nothing"));
            }
            let (decoder, store, licence) = hugging_face::open(path, &mut notices)?;
            let mut model = ModelDir::open_tokenizer(path)?;
            model.name = name_of(path);
            let (path, tokenizer) = (path.into(), Some(tokenizer));
            return Ok(Self { model, path, tokenizer, decoder, store, licence, notices });
        }
        let model = ModelDir::open(path)?;
        let weights = model.weights.clone();
        if weights.extension().is_none_or(|extension| extension != "gguf") {
            let advice = "give a .gguf file, or a Hugging Face folder with .safetensors files";
            return Err(Error::unsupported(&weights, "an import of this kind of weights", advice));
        }
        let (decoder, store, licence) = gguf::open(&weights, &mut notices)?;
        let licence = licence.or(model.licence.clone());
        Ok(Self { model, path: weights, tokenizer: None, decoder, store, licence, notices })
    }

    /// Writes all files of a target.
    fn write_target(&mut self, folder: &Path, name: &str, watch: &mut Watch<'_>) -> Result<Written> {
        let mut data = SummedFile::create(&folder.join(TARGET))?;
        let model = (self.path.as_path(), &self.decoder, &mut self.store);
        let tensors = target::write(model, name, &mut data, watch)?;
        let bytes = data.written();
        let weights = data.finish()?;
        self.describe(folder, (name, Role::Target, TARGET_QUANTIZATION), weights, Vec::new())?;
        Ok(Written { tensors, agreement: None, bytes })
    }

    /// Writes all files of a drafter.
    fn write_drafter(
        &mut self,
        folder: &Path,
        (name, layers): (&str, &[usize]),
        head: HeadBits,
        watch: &mut Watch<'_>,
    ) -> Result<Written> {
        let mut data = SummedFile::create(&folder.join(DATA))?;
        let mut writer =
            Writer { source: self, data: &mut data, reports: Vec::new(), watch, head, agreement: None };
        let tensors = writer.all(layers)?;
        let Writer { reports, agreement, .. } = writer;
        let graph = encoded(&self.decoder, &tensors, DATA);
        let bytes = data.written() + graph.len() as u64;
        let data = data.finish()?;
        let weights = write_whole(&folder.join(GRAPH), &graph)?;
        self.describe(folder, (name, Role::Drafter, QUANTIZATION), weights, vec![data])?;
        Ok(Written { tensors: reports, agreement, bytes })
    }

    /// Writes the files beside the weights.
    fn describe(
        &self,
        folder: &Path,
        (name, role, quantization): (&str, Role, &str),
        weights: FileSum,
        data: Vec<FileSum>,
    ) -> Result<()> {
        let tokenizer = match &self.tokenizer {
            Some(file) => fs::read(file).map_err(|e| Error::io(file, e))?,
            None => self.model.tokenizer.to_json()?.into_bytes(),
        };
        let tokenizer = write_whole(&folder.join(TOKENIZER), &tokenizer)?;
        let template = self.model.chat.as_ref().map(|chat| chat.source().as_bytes());
        let template = template.map(|text| write_whole(&folder.join(TEMPLATE), text)).transpose()?;
        let manifest = NewManifest {
            name,
            role,
            quantization,
            weights,
            data,
            tokenizer,
            template,
            context: self.decoder.context.min(self.model.context_max),
            rows: self.decoder.vocabulary as u32,
            licence: self.licence.as_deref().unwrap_or(LICENCE_UNKNOWN),
        };
        let manifest = manifest.made_of(&self.model)?;
        write_whole(&folder.join(MANIFEST), manifest.as_bytes()).map(drop)
    }

    /// The drafter's name: that of the source, and the number of its layers if some were left out.
    fn name(&self, layers: &[usize]) -> String {
        let mut name = self.model.name.clone();
        if layers.len() < self.decoder.layers {
            name.push_str(&format!(" ({} of {} layers)", layers.len(), self.decoder.layers));
        }
        if name.len() <= MODEL_NAME_BYTES_MAX { name } else { self.model.name.clone() }
    }

    /// Compares the written folder with the source: they must be addressed in the same way. A text that is split in
    /// another way is a notice.
    fn compare(&mut self, written: &ModelDir) -> Result<()> {
        let wrong = |key: &str, expected: String, found: String| {
            Err(Error::value(&written.path, key, format!("{expected} as the source has"), found))
        };
        let (own, new) = (&self.model, written);
        if own.vocabulary != new.vocabulary {
            return wrong("vocabulary", format!("{:?}", own.vocabulary), format!("{:?}", new.vocabulary));
        }
        if own.prompt != new.prompt || own.special != new.special {
            return wrong("prompt", format!("{:?}", own.prompt), format!("{:?}", new.prompt));
        }
        let (expected, found) = (own.shown_form()?, new.shown_form()?);
        if expected != found {
            return wrong("a one-line chat", format!("{expected:?}"), format!("{found:?}"));
        }
        // A tokenizer may have no tokens for this text; then neither has its copy.
        let tokens = |model: &ModelDir| model.first_turn(TEXT).map_err(|error| error.to_string());
        if tokens(own) != tokens(new) {
            self.notices
                .push(format!("the tokenizer.json splits {TEXT:?} into other tokens than the source does"));
        }
        Ok(())
    }
}

/// A text with what tokenizers differ in.
const TEXT: &str = "Hello, world!  It's 12345 o'clock, isn't it?\n\n\tGrüße: 日本語 🐦  fooBar(x) != y_1;";

/// The name of a folder.
fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.into());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut name: String = name.chars().filter(|c| !c.is_control()).collect();
    while name.len() > MODEL_NAME_BYTES_MAX {
        name.pop();
    }
    if name.is_empty() { "imported".into() } else { name }
}

/// The tensors on their way to the data file.
struct Writer<'s, 'w> {
    source: &'s mut Source,
    data: &'s mut SummedFile,
    reports: Vec<TensorReport>,
    watch: &'s mut Watch<'w>,
    head: HeadBits,
    agreement: Option<Agreement>,
}

impl Writer<'_, '_> {
    fn all(&mut self, layers: &[usize]) -> Result<Tensors> {
        let Decoder { hidden, vocabulary, .. } = self.source.decoder;
        let is_tied = !self.source.store.has(Part::Head);
        let text = self.text();
        let read_again = agreement::numbers(&self.source.decoder, layers);
        let total = self.numbers(layers) + text.as_ref().map_or(0, |_| read_again);
        self.watch.expect(total);
        let wanted = Wanted::new(Part::Embedding, vocabulary, hidden);
        let embedding = if self.is_embedding_quantized()? {
            Embedding::Quantized(self.quantized(&wanted)?)
        } else {
            let (place, report) = floats(&mut self.source.store, self.data, &wanted, self.watch)?;
            self.reports.push(report);
            Embedding::Floats(place)
        };
        let numbered = layers;
        let layers = layers.iter().map(|layer| self.layer(*layer)).collect::<Result<_>>()?;
        let norm = self.vector(Part::Norm)?;
        let wanted = Wanted::new(if is_tied { Part::Embedding } else { Part::Head }, vocabulary, hidden);
        let head = match embedding {
            Embedding::Quantized(both) if is_tied => both,
            _ => self.quantized(&wanted)?,
        };
        let mut tensors = Tensors { embedding, layers, norm, head, head_remainder: None };
        if let Some((tokens, first)) = text {
            self.choose_head(&tensors, numbered, (&tokens, first))?;
        }
        if self.has_remainder()? {
            tensors.head_remainder = Some(self.quantized(&Wanted { is_remainder: true, ..wanted })?);
        }
        Ok(tensors)
    }

    /// The text to measure the agreement on, and the first place that is compared; `None` if the head's bits are given
    /// or the model has no tokens for it.
    fn text(&mut self) -> Option<(Vec<u32>, usize)> {
        if self.head != HeadBits::Measured {
            return None;
        }
        let model = &self.source.model;
        let text = agreement::text(model, &self.source.decoder);
        match text {
            Ok(text) => Some(text),
            Err(error) => {
                self.source.notices.push(format!(
                    "the head's bits are 4 and were not chosen by measurement, for which this model has no text: {error}"
                ));
                None
            }
        }
    }

    /// Measures the agreement with the source, and gives the head as many bits as it needs.
    fn choose_head(&mut self, tensors: &Tensors, layers: &[usize], text: (&[u32], usize)) -> Result<()> {
        let (path, file) = self.data.reader()?;
        let Source { decoder, store, model, .. } = &mut *self.source;
        let drafter = DrafterSide { decoder, tensors, layers, path, file };
        // Rows beyond the tokenizer's are never chosen.
        let vocabulary = decoder.vocabulary.min(model.vocabulary.size as usize);
        let found = agreement::measure(SourceSide { decoder, store }, drafter, text, vocabulary, self.watch)?;
        self.head = if found.needs_eight_bits() { HeadBits::Eight } else { HeadBits::Four };
        self.agreement = Some(found);
        Ok(())
    }

    /// True for an embedding that is stored in 4 bits: because nothing is lost, or because it is large.
    fn is_embedding_quantized(&self) -> Result<bool> {
        let Decoder { hidden, vocabulary, .. } = self.source.decoder;
        let (_, kind) = self.source.store.described(Part::Embedding)?;
        let is_large = vocabulary * hidden * size_of::<f32>() > EMBEDDING_BYTES_MAX;
        Ok(hidden.is_multiple_of(BLOCK) && (kind == BlockType::Q4_0 || is_large))
    }

    /// True if 4 bits leave something of the head, and it is wanted.
    fn has_remainder(&self) -> Result<bool> {
        let is_tied = !self.source.store.has(Part::Head);
        let (_, kind) = self.source.store.described(if is_tied { Part::Embedding } else { Part::Head })?;
        Ok(self.head == HeadBits::Eight && kind != BlockType::Q4_0)
    }

    /// Numbers to convert.
    fn numbers(&self, layers: &[usize]) -> u64 {
        let decoder = &self.source.decoder;
        let table = (decoder.vocabulary * decoder.hidden) as u64;
        let tables = match (self.source.store.has(Part::Head), self.is_embedding_quantized()) {
            (false, Ok(true)) => table,
            _ => 2 * table,
        };
        // Counted where it is not yet known if it is written: progress then ends early, and never goes back.
        let remainder = match self.head {
            HeadBits::Four => 0,
            HeadBits::Measured | HeadBits::Eight => table,
        };
        tables + remainder + decoder.layer_numbers() * layers.len() as u64
    }

    fn layer(&mut self, layer: usize) -> Result<Layer> {
        let norm = |part| Part::Layer(layer, part);
        let head_norms = match self.source.decoder.has_head_norms {
            true => Some((self.vector(norm(LayerPart::QueryNorm))?, self.vector(norm(LayerPart::KeyNorm))?)),
            false => None,
        };
        Ok(Layer {
            input_norm: self.vector(norm(LayerPart::InputNorm))?,
            query: self.linear(layer, LayerPart::Query)?,
            key: self.linear(layer, LayerPart::Key)?,
            value: self.linear(layer, LayerPart::Value)?,
            head_norms,
            output: self.linear(layer, LayerPart::Output)?,
            mlp_norm: self.vector(norm(LayerPart::MlpNorm))?,
            gate: self.linear(layer, LayerPart::Gate)?,
            up: self.linear(layer, LayerPart::Up)?,
            down: self.linear(layer, LayerPart::Down)?,
        })
    }

    /// A layer's matrix with its bias. The inner width of the MLP is filled up with zeros to whole blocks: they add
    /// nothing, and tract expands a matrix to floats whose rows are not whole blocks.
    fn linear(&mut self, layer: usize, part: LayerPart) -> Result<Linear> {
        let shape = self.source.decoder.shape(part);
        let mut wanted = Wanted::new(Part::Layer(layer, part), shape[0], shape[1]);
        let inner = self.source.decoder.inner.next_multiple_of(BLOCK);
        match part {
            LayerPart::Gate | LayerPart::Up => wanted.padded_rows = inner,
            LayerPart::Down => wanted.padded_columns = inner,
            _ => {}
        }
        let head = self.source.decoder.head_dim;
        wanted.unpermute = self.source.decoder.is_permuted(part).then_some(head);
        let weight = self.quantized(&wanted)?;
        let place = Part::Bias(layer, part);
        if !self.source.store.has(place) {
            return Ok(Linear { weight, bias: None });
        }
        let mut bias = self.source.store.vector(place)?;
        if wanted.unpermute.is_some() {
            bias = ordered_numbers(&bias, head);
        }
        bias.resize(wanted.padded_rows, 0.0);
        Ok(Linear { weight, bias: Some((self.data.floats(&bias)?, bias.len())) })
    }

    fn quantized(&mut self, wanted: &Wanted) -> Result<crate::convert::Quantized> {
        let (stored, report) = quantized(&mut self.source.store, self.data, wanted, self.watch)?;
        self.reports.push(report);
        Ok(stored)
    }

    fn vector(&mut self, part: Part) -> Result<Place> {
        let numbers = self.source.store.vector(part)?;
        self.data.floats(&numbers)
    }
}
