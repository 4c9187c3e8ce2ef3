//! Evicts connections of a listener that must never refuse one, the admin port: if there is no room for a new
//! connection, the connection that has been idle longest is closed.
//!
//! All peers share `total` connections. A peer may hold `per_peer` of them; beyond that, the peer's own
//! longest idle connection is closed. When all `total` are taken, the peer that holds most loses one. A
//! kubelet with one connection loses it only to 255 other addresses. A kubelet that shares its address
//! with a flood of silent connections keeps its connection, because after a request it is the connection of
//! that address that was used last (`tests/it/admin/crowd.rs`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntCounter;
use tokio::task::AbortHandle;

use super::{Answering, Handler};

/// The open connections of one listener and their limits.
pub(super) struct Room {
    total: usize,
    per_peer: usize,
    present: Mutex<Present>,
    evicted: IntCounter,
}

#[derive(Default)]
struct Present {
    connections: HashMap<SocketAddr, OpenConnection>,
    /// Number of accepted connections, requests and answers so far. The numbers order these events.
    events: u64,
}

/// One connection of the listener.
struct OpenConnection {
    /// Number of the accept, which tells this connection from a later one with the same address and
    /// port.
    entered: u64,
    /// Number of the last event. A byte that completes no head is no event: a peer that sends half a head
    /// byte by byte counts as idle.
    last_event: u64,
    /// Ends the task that serves the connection. `None` until the task has started.
    task: Option<AbortHandle>,
}

/// Entry of one connection in a [`Room`], removed when the guard is dropped.
pub(super) struct Place {
    room: Arc<Room>,
    peer: SocketAddr,
    entered: u64,
}

impl Room {
    /// Allows `total` connections, `per_peer` of one address; counts evictions in `evicted`.
    pub(super) fn new(total: usize, per_peer: usize, evicted: IntCounter) -> Arc<Self> {
        Arc::new(Self { total, per_peer, present: Mutex::default(), evicted })
    }

    /// Enters a new connection. Closes another connection first if there is no room.
    pub(super) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Place {
        let mut present = self.present();
        let ip = ip_of(peer);
        if present.count_of(ip) >= self.per_peer {
            self.evict(&mut present, Some(ip));
        } else if present.connections.len() >= self.total {
            self.evict(&mut present, None);
        }
        let entered = present.next_event();
        present
            .connections
            .insert(peer, OpenConnection { entered, last_event: entered, task: None });
        Place { room: Arc::clone(self), peer, entered }
    }

    /// Closes the longest idle connection of the peer that holds most. `false` if there is no
    /// connection.
    pub(super) fn evict_one(&self) -> bool {
        self.evict(&mut self.present(), None)
    }

    /// Has an eviction of the connection from `peer` end `task`.
    pub(super) fn set_task(&self, peer: SocketAddr, task: AbortHandle) {
        if let Some(connection) = self.present().connections.get_mut(&peer) {
            connection.task = Some(task);
        }
    }

    /// Has `handler` note each request and each answer as an event of its connection.
    pub(super) fn watched(self: &Arc<Self>, handler: Arc<Handler>) -> Arc<Handler> {
        let room = Arc::clone(self);
        Arc::new(move |peer, connection, request| -> Answering {
            let (room, socket) = (Arc::clone(&room), peer.socket);
            room.note(socket);
            let answering = handler(peer, connection, request);
            Box::pin(async move {
                let answer = answering.await;
                room.note(socket);
                answer
            })
        })
    }

    fn note(&self, peer: SocketAddr) {
        let mut present = self.present();
        let event = present.next_event();
        if let Some(connection) = present.connections.get_mut(&peer) {
            connection.last_event = event;
        }
    }

    /// Closes the longest idle connection of `ip`, or of the address that has most connections.
    fn evict(&self, present: &mut Present, ip: Option<IpAddr>) -> bool {
        let Some(ip) = ip.or_else(|| present.most_present()) else { return false };
        let theirs = present.connections.iter().filter(|(peer, _)| ip_of(**peer) == ip);
        let longest_idle = theirs.min_by_key(|(_, connection)| connection.last_event);
        let Some(peer) = longest_idle.map(|(peer, _)| *peer) else { return false };
        let evicted = present.connections.remove(&peer);
        if let Some(task) = evicted.and_then(|connection| connection.task) {
            task.abort();
        }
        self.evicted.inc();
        true
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    fn next_event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    fn count_of(&self, ip: IpAddr) -> usize {
        self.connections.keys().filter(|peer| ip_of(**peer) == ip).count()
    }

    /// The address with most connections; among equals, the address that holds the longest idle
    /// connection.
    fn most_present(&self) -> Option<IpAddr> {
        let mut by_ip: HashMap<IpAddr, (usize, u64)> = HashMap::new();
        for (peer, connection) in &self.connections {
            let (count, oldest) = by_ip.entry(ip_of(*peer)).or_insert((0, u64::MAX));
            *count += 1;
            *oldest = connection.last_event.min(*oldest);
        }
        let most = by_ip.into_iter().max_by_key(|(_, (count, oldest))| (*count, u64::MAX - oldest));
        most.map(|(ip, _)| ip)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut present = self.room.present();
        if present
            .connections
            .get(&self.peer)
            .is_some_and(|connection| connection.entered == self.entered)
        {
            present.connections.remove(&self.peer);
        }
    }
}

/// Address of `peer`, in one form for IPv4 and for IPv4 through an IPv6 socket.
fn ip_of(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use ground::peer::Peer;

    fn at(peer: &str) -> SocketAddr {
        peer.parse().expect("an address")
    }

    fn room(total: usize, per_peer: usize) -> Arc<Room> {
        let evicted = IntCounter::new("evicted", "Evicted.").expect("a valid metric");
        Room::new(total, per_peer, evicted)
    }

    fn present(room: &Room) -> HashSet<SocketAddr> {
        room.present().connections.keys().copied().collect()
    }

    #[test]
    fn peer_at_its_cap_loses_its_longest_idle_connection() {
        let room = room(7, 3);
        let kubelet = at("10.0.0.1:9");
        let mut places = vec![room.enter(kubelet)];
        places.extend((1..=3).map(|port| room.enter(SocketAddr::new(at("10.0.0.2:1").ip(), port))));
        // The first connection of 10.0.0.2 answers a request, so its second is idle longest.
        room.note(at("10.0.0.2:1"));
        places.push(room.enter(at("[::ffff:10.0.0.2]:4")));
        let left = [kubelet, at("10.0.0.2:1"), at("10.0.0.2:3"), at("[::ffff:10.0.0.2]:4")];
        assert_eq!(present(&room), left.into());
        assert_eq!(room.evicted.get(), 1);
        drop(places);
        assert_eq!(present(&room), HashSet::new());
    }

    #[test]
    fn peer_at_an_address_of_the_link_is_found_by_its_zone() {
        let room = room(3, 2);
        let (first, second, third) =
            (at("[fe80::1%2]:1"), at("[fe80::1%2]:2"), at("[fe80::1%2]:3"));
        let _places = [room.enter(first), room.enter(second)];
        // What `watched` notes.
        room.note(Peer::of(first).socket);
        let _place = room.enter(third);
        assert_eq!(present(&room), [first, third].into());
    }

    #[test]
    fn full_room_evicts_from_the_peer_with_most_connections() {
        let room = room(5, 3);
        let peers = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.2:2", "10.0.0.3:1", "10.0.0.3:2"];
        let places = peers.map(|peer| room.enter(at(peer)));
        let more = room.enter(at("10.0.0.4:1"));
        assert!(!present(&room).contains(&at("10.0.0.2:1")), "of equals, the longest idle");
        let another = room.enter(at("10.0.0.5:1"));
        assert!(!present(&room).contains(&at("10.0.0.3:1")));
        assert!(present(&room).contains(&at("10.0.0.1:1")), "older than all, and alone");
        drop((places, more, another));
    }

    #[test]
    fn place_of_an_evicted_connection_frees_no_later_place() {
        let room = room(1, 1);
        let old = room.enter(at("10.0.0.1:1"));
        let new = room.enter(at("10.0.0.1:1"));
        drop(old);
        assert_eq!(present(&room), [at("10.0.0.1:1")].into());
        assert!(room.evict_one());
        assert!(!room.evict_one(), "nothing is left");
        drop(new);
    }

    #[tokio::test]
    async fn eviction_ends_the_task_that_serves() {
        let room = room(1, 1);
        let place = room.enter(at("10.0.0.1:1"));
        let task = tokio::spawn(async move {
            let _place = place;
            std::future::pending::<()>().await;
        });
        room.set_task(at("10.0.0.1:1"), task.abort_handle());
        let _next = room.enter(at("10.0.0.2:1"));
        assert!(task.await.expect_err("the task never ends by itself").is_cancelled());
    }
}
