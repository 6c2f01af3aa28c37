//! Turns a panic inside an engine into an error value. The engines index and assert on a file's declarations. This
//! crate checks what it can beforehand and catches the rest here.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work`; a panic in it becomes `Err` with the panic's message.
pub fn no_panic<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Err(format!("the engine gave up: {}", text.unwrap_or("no message")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let empty: &[u8] = &[];
        let failed = no_panic(|| Ok(empty[std::hint::black_box(3)]));
        assert!(failed.unwrap_err().contains("out of bounds"));
        assert_eq!(no_panic(|| Ok(1)), Ok(1));
        assert_eq!(no_panic::<()>(|| Err("no".into())), Err("no".into()));
    }
}
