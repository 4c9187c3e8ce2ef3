//! Forgets that begin on this replica, and that the store hands on to all other replicas; and the signed calls that asked
//! for forgets, so that each call is carried out once.

use std::time::Duration;

use redis::Value;

use crate::entry::{Event, Forget, mark_bytes, parse_mark, subject_bytes};
use crate::heard::FORGET_LIFE;
use crate::protocol::{Mark, millis};
use crate::seal::{Kind, Name};
use crate::store::Fault;
use crate::value::bytes_of;
use crate::{Inner, Shared, nonce, now};
use ground::metrics::SharedForget;
use token::announce::{self, Announce, AnnounceFuture, Announced, Call, Subject};

/// Time limit for writing a forget into the store.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time limit for asking whether a call was carried out, and for noting that it was. The sender waits for both.
const CALL_PATIENCE: Duration = Duration::from_millis(500);

impl Announce for Shared {
    fn announce<'a>(&'a self, event: &'a announce::Event) -> AnnounceFuture<'a, Announced> {
        Box::pin(self.0.tell(event))
    }

    fn is_carried_out<'a>(&'a self, call: &'a Call) -> AnnounceFuture<'a, bool> {
        Box::pin(async { self.0.is_carried_out(call).await.unwrap_or(false) })
    }

    fn note_carried_out<'a>(&'a self, call: &'a Call) -> AnnounceFuture<'a, ()> {
        Box::pin(async {
            // If the store does not take the note, a repeated call is carried out once more.
            let _ = self.0.note_carried_out(call).await;
        })
    }
}

impl Inner {
    /// Tells all replicas of a forget, now or as soon as the store can be reached.
    async fn tell(&self, event: &announce::Event) -> Announced {
        let last = self.last_mark(&event.subject()).await;
        let forget = Forget::of(event, Mark::after(last, now(), nonce()));
        // From here on, this replica serves no stored token that was minted before the forget.
        let settling = self.heard.begin(1);
        self.heard.note(&forget, now());
        let forget = self.heard.forget(&forget.subject).unwrap_or(forget);
        let (announced, origin) = if self.announce(&forget).await.is_ok() {
            (Announced::Told, SharedForget::Here)
        } else {
            self.unwritten.note_forget(forget.clone());
            (Announced::Later, SharedForget::HereAlone)
        };
        // Memory may have got an old token from the store before the mark was there.
        self.apply(vec![announce::Event::Forget(forget.subject)]).await;
        drop(settling);
        self.metrics.forgets.increment(origin);
        announced
    }

    /// Returns the last mark of `subject` that this replica or the store knows.
    async fn last_mark(&self, subject: &Subject) -> Option<Mark> {
        let stored = self.stored_mark(subject).await.ok().flatten();
        stored.max(self.heard.mark(subject, now()))
    }

    /// Reads the mark of `subject` in the store.
    pub(crate) async fn stored_mark(&self, subject: &Subject) -> Result<Option<Mark>, Fault> {
        let keys = self.keys();
        let names = keys.names(Kind::Mark, &subject_bytes(subject));
        let commands = names.iter().map(|name| self.read_mark(*name)).collect();
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
        let names = keys.names(Kind::Mark, &subject_bytes(&forget.subject));
        let marks = names.iter().map(|name| {
            let sealed = keys.seal(Kind::Mark, name.bytes(), mark_bytes(forget.mark));
            let mut set = redis::cmd("SET");
            set.arg(self.store_keys.mark(*name)).arg(sealed);
            set.arg("PX").arg(millis(FORGET_LIFE));
            set
        });
        let sealed = keys.seal(Kind::Event, b"", Event::Forget(forget.clone()).bytes());
        let mut add = redis::cmd("XADD");
        add.arg(self.store_keys.forgets())
            .arg("MINID")
            .arg("~")
            .arg(now().saturating_sub(millis(FORGET_LIFE)));
        add.arg("*").arg("e").arg(sealed);
        // The marks come first: a replica that reads the event must find them.
        let commands = marks.chain([add]).collect();
        let answers = self.store.call(commands, PATIENCE).await?;
        if let Some(id) = answers.last().and_then(bytes_of) {
            self.hearing.expect(id.to_vec(), forget.clone());
        }
        Ok(())
    }
    /// Whether the store has a note that a replica has carried out `call`. A note that no key of this replica has sealed
    /// does not count: an attacker with write access to the store must not keep logouts from replicas.
    async fn is_carried_out(&self, call: &Call) -> Result<bool, Fault> {
        let keys = self.keys();
        let names = keys.names(Kind::Call, &call.name);
        let gets = names.iter().map(|name| {
            let mut get = redis::cmd("GET");
            get.arg(self.store_keys.call(*name));
            get
        });
        let answers = self.store.call(gets.collect(), CALL_PATIENCE).await?;
        let is_note = |(name, answer): (&Name, &Value)| {
            bytes_of(answer).is_some_and(|note| keys.open(Kind::Call, name.bytes(), note).is_some())
        };
        Ok(names.iter().zip(&answers).any(is_note))
    }

    async fn note_carried_out(&self, call: &Call) -> Result<(), Fault> {
        let keys = self.keys();
        let name = keys.name(Kind::Call, &call.name);
        let note = keys.seal(Kind::Call, name.bytes(), Vec::new());
        let mut set = redis::cmd("SET");
        set.arg(self.store_keys.call(name)).arg(note).arg("PX").arg(millis(call.life).max(1));
        self.store.call(vec![set], CALL_PATIENCE).await.map(drop)
    }
}
