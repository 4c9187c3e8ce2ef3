//! Signature algorithms of assertions: a policy allows some, a token names one, and a key is made for one.

/// Signature algorithm of an assertion. All but [`Algorithm::Hs256`] are asymmetric: with a shared key, each
/// server that can check an assertion can also forge one. A key is made for one of the two sorts, so no
/// assertion can have its signature checked by a key of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
    /// HMAC with a shared secret, which the issuer has given to the sidecar.
    Hs256,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
        Self::Hs256,
    ];

    /// Returns the name in RFC 7518 section 3.1 and RFC 8037.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
        }
    }

    /// Finds an algorithm by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Whether a shared secret makes and checks the signature.
    pub fn is_symmetric(self) -> bool {
        self == Self::Hs256
    }
}
