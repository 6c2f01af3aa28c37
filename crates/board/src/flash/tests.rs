use super::*;
use sha2::{Digest, Sha256};
use std::fs::{read, write};
use std::io::Cursor;
use std::process::Command;
use tempfile::TempDir;

const QUIET: Tell = Tell { quiet: true };

/// A folder with an image and its checksum; the image has two whole pieces and a part, with a hole in the middle.
fn image() -> (TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes: Vec<u8> = (0..9_000_000u32).map(|i| ((i * 31) >> 7) as u8).collect();
    bytes[4_194_304..8_388_608].fill(0);
    let path = dir.path().join("dunlin.img");
    write(&path, &bytes).unwrap();
    sign(&path);
    (dir, path, bytes)
}

fn sign(path: &Path) {
    let sum: String = Sha256::digest(read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    let name = path.file_name().unwrap().to_str().unwrap();
    write(path.with_file_name(format!("{name}.sha256")), format!("{sum}  {name}\n")).unwrap();
}

fn flash_typing(image: &Path, device: &Path, typed: Option<&str>) -> Result<()> {
    let mut answer = typed.map(|typed| Cursor::new(typed.to_owned()));
    let answer = answer.as_mut().map(|answer| answer as &mut dyn BufRead);
    flash(image, device, &Places::default(), answer, &QUIET)
}

fn said(result: Result<()>) -> String {
    format!("{:#}", result.unwrap_err())
}

#[test]
fn a_file_holds_the_image_afterwards() {
    let (dir, image, bytes) = image();
    let card = dir.path().join("card");
    flash_typing(&image, &card, Some("nobody is asked before a new file")).unwrap();
    assert!(read(&card).unwrap() == bytes);
    let left = dir.path().read_dir().unwrap().count();
    assert_eq!(left, 3, "image, checksum and card");
}

#[test]
fn what_is_there_is_overwritten_only_where_its_name_is_typed() {
    let (dir, image, bytes) = image();
    let card = dir.path().join("card");
    write(&card, "precious").unwrap();
    for typed in ["", "\n", "yes\n", "car\n"] {
        let said = said(flash_typing(&image, &card, Some(typed)));
        assert_eq!(said, "that is not card: nothing was written");
    }
    assert_eq!(read(&card).unwrap(), b"precious");
    flash_typing(&image, &card, Some("card\n")).unwrap();
    assert!(read(&card).unwrap() == bytes);
    write(&card, vec![1; 10_000_000]).unwrap();
    flash_typing(&image, &card, None).unwrap();
    assert!(read(&card).unwrap() == bytes, "also where there was more");
}

#[test]
fn compressed_images_are_decompressed() {
    let (dir, image, bytes) = image();
    for (program, ending) in [("zstd", "zst"), ("xz", "xz")] {
        let packed = dir.path().join(format!("dunlin.img.{ending}"));
        let card = dir.path().join(program);
        let Ok(output) = Command::new(program).args(["-1", "-c", "--"]).arg(&image).output() else {
            write(&packed, "x").unwrap();
            sign(&packed);
            assert!(
                said(flash_typing(&packed, &card, None)).contains(", which is missing: apt-get install ")
            );
            continue;
        };
        write(&packed, output.stdout).unwrap();
        sign(&packed);
        flash_typing(&packed, &card, None).unwrap();
        assert!(read(&card).unwrap() == bytes, "{program}");
        let whole = read(&packed).unwrap();
        write(&packed, &whole[..whole.len() / 2]).unwrap();
        sign(&packed);
        std::fs::remove_file(&card).unwrap();
        let said = said(flash_typing(&packed, &card, None));
        assert!(said.starts_with(&format!("{program} could not decompress the image")), "{said}");
        assert!(!card.exists(), "nothing was written");
    }
}

#[test]
fn a_bad_image_is_refused_before_anything_is_written() {
    let (dir, image, bytes) = image();
    let card = dir.path().join("card");
    let sum = image.with_extension("img.sha256");
    let refused = |part: &str| {
        let said = said(flash_typing(&image, &card, None));
        assert!(said.contains(part), "{said}");
        assert!(!card.exists() && !dir.path().join("card.part").exists());
    };
    write(&image, &bytes[1..]).unwrap();
    refused("dunlin.img is damaged: its SHA-256 is ");
    write(&sum, "12\n").unwrap();
    refused("dunlin.img.sha256:1: expected 64 hexadecimal digits");
    std::fs::remove_file(&sum).unwrap();
    refused("dunlin.img.sha256: No such file or directory (os error 2); `sha256sum IMAGE");
    write(&image, "").unwrap();
    sign(&image);
    refused("dunlin.img is empty");
    std::fs::remove_file(&image).unwrap();
    refused("dunlin.img: No such file");
}

#[test]
fn what_was_written_is_compared() {
    let (dir, image, mut bytes) = image();
    let image = Image::checked(&image, &QUIET).unwrap();
    let card = dir.path().join("card");
    let read_from = |bytes: &[u8]| {
        write(&card, bytes).unwrap();
        read_back(&image, &File::open(&card).unwrap(), &QUIET).map_err(|error| error.to_string())
    };
    assert_eq!(read_from(&bytes), Ok(()));
    assert!(read_from(&bytes[1..]).unwrap_err().starts_with("reading back ended at byte 8999999 of 9000000"));
    bytes.push(0);
    assert_eq!(read_from(&bytes), Ok(()), "a card is larger than its image");
    bytes[8_999_999] ^= 1;
    assert!(read_from(&bytes).unwrap_err().starts_with("what was read back is not what was written"));
}

#[test]
fn a_file_that_can_not_be_written_whole_is_not_there() {
    let (dir, image, _) = image();
    let card = dir.path().join("card");
    std::fs::create_dir(dir.path().join("card.part")).unwrap();
    let said = said(flash_typing(&image, &card, None));
    assert!(said.contains("card.part: Is a directory"), "{said}");
    assert!(!card.exists());
}

#[test]
fn a_device_is_written_in_place_and_one_half_written_is_named() {
    let (dir, image, bytes) = image();
    let image = Image::checked(&image, &QUIET).unwrap();
    let card = dir.path().join("card");
    write(&card, vec![7; 10_000_000]).unwrap();
    write_device(&image, &card, &QUIET).unwrap();
    let written = read(&card).unwrap();
    assert!(written[..bytes.len()] == bytes, "holes are written too");
    assert!(written.len() == 10_000_000 && written[bytes.len()..].iter().all(|byte| *byte == 7));
    let said = said(write_device(&image, Path::new("/dev/full"), &QUIET));
    assert!(
        said.starts_with(
            "/dev/full is incomplete and can't be used: write it again: writing failed at byte 0: "
        ),
        "{said}"
    );
    assert!(said.ends_with("there is no space left"), "{said}");
}
