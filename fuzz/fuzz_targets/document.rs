//! Signed files: releases and roots.
#![no_main]

use dunlin_fleet_core::{Release, Root, SignedDocument};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(document) = SignedDocument::decode(bytes) {
        assert_eq!(document.encode(), bytes);
    }
    // Nobody can sign by chance, so this ends at the signatures at the latest.
    assert!(Root::kept(bytes).is_err());
    if let Ok(release) = std::str::from_utf8(bytes).map_err(drop).and_then(|text| Release::parse(text).map_err(drop)) {
        let text = release.text().expect("a release that was read");
        assert_eq!(Release::parse(&text), Ok(release));
    }
});
