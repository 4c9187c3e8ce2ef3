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
    /// Finds an algorithm by its name in RFC 7518 section 3.1 and RFC 8037.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            "HS256" => Self::Hs256,
            _ => return None,
        })
    }

    /// Whether a shared secret makes and checks the signature.
    pub fn is_symmetric(self) -> bool {
        self == Self::Hs256
    }
}
