//! The target on a server: sends requests and checks the answers.

use crate::answer::Expected;
use crate::probe::{Comparison, probe};
use crate::server::Server;
use crate::settings::{RemoteSettings, ServerKind, refused};
use dunlin_lm::{
    ChoiceFuture, ChoiceRequest, Chooser, CouplingProfile, ModelDir, Promise, Result, TargetIdentity,
    Vocabulary,
};
use sha2::{Digest, Sha256};

/// The first bytes of what stands for the digest of the weights: the version of the rules.
const IDENTITY_RULES: &[u8] = b"dunlin remote weights 1\0";

/// A target that runs on a server.
#[derive(Debug)]
pub struct RemoteTarget {
    server: Server,
    kind: ServerKind,
    model: String,
    vocabulary: Vocabulary,
    eos: Option<u32>,
    marker: Option<String>,
    context_max: usize,
    in_flight: usize,
    coupling: CouplingProfile,
    identity: TargetIdentity,
    comparison: Comparison,
}

impl RemoteTarget {
    /// Connects to a server, compares it with the model's folder, and has it choose two tokens as a trial. A server
    /// that is starting is waited for, as long as the settings' patience lasts.
    ///
    /// # Errors
    /// A setting is invalid, the server can't be reached or used, or it has another model than the folder.
    pub async fn connect(settings: &RemoteSettings, dir: &ModelDir) -> Result<Self> {
        settings.check()?;
        let base = settings.base()?;
        if settings.key_file.is_some() && !base.tls && !base.local {
            tracing::warn!(url = %base.url, "the key goes to the server unencrypted; use https");
        }
        let server = Server::new(settings)?;
        let facts = probe(&server, settings, dir).await?;
        let identity = TargetIdentity {
            weights: stand_in(&facts.model, facts.weights.as_deref(), &dir.vocabulary),
            model: facts.model.clone(),
            engine: facts.engine,
            numerics: "the server's".into(),
        };
        let target = Self {
            // A connection belongs to the runtime that made it, and that of the probe may end.
            server: Server::new(settings)?,
            kind: settings.kind,
            model: facts.model,
            vocabulary: dir.vocabulary,
            eos: dir.special.eos,
            marker: facts.marker,
            context_max: facts.context_max,
            in_flight: settings.in_flight,
            coupling: match settings.shared_noise {
                true => CouplingProfile::Murmur,
                false => CouplingProfile::SplitMix,
            },
            identity,
            comparison: facts.comparison,
        };
        target.try_out(&server, dir).await?;
        Ok(target)
    }

    /// The facts that were compared with the model's folder, and those that the server doesn't report.
    pub fn comparison(&self) -> &Comparison {
        &self.comparison
    }

    /// Asks for two tokens, so that a server that doesn't answer in the expected form is found at the start.
    async fn try_out(&self, server: &Server, dir: &ModelDir) -> Result<()> {
        let first = dir.special.bos.unwrap_or(0).min(self.vocabulary.size.saturating_sub(1));
        let trial = ChoiceRequest {
            tokens: vec![first; 2],
            choices: 2,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            seed: 0,
        };
        self.choose_at(server, &trial).await.map(drop)
    }

    async fn choose_at(
        &self,
        server: &Server,
        request: &ChoiceRequest,
    ) -> Result<Vec<dunlin_lm::EngineChoice>> {
        let path = self.kind.completion_path();
        let body = self.kind.body(&self.model, request);
        let answer = server.post_bytes(path, body).await.map_err(|fault| refused(fault.reason))?;
        let expected = Expected {
            choices: request.choices,
            vocabulary: self.vocabulary.size,
            eos: self.eos,
            marker: self.marker.clone(),
        };
        self.kind
            .choices(&answer, &expected)
            .map_err(|reason| refused(format!("the server's {path}: {reason}")))
    }
}

impl Chooser for RemoteTarget {
    fn vocabulary(&self) -> Vocabulary {
        self.vocabulary
    }

    fn context_max(&self) -> usize {
        self.context_max
    }

    fn identity(&self) -> &TargetIdentity {
        &self.identity
    }

    /// A server's bits depend on its batches, so nothing stronger is promised, also not at temperature 0.
    fn promise(&self) -> Promise {
        Promise::Distribution
    }

    fn coupling(&self) -> CouplingProfile {
        self.coupling
    }

    fn in_flight_max(&self) -> usize {
        self.in_flight
    }

    fn choose<'a>(&'a self, request: &'a ChoiceRequest) -> ChoiceFuture<'a> {
        Box::pin(self.choose_at(&self.server, request))
    }
}

/// A digest in the place of that of the weights, which no server reports: of the model's name, the version of its
/// weights and the vocabulary. Verifiers before servers with the same ones have targets of the same identity.
fn stand_in(model: &str, weights: Option<&str>, vocabulary: &Vocabulary) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(IDENTITY_RULES);
    for part in [model, weights.unwrap_or_default()] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.update(vocabulary.size.to_le_bytes());
    digest.update(vocabulary.fingerprint);
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_that_of_name_version_and_vocabulary() {
        let vocabulary = Vocabulary { size: 3, fingerprint: [1; 8] };
        let base = stand_in("m", Some("1"), &vocabulary);
        assert_eq!(base, stand_in("m", Some("1"), &vocabulary));
        let others = [
            stand_in("n", Some("1"), &vocabulary),
            stand_in("m1", None, &vocabulary),
            stand_in("m", Some("2"), &vocabulary),
            stand_in("m", Some("1"), &Vocabulary { size: 4, ..vocabulary }),
        ];
        assert!(others.iter().all(|other| *other != base));
    }
}
