//! The choice of a model's layers.

use dunlin_lm::{Error, Result};
use std::path::Path;

/// The layers that a drafter takes of its source, from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LayerChoice {
    /// All.
    #[default]
    All,
    /// These, in order.
    Only(Vec<usize>),
    /// All but these.
    Without(Vec<usize>),
}

impl LayerChoice {
    /// The chosen layers of `count`, in rising order.
    ///
    /// # Errors
    /// There is no such layer, one is named twice or out of order, or none is left.
    pub(crate) fn of(&self, path: &Path, count: usize) -> Result<Vec<usize>> {
        let (key, named) = match self {
            Self::All => return Ok((0..count).collect()),
            Self::Only(layers) => ("--layers", layers),
            Self::Without(layers) => ("--drop-layers", layers),
        };
        let wrong = |found: String| Error::value(path, key, format!("rising numbers below {count}"), found);
        if let Some(layer) = named.iter().find(|layer| **layer >= count) {
            return Err(wrong(layer.to_string()));
        }
        if let Some(pair) = named.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(wrong(format!("{} before {}", pair[0], pair[1])));
        }
        let chosen: Vec<usize> = match self {
            Self::Only(_) => named.clone(),
            _ => (0..count).filter(|layer| !named.contains(layer)).collect(),
        };
        if chosen.is_empty() { Err(wrong("no layer left".into())) } else { Ok(chosen) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_chosen_or_refused() {
        let of = |choice: LayerChoice| choice.of(Path::new("m"), 4).map_err(|error| error.to_string());
        assert_eq!(of(LayerChoice::All), Ok(vec![0, 1, 2, 3]));
        assert_eq!(of(LayerChoice::Only(vec![0, 3])), Ok(vec![0, 3]));
        assert_eq!(of(LayerChoice::Without(vec![1, 2])), Ok(vec![0, 3]));
        let refused = |choice| of(choice).unwrap_err();
        assert!(
            refused(LayerChoice::Only(vec![4]))
                .contains("--layers: expected rising numbers below 4, found 4")
        );
        assert!(refused(LayerChoice::Only(vec![1, 1])).contains("1 before 1"));
        assert!(refused(LayerChoice::Only(vec![])).contains("no layer left"));
        assert!(refused(LayerChoice::Without(vec![0, 1, 2, 3])).contains("--drop-layers"));
    }
}
