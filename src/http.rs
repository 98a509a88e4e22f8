//! Health, metrics and status over HTTP, for probes and dashboards; changes nothing.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::telemetry::{Phase, Telemetry};

/// The endpoint could not be opened or broke.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for health and metrics")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Serving ended with an error.
    #[error("the health and metrics endpoint broke")]
    Serve(#[source] std::io::Error),
}

/// Opens the endpoint. Serving is left to [`serve`], so that a taken port is known at once.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address).await.map_err(|source| HttpError::Listen { address, source })
}

/// Serves until `stopped`.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    telemetry: Arc<Telemetry>,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<(), HttpError> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(telemetry);
    axum::serve(listener, router).with_graceful_shutdown(stopped).await.map_err(HttpError::Serve)
}

/// Ready while every source streams.
async fn ready(State(telemetry): State<Arc<Telemetry>>) -> impl IntoResponse {
    let mut code = StatusCode::OK;
    let mut text = String::new();
    for source in telemetry.sources() {
        let phase = source.current_phase();
        if !matches!(phase, Phase::Streaming | Phase::Done) {
            code = StatusCode::SERVICE_UNAVAILABLE;
        }
        text.push_str(&format!("{} {}", source.name, phase.word()));
        if let Some(reason) = phase.reason() {
            text.push_str(": ");
            text.push_str(reason);
        }
        text.push('\n');
    }
    (code, text)
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], telemetry.render())
}

async fn status(State(telemetry): State<Arc<Telemetry>>) -> impl IntoResponse {
    let sources: Vec<_> = telemetry.sources().iter().map(|source| source.status()).collect();
    let status = serde_json::json!({ "schema_version": 1, "version": env!("CARGO_PKG_VERSION"), "sources": sources });
    ([(header::CONTENT_TYPE, "application/json")], status.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        answer
    }

    #[tokio::test]
    async fn readiness_follows_the_sources() {
        let telemetry = Arc::new(Telemetry::new());
        let source = telemetry.source("shop");
        let listener = listen("127.0.0.1:0".parse().expect("address")).await.expect("listens");
        let address = listener.local_addr().expect("address");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, Arc::clone(&telemetry), async {
            let _ = stopped.await;
        }));

        assert!(fetch(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        source.phase(Phase::Waiting("nats is away".into()));
        assert!(fetch(address, "/readyz").await.ends_with("shop waiting: nats is away\n"));
        source.phase(Phase::Streaming);
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(address, "/metrics").await.contains("figvine_source_connected{source=\"shop\"} 1"));
        let status = fetch(address, "/status").await;
        let body = status.split_once("\r\n\r\n").expect("a body").1;
        let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(status["sources"][0]["phase"], "streaming");

        stop.send(()).expect("still serving");
        server.await.expect("joins").expect("ends well");
    }
}
