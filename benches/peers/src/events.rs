//! Time that each event of a stream is on its way.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::Result;
use crate::load::{Load, Progress};

const STREAMS: usize = 8;
const FIELD: &[u8] = b"data: ";
const DIGITS: usize = 18;

/// Opens the streams, and records every event that comes.
pub async fn open(load: &Load, progress: &Rc<Progress>) -> Result<()> {
    for _ in 0..STREAMS {
        let mut stream = TcpStream::connect(load.address).await?;
        let user = load.users.with(progress.next_turn(), |user, _| user.to_owned());
        let request = format!("{}{user}\r\n\r\n", load.request_start());
        stream.write_all(request.as_bytes()).await?;
        let (load, progress) = (load.clone(), Rc::clone(progress));
        spawn_local(async move {
            if let Err(problem) = listen(&load, stream, &progress).await {
                progress.fail(problem.to_string());
            }
        });
    }
    Ok(())
}

async fn listen(load: &Load, mut stream: TcpStream, progress: &Progress) -> Result<()> {
    let mut buffer = Vec::new();
    while !progress.is_over() {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err("a stream of events ended".into());
        }
        let now = load.epoch.elapsed();
        while let Some(at) = buffer.windows(FIELD.len()).position(|window| window == FIELD) {
            let Some(digits) = buffer.get(at + FIELD.len()..at + FIELD.len() + DIGITS) else {
                break;
            };
            let sent = Duration::from_nanos(str::from_utf8(digits)?.parse()?);
            buffer.drain(..at + FIELD.len() + DIGITS);
            progress.record(now.saturating_sub(sent));
        }
    }
    Ok(())
}
