//! Forgets that begin here: in force on this replica at once, and told to all others by the store.

use std::time::Duration;

use crate::entry::{Event, Forget, Subject, mark_bytes, parse_mark};
use crate::follow::carry_out;
use crate::heard::FORGET_LIFE;
use crate::mint::nonce;
use crate::protocol::{Mark, millis};
use crate::seal::Kind;
use crate::store::Fault;
use crate::value::bytes_of;
use crate::{Apply, Inner, Shared};
use ground::metrics::SharedForget;

/// Time limit for telling the store of a forget.
const ANNOUNCE_PATIENCE: Duration = Duration::from_secs(2);

/// How far a forget has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The store has it, and each replica that hears the store applies it.
    Everywhere,
    /// This replica alone has applied it. The others are told as soon as the store can be reached.
    HereAlone,
}

impl Shared {
    /// Forgets the tokens of `subject` here and on all replicas: those in memory, those in the store, and those that
    /// mints under way bring. With `logout_at` (seconds since 1970), the forget is told as a logout of the user.
    pub async fn forget(
        &self,
        subject: Subject,
        logout_at: Option<u64>,
        apply: &Apply,
    ) -> Announced {
        let shared = &self.0;
        let mark = Mark::after(shared.last_mark(&subject).await, shared.now(), nonce());
        let forget = Forget { subject, mark, logout_at };
        // Before the walk over the cache: a mint that begins after the walk has to know the mark, and one that
        // begins before is called off by the walk.
        shared.heard.note(&forget);
        carry_out(apply, vec![forget.clone()]).await;
        let (announced, origin) = match shared.announce(&forget).await {
            Ok(()) => (Announced::Everywhere, SharedForget::Here),
            Err(_) => {
                shared.unwritten.note_forget(forget);
                (Announced::HereAlone, SharedForget::HereAlone)
            }
        };
        shared.metrics.forgets.increment(origin);
        announced
    }
}

impl Inner {
    /// Returns the last mark of `subject`, by this replica and by the store.
    async fn last_mark(&self, subject: &Subject) -> Option<Mark> {
        let stored = self.stored_mark(subject).await.ok().flatten();
        stored.max(self.heard.mark(subject))
    }

    /// Reads the mark of `subject` in the store.
    pub(crate) async fn stored_mark(&self, subject: &Subject) -> Result<Option<Mark>, Fault> {
        let keys = self.keys();
        let names = keys.names(Kind::Mark, &subject.bytes());
        let read = |name| {
            let mut get = redis::cmd("GET");
            get.arg(self.store_keys.mark(name));
            get
        };
        let commands = names.iter().map(|name| read(*name)).collect();
        let answers = self.store.call(commands, self.patience).await?;
        let opened = names.iter().zip(&answers).filter_map(|(name, answer)| {
            let opened = keys.open(Kind::Mark, name.bytes(), bytes_of(answer)?)?;
            parse_mark(&opened)
        });
        Ok(opened.max())
    }

    /// Writes the mark of a forget, and tells all replicas.
    pub(crate) async fn announce(&self, forget: &Forget) -> Result<(), Fault> {
        let keys = self.keys();
        let names = keys.names(Kind::Mark, &forget.subject.bytes());
        let mut commands: Vec<redis::Cmd> = names.iter().map(|name| {
            let sealed = keys.seal(Kind::Mark, name.bytes(), mark_bytes(forget.mark));
            let mut set = redis::cmd("SET");
            set.arg(self.store_keys.mark(*name)).arg(sealed);
            set.arg("PX").arg(millis(FORGET_LIFE));
            set
        }).collect();
        let sealed = keys.seal(Kind::Event, b"", Event::Forget(forget.clone()).bytes());
        let mut add = redis::cmd("XADD");
        add.arg(self.store_keys.forgets()).arg("MINID").arg("~").arg(self.forgets_since());
        add.arg("*").arg("e").arg(sealed);
        commands.push(add);
        self.store.call(commands, ANNOUNCE_PATIENCE).await.map(|_| ())
    }
}
