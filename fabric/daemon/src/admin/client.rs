//! Asks a daemon through its admin socket.

use std::{io, path::Path};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::socket;
use crate::limits;

/// GET `page`, for example `/status`, from the daemon whose folder this is.
pub async fn admin_get(data_dir: &Path, page: &str) -> io::Result<Value> {
    let bytes = ask(data_dir, page).await?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

/// As [`admin_get`], for a page that is text (`/metrics`).
pub async fn admin_text(data_dir: &Path, page: &str) -> io::Result<String> {
    let bytes = ask(data_dir, page).await?;
    String::from_utf8(bytes.into()).map_err(io::Error::other)
}

async fn ask(data_dir: &Path, page: &str) -> io::Result<Bytes> {
    let asked = tokio::time::timeout(limits::ADMIN, exchange(data_dir, page)).await;
    asked.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

async fn exchange(data_dir: &Path, page: &str) -> io::Result<Bytes> {
    let stream = socket::connect(data_dir).await?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(io::Error::other)?;
    let request = Request::get(page)
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    // The connection makes progress only while it is polled, here beside the request.
    let answer = async move {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        read(response).await
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended.map_err(io::Error::other)?;
            // Closed after the last byte: what was received is still to be read.
            answer.await
        }
    }
}

async fn read(response: hyper::Response<Incoming>) -> io::Result<Bytes> {
    let status = response.status();
    let body = Limited::new(response.into_body(), limits::ANSWER_BYTES);
    let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
    if status == StatusCode::OK {
        Ok(bytes)
    } else {
        let text = String::from_utf8_lossy(&bytes);
        Err(io::Error::other(format!("{status}: {}", text.trim_end())))
    }
}
