//! Exit codes of every command.

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done as asked.
    Ok = 0,
    /// Something failed; the last line says what.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// `check`: the broker can't be reached or used.
    Broker = 3,
    /// `serve`: ended before every lease was, by a second signal or by the drain's limit.
    CutShort = 4,
}
