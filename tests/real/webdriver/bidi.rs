//! `WebDriver BiDi`, over a WebSocket to the driver: for what `WebDriver` has no command.

use std::error::Error;

use futures_util::{SinkExt as _, StreamExt as _};
use http::Uri;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::neighbour::PATIENCE;

/// Sends one command to the session at `address`, and returns its result.
///
/// # Panics
///
/// Panics if the browser refuses the command or does not answer in time.
pub async fn command(address: &str, method: &str, parameters: &Value) -> Value {
    let asking = timeout(PATIENCE, ask(address, method, parameters));
    let result = asking.await.unwrap_or_else(|_| Err("no answer".into()));
    result.unwrap_or_else(|error| panic!("WebDriver BiDi, {method}: {error}"))
}

async fn ask(address: &str, method: &str, parameters: &Value) -> Result<Value, Box<dyn Error>> {
    let uri: Uri = address.parse()?;
    let host = uri.authority().ok_or("an address without a host")?;
    let (mut socket, _) = client_async(address, TcpStream::connect(host.as_str()).await?).await?;
    let command = json!({ "id": 1, "method": method, "params": parameters });
    socket.send(Message::text(command.to_string())).await?;
    while let Some(message) = socket.next().await {
        let mut answer: Value = serde_json::from_str(message?.to_text()?)?;
        // Events have no number.
        if answer["id"] == 1 {
            let succeeded = answer["type"] == "success";
            return succeeded.then(|| answer["result"].take()).ok_or(answer.to_string().into());
        }
    }
    Err("the driver has closed the connection".into())
}
