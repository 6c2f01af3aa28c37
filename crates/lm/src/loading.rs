//! The progress of loading a model.

/// A step of loading a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadStep {
    /// The weights are searched for holes, before an engine reads them that doesn't do so itself.
    Searching,
    /// The weights are read in a child process, which tries the file.
    Trying,
    /// The weights are read.
    Reading,
    /// The weights are hashed for the target's identity.
    Hashing,
}

/// Receives the bytes of a step that are done, and all of its bytes.
pub type LoadProgress = Box<dyn FnMut(LoadStep, u64, u64)>;
