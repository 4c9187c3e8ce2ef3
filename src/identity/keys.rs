//! The keys that assertions are checked with: fetched before they are needed, kept while they can't be
//! fetched, and fetched anew when an assertion names a key that is not there.

mod document;
mod fetch;
mod set;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use self::document::{Content, Document};
pub use self::fetch::{Fetch, FetchError, Fetched, Fetching, HttpFetch, MAX_DOCUMENT_BYTES};
pub use self::set::{Key, KeySet, KeySetError, MAX_KEYS};
use ground::metrics::IdentityMetrics;
use ground::outgoing::TlsError;
use ground::tls::Roots;

/// Time for which a request waits for keys that are being fetched.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Most documents that are held, where each key has a document of its own.
pub const MAX_DOCUMENTS: usize = 64;

/// Fetches for unknown key ids that are allowed at once, where each key has a document of its own; then one
/// more in each [`NEW_KEY_INTERVAL`]. Limited, since a client can invent key ids.
const NEW_KEYS: u32 = 10;

const NEW_KEY_INTERVAL: Duration = Duration::from_secs(1);

/// Place where keys are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLocation {
    /// All keys in one JWK set (RFC 7517).
    Set(Url),
    /// Each key as PEM under its id below this URL, as AWS publishes the keys of load balancers.
    Each(Url),
    /// All keys in one JSON object, which has a certificate as PEM under each key's id, as Google publishes the
    /// keys of Firebase.
    Certificates(Url),
}

impl KeyLocation {
    /// Returns the setting that names this place.
    pub fn setting(&self) -> &'static str {
        match self {
            Self::Set(_) => "identity.assertion.jwks_url",
            Self::Each(_) => "identity.assertion.key_url",
            Self::Certificates(_) => "identity.assertion.x509_url",
        }
    }

    /// Returns the URL of the keys, or the URL below which they are.
    pub fn url(&self) -> &Url {
        let (Self::Set(url) | Self::Each(url) | Self::Certificates(url)) = self;
        url
    }
}

/// Result of a look-up.
pub enum Found {
    Keys(Arc<KeySet>),
    /// The key is not at hand; it was not looked for elsewhere.
    Missing,
    /// The publisher of the keys does not have this key.
    Unknown,
    /// The keys could not be fetched.
    Unavailable,
}

/// Holds keys and keeps them fresh.
pub struct Keys {
    location: KeyLocation,
    fetch: Arc<dyn Fetch>,
    documents: Mutex<Documents>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// Whether the identity with these keys is in force, so that they judge requests.
    in_use: AtomicBool,
    metrics: IdentityMetrics,
}

/// Reason why keys were not put into use: a fault of the configuration, the publisher or the network.
#[derive(Debug)]
pub struct Unfetched {
    url: Url,
    error: FetchError,
}

impl fmt::Display for Unfetched {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, error } = self;
        write!(
            formatter,
            "the keys of identity assertions can't be fetched from {url}: {error}. Correct \
             identity.assertion, or let the pod reach that URL; the sidecar tries again"
        )
    }
}

impl Error for Unfetched {}

struct Documents {
    /// Documents by key id. A document of all keys has the empty id.
    by_id: HashMap<String, Arc<Document>>,
    /// Fetches that are left of [`NEW_KEYS`], as of `counted_at`.
    allowance: u32,
    counted_at: Instant,
}

impl Keys {
    /// Makes keys that are fetched from `location` over HTTP.
    ///
    /// # Errors
    ///
    /// If TLS can't be set up.
    pub fn over_http(
        location: KeyLocation,
        roots: &Roots,
        metrics: IdentityMetrics,
    ) -> Result<Self, TlsError> {
        let fetch = HttpFetch::new(location.url(), roots)?;
        Ok(Self::new(location, fetch, metrics))
    }

    /// Makes keys that are fetched by `fetch`.
    pub fn new(location: KeyLocation, fetch: impl Fetch, metrics: IdentityMetrics) -> Self {
        let documents =
            Documents { by_id: HashMap::new(), allowance: NEW_KEYS, counted_at: Instant::now() };
        Self {
            location,
            fetch: Arc::new(fetch),
            documents: Mutex::new(documents),
            keeper: Mutex::default(),
            in_use: AtomicBool::new(false),
            metrics,
        }
    }

    /// Returns the place where the keys are published.
    pub fn location(&self) -> &KeyLocation {
        &self.location
    }

    /// Starts to fetch the keys, unless this has started before, and goes on until `self` is dropped. Where
    /// each key has a document of its own, there is nothing to fetch before an assertion names a key.
    pub fn start(&self) {
        self.in_use.store(true, Ordering::Relaxed);
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(self.location, KeyLocation::Each(_))
            && keeper.is_none()
            && let Some(document) = self.document("")
        {
            *keeper = Some(tokio::spawn(async move {
                loop {
                    sleep_until(document.due()).await;
                    document.refresh_if_due(Instant::now());
                    document.settled().await;
                }
            }));
        }
    }

    /// Fetches keys before they replace the keys in force. Where each key has a document of its own, no key
    /// id is known yet, so any answer of the publisher will do.
    ///
    /// # Errors
    ///
    /// See [`Unfetched`].
    pub async fn arrive(&self) -> Result<(), Unfetched> {
        if self.in_use.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (url, fetched) = match &self.location {
            KeyLocation::Set(url) | KeyLocation::Certificates(url) => {
                let document = self.document("").expect("a set has one document");
                (url, document.fetch_first().await)
            }
            KeyLocation::Each(url) => {
                let reached = match self.fetch.fetch(url).await {
                    Err(error @ (FetchError::Unreachable | FetchError::Timeout)) => Err(error),
                    _ => Ok(()),
                };
                (url, reached)
            }
        };
        fetched.map_err(|error| Unfetched { url: url.clone(), error })
    }

    /// Sets the gauges.
    pub fn observe(&self) {
        let now = Instant::now();
        let documents = self.lock();
        let held = documents.by_id.values().filter_map(|document| document.held(now));
        let (mut count, mut oldest) = (0, None);
        for (keys, fetched_at) in held.filter(|(keys, _)| !keys.is_empty()) {
            count += keys.len();
            oldest = oldest.max(Some(now.saturating_duration_since(fetched_at)));
        }
        self.metrics.keys.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.metrics.keys_age.set(oldest.map_or(f64::NAN, |age: Duration| age.as_secs_f64()));
    }

    /// Returns the keys at hand, if the key of this id is among them.
    pub fn held(&self, id: Option<&str>) -> Option<Arc<KeySet>> {
        let name = self.document_name(id)?;
        let document = self.lock().by_id.get(name).map(Arc::clone)?;
        let now = Instant::now();
        let (keys, _) = document.held(now).filter(|(keys, _)| keys.knows(id))?;
        // Serve these keys during the refresh: keys that are due are not yet stale.
        document.refresh_if_due(now);
        Some(keys)
    }

    /// Looks for the key of this id among the keys at hand, without a fetch.
    pub fn peek(&self, id: Option<&str>) -> Found {
        let Some(name) = self.document_name(id) else { return Found::Unknown };
        let Some(document) = self.lock().by_id.get(name).map(Arc::clone) else {
            return Found::Unavailable;
        };
        match document.held(Instant::now()) {
            Some((keys, _)) if keys.knows(id) => Found::Keys(keys),
            Some(_) => Found::Unknown,
            None => Found::Unavailable,
        }
    }

    /// Returns the keys as [`Self::held`] does, and fetches them first if they are not at hand and a fetch is
    /// allowed now. Waits at most [`PATIENCE`].
    pub async fn wait_for(&self, id: Option<&str>) -> Found {
        let Some(name) = self.document_name(id) else { return Found::Unknown };
        let Some(document) = self.document(name) else { return Found::Unavailable };
        let now = Instant::now();
        match document.held(now) {
            // Keys are there, but not this key: perhaps it is new.
            Some(_) => document.refresh_once(now),
            None => document.refresh_if_due(now),
        }
        // No need to look at the timeout: the keys at hand tell whether they came in time.
        let _ = timeout(PATIENCE, document.settled()).await;
        match document.held(Instant::now()) {
            Some((keys, _)) if keys.knows(id) => Found::Keys(keys),
            Some(_) if document.is_current() => Found::Unknown,
            _ => Found::Unavailable,
        }
    }

    /// Returns the name under which the document with the key of this id is held; `None` if there can't be
    /// such a key.
    fn document_name<'a>(&self, id: Option<&'a str>) -> Option<&'a str> {
        match self.location {
            KeyLocation::Set(_) | KeyLocation::Certificates(_) => Some(""),
            KeyLocation::Each(_) => id.filter(|id| is_uuid(id)),
        }
    }

    /// Returns the document of this name, or makes it. Where each key has a document of its own, a new
    /// document takes one fetch from the allowance; `None` if the allowance is used up.
    fn document(&self, name: &str) -> Option<Arc<Document>> {
        let mut documents = self.lock();
        if let Some(document) = documents.by_id.get(name) {
            return Some(Arc::clone(document));
        }
        let now = Instant::now();
        let url = match &self.location {
            KeyLocation::Set(url) | KeyLocation::Certificates(url) => url.clone(),
            KeyLocation::Each(url) => {
                documents.spend(now)?;
                documents.make_room();
                // `name` is a UUID, so it has no character with a meaning in a URL.
                url.join(name).ok()?
            }
        };
        let content = match self.location {
            KeyLocation::Set(_) => Content::Set,
            KeyLocation::Each(_) => Content::One(name.to_owned()),
            KeyLocation::Certificates(_) => Content::Certificates,
        };
        let document = Document::new(url, content, Arc::clone(&self.fetch), self.metrics.clone());
        documents.by_id.insert(name.to_owned(), Arc::clone(&document));
        Some(document)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Documents> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keeper.take() {
            keeper.abort();
        }
    }
}

impl Documents {
    /// Takes one fetch from the allowance for new keys; `None` if the allowance is used up.
    fn spend(&mut self, now: Instant) -> Option<()> {
        let passed = now.saturating_duration_since(self.counted_at).as_secs();
        let earned = u32::try_from(passed / NEW_KEY_INTERVAL.as_secs()).unwrap_or(NEW_KEYS);
        if earned > 0 {
            self.allowance = self.allowance.saturating_add(earned).min(NEW_KEYS);
            self.counted_at = now;
        }
        self.allowance = self.allowance.checked_sub(1)?;
        Some(())
    }

    /// Removes a document if there are too many. Documents without a key go first: invented ids lead to them.
    fn make_room(&mut self) {
        if self.by_id.len() < MAX_DOCUMENTS {
            return;
        }
        let now = Instant::now();
        let worth = |document: &Document| document.held(now).map(|(keys, at)| (keys.len(), at));
        let least = self.by_id.iter().min_by_key(|(_, document)| worth(document));
        if let Some(name) = least.map(|(name, _)| name.clone()) {
            self.by_id.remove(&name);
        }
    }
}

/// Whether `id` is a UUID as AWS writes key ids, and so may become part of a URL.
fn is_uuid(id: &str) -> bool {
    id.len() == 36
        && id.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
