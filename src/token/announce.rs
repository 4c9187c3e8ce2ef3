//! Events that every replica of a sidecar has to learn of, and the interface through which one replica tells the
//! others. Without a shared store there is no announcer, and an event stays within its process.

use std::pin::Pin;
use std::time::Duration;

use crate::cache::Whose;
use ground::user_id::UserId;

/// Something that has happened to users. No `Debug`, so that no log shows a user.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Tokens have to be forgotten.
    Forget(Subject),
    /// A user was signed out: the tokens have to be forgotten, and no token may be handed out until the user
    /// signs in again.
    Logout(Logout),
}

/// Users whose tokens are forgotten: the owned form of [`Whose`]. No `Debug`, so that no log shows a user.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    User(UserId),
    Organization(Box<str>),
    Everything,
}

/// A logout of one user. No `Debug`, so that no log shows a user.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Logout {
    pub user: UserId,
    /// Time of the logout since 1970, by the wall clock of the service that told of the logout; never later
    /// than the time at which the first replica heard of the logout.
    pub at: Duration,
}

impl Event {
    /// Returns the users whose tokens the event makes void.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Forget(subject) => subject.clone(),
            Self::Logout(logout) => Subject::User(logout.user.clone()),
        }
    }
}

impl Subject {
    /// Borrows the subject for the cache.
    pub fn whose(&self) -> Whose<'_> {
        match self {
            Self::User(user) => Whose::User(user),
            Self::Organization(organization) => Whose::Organization(organization),
            Self::Everything => Whose::Everybody,
        }
    }

    /// Word for the log, which names neither user nor organization.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Organization(_) => "organization",
            Self::Everything => "everything",
        }
    }
}

/// Result of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Every replica will learn of the event: it is in the store.
    Told,
    /// The store did not take the event: a fault of the store or of the way to it. The other replicas learn of it
    /// when the store can be reached again, unless this replica has ended by then.
    Later,
}

impl Announced {
    /// Word for the log and for answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Later => "later",
        }
    }
}

/// A signed call that tells of an event, such as a webhook's. Each replica that gets the call has to know whether
/// another one has carried it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Digest of the name that the sender gave the call.
    pub name: [u8; 32],
    /// Time for which the call will be valid.
    pub life: Duration,
}

/// A future of an [`Announce`].
pub type AnnounceFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The way to the other replicas.
pub trait Announce: Send + Sync + 'static {
    /// Hands `event` on to the other replicas. The caller forgets on its own replica before. The announcer forgets there
    /// once more when the other replicas are told, since until then a miss may bring the old token back from the store.
    fn announce<'a>(&'a self, event: &'a Event) -> AnnounceFuture<'a, Announced>;

    /// Whether a replica has carried out `call`; `false` too if the store does not say. A call that is carried out twice
    /// does no harm, and a call that is never carried out does.
    fn is_carried_out<'a>(&'a self, call: &'a Call) -> AnnounceFuture<'a, bool>;

    /// Tells the other replicas that `call` was carried out. Called after the announcement of its event: if this replica
    /// ends between the two, another replica carries the repeated call out.
    fn note_carried_out<'a>(&'a self, call: &'a Call) -> AnnounceFuture<'a, ()>;
}
