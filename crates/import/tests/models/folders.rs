//! The folder of an imported drafter: how it is addressed, what damage is found, and what is left of a failure.

use crate::files::fixture;
use crate::small::{Small, TEMPLATE, imported};
use dunlin_import::{HeadBits, Import, LayerChoice, Watch, import};
use dunlin_lm::{ModelDir, Role};
use dunlin_lm_tract::Drafter;
use std::fs;
use std::path::Path;

/// Names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn same_address(source: &ModelDir, drafter: &ModelDir) {
    assert_eq!(drafter.vocabulary, source.vocabulary);
    assert_eq!(drafter.special, source.special);
    assert_eq!(drafter.prompt, source.prompt);
    assert_eq!(drafter.shown_form().unwrap(), source.shown_form().unwrap());
    for text in ["hello", " two  spaces\n\nand é <s> </s> <0x0A>", "", "日本語 🐦"] {
        // The small tokenizers have no tokens for some of the texts.
        let turns = |dir: &ModelDir| {
            [dir.first_turn(text), dir.next_turn(text), dir.tokenizer.encode_text(text)]
                .map(|tokens| tokens.map_err(|error| error.to_string()))
        };
        assert_eq!(turns(drafter), turns(source), "{text:?}");
        let tokens = source.tokenizer.encode_text("hello").unwrap();
        assert!(!tokens.is_empty());
        assert_eq!(drafter.tokenizer.decode(&tokens), source.tokenizer.decode(&tokens));
    }
}

#[test]
fn a_gguf_file_and_its_drafter_are_addressed_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("m.gguf"), folder.path().join("out"));
    fs::write(&source, Small::new("llama").gguf("F16")).unwrap();
    imported(&source, &out, LayerChoice::All).unwrap();
    let (source, drafter) = (ModelDir::open(&source).unwrap(), ModelDir::open(&out).unwrap());
    same_address(&source, &drafter);
    assert_eq!(source.shown_form().unwrap(), "<s>[user]Hello</s>");
    assert_eq!((drafter.role, drafter.context_max), (Some(Role::Drafter), 64));
    assert_eq!(drafter.licence.as_deref(), Some("apache-2.0"));
    let all = ["chat_template.jinja", "model.onnx", "model.onnx_data", "model.toml", "tokenizer.json"];
    assert_eq!(names(&out), all);
    assert_eq!(fs::read_to_string(out.join("chat_template.jinja")).unwrap(), TEMPLATE);
}

#[test]
fn a_hugging_face_folder_and_its_drafter_are_addressed_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("org-model"), folder.path().join("out"));
    fs::create_dir(&source).unwrap();
    Small::new("qwen2").safetensors(&source, "BF16", 2);
    fs::copy(fixture("hf-llama/generation_config.json"), source.join("generation_config.json")).unwrap();
    let config = serde_json::json!({"eos_token": "</s>", "unk_token": {"content": "<unk>"},
        "chat_template": "{{ unk_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"});
    fs::write(source.join("tokenizer_config.json"), config.to_string()).unwrap();
    imported(&source, &out, LayerChoice::All).unwrap();
    let (source, drafter) = (ModelDir::open_tokenizer(&source).unwrap(), ModelDir::open(&out).unwrap());
    same_address(&source, &drafter);
    assert_eq!(drafter.shown_form().unwrap(), "<unk>Hello</s>");
    assert_eq!((drafter.prompt.stop.as_slice(), drafter.name.as_str()), (&[2, 0][..], "org-model"));
    assert_eq!(drafter.context_max, 64);
}

#[test]
fn a_model_without_a_template_keeps_its_plain_form() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    Small::new("llama").safetensors(folder.path(), "F32", 1);
    imported(folder.path(), &out, LayerChoice::All).unwrap();
    let drafter = ModelDir::open(&out).unwrap();
    same_address(&ModelDir::open_tokenizer(folder.path()).unwrap(), &drafter);
    assert!(drafter.chat.is_none());
    assert!(!out.join("chat_template.jinja").exists());
}

#[test]
fn damage_in_any_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("m.gguf"), folder.path().join("out"));
    fs::write(&source, Small::new("llama").gguf("Q4_0")).unwrap();
    imported(&source, &out, LayerChoice::All).unwrap();
    for name in ["model.onnx", "model.onnx_data", "tokenizer.json", "chat_template.jinja"] {
        let whole = fs::read(out.join(name)).unwrap();
        let mut damaged = whole.clone();
        let place = damaged.len() / 2;
        damaged[place] ^= 1;
        fs::write(out.join(name), damaged).unwrap();
        let message = ModelDir::open(&out).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("sha256: expected"), "{message}");
        fs::write(out.join(name), whole).unwrap();
    }
    ModelDir::open(&out).unwrap();
}

#[test]
fn data_without_a_checksum_are_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("m.gguf"), folder.path().join("out"));
    fs::write(&source, Small::new("llama").gguf("Q4_0")).unwrap();
    imported(&source, &out, LayerChoice::All).unwrap();
    let manifest = fs::read_to_string(out.join("model.toml")).unwrap();
    let begin = manifest.find("[[weights.data]]").unwrap();
    let end = begin + manifest[begin + 2..].find("\n[").unwrap() + 2;
    fs::write(out.join("model.toml"), format!("{}{}", &manifest[..begin], &manifest[end..])).unwrap();
    let (_, warnings) = Drafter::load(&ModelDir::open(&out).unwrap()).unwrap();
    let text: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert!(
        text.len() == 1 && text[0].contains("model.onnx_data") && text[0].contains("weights.data"),
        "{text:?}"
    );
}

#[test]
fn a_folder_with_files_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("m.gguf"), folder.path().join("out"));
    fs::write(&source, Small::new("llama").gguf("Q4_0")).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), "kept").unwrap();
    let message = imported(&source, &out, LayerChoice::All).unwrap_err().to_string();
    assert!(
        message.contains("out: folder: expected none, or an empty one, found one with files"),
        "{message}"
    );
    assert_eq!(names(&out), ["mine"]);
    fs::remove_file(out.join("mine")).unwrap();
    imported(&source, &out, LayerChoice::All).unwrap();
    assert_eq!(names(folder.path()), ["m.gguf", "out"]);
}

/// Wherever an import ends, nothing is left that loads, and what it made is removed.
#[test]
fn an_interrupted_import_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("m.gguf"), folder.path().join("out"));
    fs::write(&source, Small::new("llama").gguf("Q8_0")).unwrap();
    let mut steps = 0;
    let job = Import {
        source,
        out,
        name: None,
        role: Role::Drafter,
        layers: LayerChoice::All,
        head: HeadBits::Four,
    };
    import(
        &job,
        &mut Watch::new(&mut |done, total| {
            steps += 1;
            assert!(done <= total);
            true
        }),
    )
    .unwrap();
    fs::remove_dir_all(&job.out).unwrap();
    for last in [0, steps / 2, steps - 1] {
        let mut left = last;
        let go_on = &mut |_, _| {
            left -= 1;
            left >= 0
        };
        let message = import(&job, &mut Watch::new(go_on)).unwrap_err().to_string();
        assert!(message.contains("interrupted"), "{message}");
        assert_eq!(names(folder.path()), ["m.gguf"]);
    }
}

/// A crash leaves the folder with a dot, without its `model.toml`.
#[test]
fn the_manifest_is_written_last() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("m.gguf"), folder.path().join("out"));
    fs::write(&source, Small::new("llama").gguf("F16")).unwrap();
    let job = Import {
        source,
        out,
        name: None,
        role: Role::Drafter,
        layers: LayerChoice::All,
        head: HeadBits::Four,
    };
    let go_on = &mut |_, _| {
        let entries = names(folder.path());
        let hidden = entries.iter().find(|name| name.starts_with(".dunlin-import-")).unwrap();
        assert!(ModelDir::open(folder.path().join(hidden)).is_err());
        assert!(!job.out.exists());
        true
    };
    import(&job, &mut Watch::new(go_on)).unwrap();
}

/// The name comes from the flag, the licence from the head of the model card.
#[test]
fn a_drafter_has_its_own_name_and_the_cards_licence() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    fs::create_dir(&source).unwrap();
    Small::new("llama").safetensors(&source, "F32", 1);
    fs::write(source.join("README.md"), "---\nlanguage: en\nlicense: apache-2.0\n---\nlicense: none\n")
        .unwrap();
    let job = |name: &str| Import {
        source: source.clone(),
        out: out.clone(),
        name: Some(name.into()),
        role: Role::Drafter,
        layers: LayerChoice::All,
        head: HeadBits::Four,
    };
    for bad in ["", &"x".repeat(1000)] {
        let message = import(&job(bad), &mut Watch::new(&mut |_, _| true)).unwrap_err().to_string();
        assert!(message.contains("name: expected 1 to"), "{message}");
    }
    import(&job("four layers"), &mut Watch::new(&mut |_, _| true)).unwrap();
    let drafter = ModelDir::open(&out).unwrap();
    assert_eq!((drafter.name.as_str(), drafter.licence.as_deref()), ("four layers", Some("apache-2.0")));
}

#[test]
fn what_a_killed_import_left_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("m.gguf");
    fs::write(&source, Small::new("llama").gguf("Q4_0")).unwrap();
    let report = imported(&source, &folder.path().join("a"), LayerChoice::All).unwrap();
    assert_eq!(report.notices, [""; 0]);
    fs::create_dir(folder.path().join(".dunlin-import-old")).unwrap();
    let report = imported(&source, &folder.path().join("b"), LayerChoice::All).unwrap();
    assert!(
        report.notices[0].contains(".dunlin-import-old of an import that was killed"),
        "{:?}",
        report.notices
    );
}
