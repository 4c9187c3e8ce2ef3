//! Details of users that the app tells (`identity.details_path`): kept answers, and one question under way for
//! each user.
//!
//! An answer is kept under the whole identity that was found and the site that was asked for, so that no
//! other user and no other tenant of the app gets it. Without an answer that can be used, there is no token.
//! A question runs in a task of its own: a client that leaves does not stop it for the other clients.

mod question;
mod site;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use moka::policy::EvictionPolicy;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::question::ASKED_USER;
pub(super) use self::question::Question;
pub(super) use self::site::Site;
use ground::metrics::AppAnswerResult;
use ground::user_id::UserId;
use identity::{AnswerFault, DetailsSource, Identity, User};
use token::cache::Whose;

/// Memory that kept answers may take, in bytes. The least recently used answers go first; their users are
/// asked for again.
const MAX_KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// Memory of a user's entry beside the answers, in bytes: nodes and counts of moka's, and the user's id.
const ENTRY_BYTES: usize = 256;

/// Most questions under way. Each ends within `identity.details_timeout`, also if its client has left, and keeps the
/// head of its client's request until then. So the bound is for clients that ask and leave in a loop.
const MAX_QUESTIONS: usize = 1024;

/// Most questions under way about one user: each is for another site or another identity of the user, and a
/// person has few of both open at once. A client chooses its host, so without this bound one user for whom the
/// app stands still could take all of [`MAX_QUESTIONS`].
const MAX_QUESTIONS_OF_USER: usize = 16;

/// Most answers kept about one user, for the same reason. The oldest goes first.
const MAX_KEPT_OF_USER: usize = 16;

/// Time for which a user whom the app gives no token is not asked for again: short, because the user may be
/// about to sign in at the app.
const REFUSAL_MEMORY: Duration = Duration::from_secs(5);

/// Time for which a failed question is not asked again.
const FAILURE_MEMORY: Duration = Duration::from_secs(1);

/// Reason why the app gave no details that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoDetails {
    /// The app gives this user no token: it answered 401, 403 or 404.
    Refused(StatusCode),
    Unusable(AnswerFault),
    /// The app answered with another status than those that have a meaning here.
    Failed(StatusCode),
    /// The app broke its answer off, or the answer is not HTTP.
    Broken,
    /// The answer had not ended within `identity.details_timeout`.
    Timeout,
    Unreachable,
    /// Too many questions are under way, of all users or of this one.
    Crowded,
    /// The request names its host in more bytes than a host has. The app is not asked.
    LongHost,
}

/// Text that completes "No token, since ".
impl fmt::Display for NoDetails {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(formatter, "the app gives this user none ({status})"),
            Self::Unusable(fault) => write!(formatter, "the app's answer can't be used: {fault}"),
            Self::Failed(status) => write!(formatter, "the app answered {status}"),
            Self::Broken => formatter.write_str("the app's answer broke off or is not HTTP"),
            Self::Timeout => formatter.write_str("the app did not answer in time"),
            Self::Unreachable => formatter.write_str("no connection to the app could be made"),
            Self::Crowded => formatter.write_str("too many questions to the app are under way"),
            Self::LongHost => {
                formatter.write_str("the request's host, or what the front says of it, is too long")
            }
        }
    }
}

impl NoDetails {
    /// Returns the result under which the question is counted.
    fn result(self) -> AppAnswerResult {
        match self {
            Self::Refused(_) => AppAnswerResult::Refused,
            Self::Unusable(fault) => fault.result(),
            Self::Failed(_) | Self::Broken => AppAnswerResult::Failed,
            Self::Timeout => AppAnswerResult::Timeout,
            Self::Unreachable => AppAnswerResult::Unreachable,
            Self::Crowded => AppAnswerResult::Crowded,
            Self::LongHost => AppAnswerResult::LongHost,
        }
    }

    /// Whether the same question may soon have another answer, without a change of the app.
    pub(super) fn passes(self) -> bool {
        match self {
            Self::Refused(_) | Self::Unusable(_) | Self::LongHost => false,
            Self::Failed(status) => status.is_server_error(),
            Self::Broken | Self::Timeout | Self::Unreachable | Self::Crowded => true,
        }
    }

    /// Returns the time for which the question is not asked again.
    fn memory(self) -> Duration {
        match self {
            Self::Refused(_) => REFUSAL_MEMORY,
            _ => FAILURE_MEMORY,
        }
    }
}

/// The user with the app's details, or the reason why there are none.
pub(super) type Detailed = Result<Arc<User>, NoDetails>;

/// Identity for which an answer holds: the whole user that was found, and the site.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    user: User,
    site: Site,
}

impl Key {
    pub(super) fn new(user: &User, site: Site) -> Self {
        Self { user: user.clone(), site }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.user.owned_bytes() + self.site.owned_bytes()
    }

    /// Whether an answer for this identity concerns the users of `whose`. `detailed` is the user by the answer, if
    /// it is known; `configured` is the organization of users who have no other.
    fn concerns(
        &self,
        whose: Whose<'_>,
        detailed: Option<&User>,
        configured: Option<&str>,
    ) -> bool {
        match whose {
            Whose::User(user) => *self.user.id == *user,
            Whose::Users(users) => users.contains(&self.user.id),
            Whose::Organization(organization) => {
                let own =
                    |user: &User| user.organization.name().or(configured) == Some(organization);
                let grants = |user: &User| {
                    let grants = user.grants.grants();
                    grants
                        .is_some_and(|grants| grants.iter().any(|grant| grant.is_in(organization)))
                };
                // An answer that is not known yet, or is no answer, may name any organization.
                detailed.is_none_or(|user| own(user) || grants(user))
            }
            Whose::Everybody => true,
        }
    }
}

/// A kept answer.
#[derive(Clone)]
struct Kept {
    key: Arc<Key>,
    detailed: Detailed,
    /// End of its use.
    until: Instant,
}

impl Kept {
    fn bytes(&self) -> usize {
        let user = |user: &Arc<User>| size_of::<User>() + user.owned_bytes();
        size_of::<Self>() + self.key.bytes() + self.detailed.as_ref().map_or(0, user)
    }
}

/// Answers kept about one user, the oldest first: at most [`MAX_KEPT_OF_USER`], each for another key.
type KeptOfUser = Arc<[Kept]>;

/// Answers of the app about users, and the questions under way. All threads that serve share it.
pub struct AppDetails {
    source: DetailsSource,
    /// Written only while the board is locked.
    kept: moka::sync::Cache<UserId, KeptOfUser>,
    board: Mutex<Board>,
}

/// List of the questions under way, one for each key.
#[derive(Default)]
struct Board {
    by_key: HashMap<Arc<Key>, Listed>,
    /// Number of questions under way about each user, also of those that were called off.
    by_user: HashMap<UserId, usize>,
    /// Sum of `by_user`.
    under_way: usize,
    /// Number of questions so far. Tells a question from a later one for the same key.
    asked: u64,
}

/// One question under way.
struct Listed {
    number: u64,
    receiver: Receiver,
}

type Receiver = watch::Receiver<Option<Detailed>>;

/// Answer to a look-up that found no kept answer.
enum Joined {
    /// Another question for this key is under way, or has just ended.
    Other(Found),
    /// The caller has to ask this question.
    Own(Asked),
}

/// Details that are at hand, or on their way.
pub(super) enum Found {
    Kept(Detailed),
    Asking(InFlight),
}

/// A question under way that this caller has started or joined. Dropping it does not stop the question.
pub(super) struct InFlight(Receiver);

impl InFlight {
    /// Waits for the end of the question.
    async fn detailed(&mut self) -> Detailed {
        match self.0.wait_for(Option::is_some).await {
            Ok(detailed) => detailed.clone().expect("waited for"),
            // The sender was dropped without a result: only a panic does so.
            Err(_) => Err(NoDetails::Broken),
        }
    }
}

/// Question that the caller has entered on the board. Takes it off the board when dropped, also by a panic.
struct Asked {
    details: Arc<AppDetails>,
    key: Arc<Key>,
    number: u64,
    sender: watch::Sender<Option<Detailed>>,
}

impl AppDetails {
    /// Makes an empty store of answers.
    fn new(source: DetailsSource) -> Self {
        let kept = moka::sync::Cache::builder()
            .max_capacity(MAX_KEPT_BYTES)
            .weigher(|user: &UserId, kept: &KeptOfUser| {
                let bytes: usize = kept.iter().map(Kept::bytes).sum();
                u32::try_from(ENTRY_BYTES + user.owned_bytes() + bytes).unwrap_or(u32::MAX)
            })
            .eviction_policy(EvictionPolicy::lru())
            // Only frees memory: `Kept::until` decides whether an answer is believed, by a clock that tests move.
            .time_to_live(source.max_age)
            .build();
        Self { source, kept, board: Mutex::default() }
    }

    /// Makes an empty store of answers, if the app is asked for any.
    pub fn of(identity: &Identity) -> Option<Arc<Self>> {
        identity.details_source().map(|source| Arc::new(Self::new(source.clone())))
    }

    /// Place at which the app is asked.
    pub(super) fn path(&self) -> &str {
        self.source.path.as_str()
    }

    /// Forgets answers, so that the next token is minted with a new answer. The answer of a question under way
    /// is not kept either: the app may have been asked before the event that is the reason to forget.
    /// `configured` is the organization of users who have no other.
    pub fn forget(&self, whose: Whose<'_>, configured: Option<&str>) {
        let mut board = self.board();
        board.by_key.retain(|key, _| !key.concerns(whose, None, configured));
        let is_theirs = |kept: &Kept| {
            let detailed = kept.detailed.as_ref().ok();
            kept.key.concerns(whose, detailed.map(|user| &**user), configured)
        };
        let touched = self.kept.iter().filter(|(_, kept)| kept.iter().any(is_theirs));
        for (user, kept) in touched.collect::<Vec<_>>() {
            let rest: KeptOfUser = kept.iter().filter(|kept| !is_theirs(kept)).cloned().collect();
            if rest.is_empty() {
                self.kept.invalidate(&*user);
            } else {
                self.kept.insert(UserId::clone(&user), rest);
            }
        }
    }

    /// Returns the kept answer for `key`, if it is still believed.
    pub(super) fn kept(&self, key: &Key, now: Instant) -> Option<Detailed> {
        let kept = self.kept.get(&key.user.id)?;
        let meant = kept.iter().find(|kept| *kept.key == *key && now < kept.until)?;
        Some(meant.detailed.clone())
    }

    /// Keeps an answer beside the others about its user.
    fn keep(&self, _board: &MutexGuard<'_, Board>, answer: Kept, now: Instant) {
        let user = &answer.key.user.id;
        let kept = self.kept.get(user);
        let others = kept.iter().flat_map(|kept| kept.iter());
        let others: Vec<_> =
            others.filter(|kept| kept.key != answer.key && now < kept.until).collect();
        let newest = &others[others.len().saturating_sub(MAX_KEPT_OF_USER - 1)..];
        let user = user.clone();
        self.kept.insert(user, newest.iter().copied().cloned().chain([answer]).collect());
    }

    /// Returns the kept answer for `key`, or for any site that `key` may mean. Walks over all answers and keeps
    /// none of them alive.
    pub(super) fn peek(&self, key: &Key, now: Instant) -> Option<Detailed> {
        let is_meant = |kept: &Key| kept.user == key.user && key.site.may_be(&kept.site);
        let (_, kept) = self.kept.iter().find(|(user, _)| **user == key.user.id)?;
        let meant = kept.iter().find(|kept| is_meant(&kept.key) && now < kept.until)?;
        Some(meant.detailed.clone())
    }

    /// Joins the question for `key` that is under way, or enters a new one.
    fn join(self: &Arc<Self>, key: Key, now: Instant) -> Joined {
        let mut board = self.board();
        if let Some(listed) = board.by_key.get(&key) {
            return Joined::Other(Found::Asking(InFlight(listed.receiver.clone())));
        }
        // Looks again under the lock: a question may have ended since the first look.
        if let Some(detailed) = self.kept(&key, now) {
            return Joined::Other(Found::Kept(detailed));
        }
        if !board.has_room_for(&key.user.id) {
            return Joined::Other(Found::Kept(Err(NoDetails::Crowded)));
        }
        board.begin(&key.user.id);
        let key = Arc::new(key);
        let (sender, receiver) = watch::channel(None);
        board.asked += 1;
        let number = board.asked;
        board.by_key.insert(Arc::clone(&key), Listed { number, receiver });
        Joined::Own(Asked { details: Arc::clone(self), key, number, sender })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    /// Whether the app may be asked about this user beside all questions under way.
    fn has_room_for(&self, user: &UserId) -> bool {
        let of_user = self.by_user.get(user).copied().unwrap_or_default();
        self.under_way < MAX_QUESTIONS && of_user < MAX_QUESTIONS_OF_USER
    }

    /// Counts a question that begins.
    fn begin(&mut self, user: &UserId) {
        *self.by_user.entry(user.clone()).or_default() += 1;
        self.under_way += 1;
    }

    /// Counts a question that has ended.
    fn end(&mut self, user: &UserId) {
        self.under_way -= 1;
        if let Entry::Occupied(mut of_user) = self.by_user.entry(user.clone()) {
            *of_user.get_mut() -= 1;
            if *of_user.get() == 0 {
                of_user.remove();
            }
        }
    }

    /// Whether the question with this number is on the board for `key`.
    fn has(&self, key: &Key, number: u64) -> bool {
        self.by_key.get(key).is_some_and(|listed| listed.number == number)
    }
}

impl Asked {
    /// Keeps the answer, unless it was to be forgotten meanwhile, and hands it to all who wait.
    fn answer(self, detailed: Detailed) {
        let source = &self.details.source;
        let age = match &detailed {
            Ok(_) => source.max_age,
            Err(reason) => reason.memory().min(source.max_age),
        };
        {
            // Locked, so that no question is called off between the check and the insertion.
            let board = self.details.board();
            if board.has(&self.key, self.number) {
                let now = Instant::now();
                let (key, detailed) = (Arc::clone(&self.key), detailed.clone());
                self.details.keep(&board, Kept { key, detailed, until: now + age }, now);
            }
        }
        self.sender.send_replace(Some(detailed));
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut board = self.details.board();
        if board.has(&self.key, self.number) {
            board.by_key.remove(&self.key);
        }
        board.end(&self.key.user.id);
    }
}

#[cfg(test)]
mod tests;
