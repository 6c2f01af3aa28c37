//! Exit codes of every command.

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Ok = 0,
    /// Something failed; the last line of the log names it.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// `check`: the broker can't be reached or used.
    Broker = 3,
    /// `serve`: ended before every lease was, because of a second signal or the drain's time limit.
    CutShort = 4,
}
