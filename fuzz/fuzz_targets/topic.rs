//! Topic names from a broker.
#![no_main]

use dunlin_wire::topic::Topic;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|name: &str| {
    if let Some(topic) = Topic::parse(name) {
        assert_eq!(topic.name(), name);
    }
});
