//! A public ssh key, in its one-line form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The key types that Debian's ssh server accepts.
const KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// Checks that `line` is a complete public key.
///
/// # Errors
/// The reason why the key is invalid, without the key.
pub(crate) fn check(line: &str) -> Result<(), &'static str> {
    let mut words = line.split_ascii_whitespace();
    let (kind, blob) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if !KINDS.contains(&kind) {
        return Err(
            "not a public key: it is the one line of a file whose name ends with .pub, and begins with \
            ssh-ed25519, ssh-rsa, ecdsa-… or sk-…",
        );
    }
    let blob = STANDARD.decode(blob).map_err(|_| CUT)?;
    let fields = fields(&blob).ok_or(CUT)?;
    if fields.len() < 2 || fields[0] != kind.as_bytes() { Err(CUT) } else { Ok(()) }
}

const CUT: &str = "an incomplete key: copy the whole line again";

/// The fields of a key, each preceded by its length; `None` if they don't end with the key.
fn fields(mut blob: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !blob.is_empty() {
        let (length, rest) = blob.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        fields.push(field);
        blob = rest;
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    fn a_whole_key_is_taken_with_or_without_its_comment() {
        assert_eq!(check(ED25519), Ok(()));
        assert_eq!(check(&format!("{ED25519} me@home")), Ok(()));
    }

    #[test]
    fn every_cut_key_is_refused() {
        for length in 0..ED25519.len() {
            assert!(check(&ED25519[..length]).is_err(), "{length}");
        }
        assert_eq!(check(&format!("{ED25519}AAAA")), Err(CUT), "too long");
        assert_eq!(check(&ED25519.replacen("ssh-ed25519", "ssh-rsa", 1)), Err(CUT), "another kind's");
        assert!(check("PuTTY-User-Key-File-3: ssh-ed25519").unwrap_err().starts_with("not a public key"));
        assert!(check("ssh-dss AAAA").unwrap_err().starts_with("not a public key"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_key_of_whole_fields_is_taken(rest: Vec<u8>) {
            let kind = KINDS[rest.len() % KINDS.len()];
            let field = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
            let blob = [field(kind.as_bytes()), field(&rest)].concat();
            prop_assert_eq!(check(&format!("{kind} {}", STANDARD.encode(blob))), Ok(()));
        }

        #[test]
        fn any_fields_are_looked_at(blob: Vec<u8>) {
            let _ = check(&format!("ssh-rsa {}", STANDARD.encode(&blob)));
            let _ = fields(&blob);
        }
    }
}
