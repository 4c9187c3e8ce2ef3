//! Requests that are due at fixed times, regardless of earlier answers: a slow answer makes the requests
//! after it late, and the lateness counts.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::Result;
use crate::app;
use crate::load::{AT_A_TIME, Load, Seen};
use crate::tokens::Users;

/// Requests per second.
pub const RATE: usize = 2_000;

/// Sends requests at [`RATE`] for `warm_up` and then for `window`, and calls `at_edge` at the two ends of
/// `window`. Uses [`AT_A_TIME`] connections, each with a thread: only the kernel's own timers are exact
/// enough.
pub fn run(
    load: &Load,
    users: usize,
    warm_up: Duration,
    window: Duration,
    at_edge: &mut dyn FnMut() -> Result<()>,
) -> Result<Seen> {
    let step = Duration::from_secs_f64(AT_A_TIME as f64 / RATE as f64);
    let steps = |time: Duration| usize::try_from(time.as_micros() / step.as_micros());
    let (unseen, per_connection) = (steps(warm_up)?, steps(window)?);
    let opened = Instant::now() + Duration::from_millis(50);
    let start = opened + step * u32::try_from(unseen)?;
    let request_start = load.request_start();
    let latencies: std::result::Result<Vec<Vec<f64>>, String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_A_TIME)
            .map(|number| {
                let asker = Asker {
                    first_due: opened + step.mul_f64(number as f64 / AT_A_TIME as f64),
                    step,
                    unseen,
                    count: per_connection,
                    first_user: number,
                    users,
                    request_start: &request_start,
                    with_token: load.with_token,
                    address: load.address,
                };
                scope.spawn(move || asker.run().map_err(|problem| problem.to_string()))
            })
            .collect();
        std::thread::sleep(start.saturating_duration_since(Instant::now()));
        let begun = at_edge().map_err(|problem| problem.to_string());
        let joined = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err("a thread of the load failed".to_owned()))
        });
        let latencies = joined.collect();
        begun.and(latencies)
    });
    at_edge()?;
    let mut latencies = latencies?.concat();
    latencies.sort_by(f64::total_cmp);
    Ok(Seen { requests: latencies.len() as f64, latencies })
}

struct Asker<'a> {
    first_due: Instant,
    step: Duration,
    /// Number of requests in the warm-up.
    unseen: usize,
    /// Number of requests after the warm-up.
    count: usize,
    first_user: usize,
    users: usize,
    request_start: &'a str,
    with_token: bool,
    address: std::net::SocketAddr,
}

impl Asker<'_> {
    fn run(&self) -> Result<Vec<f64>> {
        // By default the kernel may delay a wake-up by 50 us, to save power.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let users = Users::new(self.first_user % self.users, 1);
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request = users.with(0, |user, _| format!("{}{user}\r\n\r\n", self.request_start));
        let mut latencies = Vec::with_capacity(self.count);
        let mut answer = vec![0; 8 * 1024];
        let mut due = self.first_due;
        for number in 0..self.unseen + self.count {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            stream.write_all(request.as_bytes())?;
            let mut length = 0;
            let head = loop {
                match stream.read(&mut answer[length..])? {
                    0 => return Err("a connection was closed before its answer".into()),
                    read => length += read,
                }
                if let Some(head) = app::head_end(&answer[..length])
                    && length >= head + app::SMALL
                {
                    break head;
                }
            };
            if number >= self.unseen {
                latencies.push(due.elapsed().as_secs_f64() * 1e6);
            }
            due += self.step;
            let token = app::header(&answer[..head], "x-velt-token");
            let is_right = users.with(0, |_, right| token == Some(right.as_bytes()));
            if !answer.starts_with(b"HTTP/1.1 200 ") || (self.with_token && !is_right) {
                return Err("not the user's answer".into());
            }
        }
        Ok(latencies)
    }
}
