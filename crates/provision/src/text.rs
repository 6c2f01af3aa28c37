//! Decodes a set-up file's bytes as text, in the forms that various editors save.

/// Maximum size of a set-up file in bytes.
pub(crate) const FILE_BYTES_MAX: usize = 16 * 1024;
/// Bytes that are overwritten first when a file is removed.
pub(crate) const HEAD_BYTES: usize = 512;

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const PLAIN: &str = "save it as plain text, in UTF-8";

/// True for a file left by an interrupted removal: it begins with zeros, and no text does.
pub(crate) fn is_overwritten(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().take(HEAD_BYTES).all(|byte| *byte == 0)
}

/// The text, with ` ` as line end.
///
/// # Errors
/// The format that was found instead, and the line if known.
pub(crate) fn decode(bytes: &[u8]) -> Result<String, (Option<usize>, String)> {
    if bytes.len() > FILE_BYTES_MAX {
        let larger = format!("larger than {FILE_BYTES_MAX} bytes: not a set-up file");
        return Err((None, larger));
    }
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        _ => utf8(bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes))?,
    };
    if text.starts_with("{\\rtf") {
        return Err((Some(1), format!("this is rich text (RTF): {PLAIN}")));
    }
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}

fn utf8(bytes: &[u8]) -> Result<String, (Option<usize>, String)> {
    let line_at = |at: usize| bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err((Some(line_at(at)), format!("a zero byte, as in UTF-16 without its mark: {PLAIN}")));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.into()),
        Err(error) => {
            Err((Some(line_at(error.valid_up_to())), format!("a character that is not UTF-8: {PLAIN}")))
        }
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, (Option<usize>, String)> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let text = String::from_utf16(&pairs.iter().map(|pair| unit(*pair)).collect::<Vec<_>>());
    match text {
        Ok(text) if rest.is_empty() && !text.contains('\0') => Ok(text),
        _ => Err((None, format!("begins as UTF-16 but is not valid: {PLAIN}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utf16(text: &str, mark: [u8; 2], bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        mark.into_iter().chain(text.encode_utf16().flat_map(bytes)).collect()
    }

    #[test]
    fn every_editors_text_is_the_same_text() {
        let text = "name = plover-1\nwifi_ssid = Müller 🦆\n";
        let marked = [UTF8_MARK, text.as_bytes()].concat();
        for bytes in [
            text.as_bytes().to_vec(),
            marked,
            text.replace('\n', "\r\n").into_bytes(),
            text.replace('\n', "\r").into_bytes(),
            utf16(text, [0xff, 0xfe], u16::to_le_bytes),
            utf16(text, [0xfe, 0xff], u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Ok(text), "{bytes:02x?}");
        }
    }

    #[test]
    fn what_is_no_text_is_named_with_its_line() {
        let said = |bytes: &[u8]| decode(bytes).unwrap_err();
        assert_eq!(said(b"a\nb\nM\xfcller").0, Some(3));
        assert!(said(b"a\nb\nM\xfcller").1.contains("not UTF-8"));
        assert_eq!(said(b"a\nb\0").0, Some(2));
        assert!(said(b"{\\rtf1\\ansi").1.contains("RTF"));
        assert!(said(&utf16("ab", [0xff, 0xfe], u16::to_le_bytes)[..5]).1.contains("UTF-16"));
        assert!(said(&[0xff, 0xfe, 0x00, 0xd8]).1.contains("UTF-16"), "half a character");
        assert!(decode(&vec![b'#'; FILE_BYTES_MAX]).is_ok());
        assert!(said(&vec![b'#'; FILE_BYTES_MAX + 1]).1.contains("larger than 16384 bytes"));
    }

    #[test]
    fn an_overwritten_file_is_known_by_its_first_bytes() {
        let half = [vec![0; HEAD_BYTES], b"password".to_vec()].concat();
        assert!(is_overwritten(&[0; 3]) && is_overwritten(&half));
        assert!(!is_overwritten(&[]) && !is_overwritten(b"\0#") && !is_overwritten(&half[1..]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_text_or_a_mistake(bytes: Vec<u8>) {
            if let Ok(text) = decode(&bytes) {
                prop_assert!(!text.contains(['\0', '\r']));
            }
        }
    }
}
