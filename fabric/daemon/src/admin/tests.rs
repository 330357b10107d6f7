use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;

fn admin() -> Admin {
    let metrics = Arc::new(Metrics::new("ff2-test", "1.0"));
    Admin::new("ff2-test", "1.0", json!({ "listen": "x" }), metrics, InFlight::default())
}

fn serve(folder: &Path, admin: &Admin) -> CancellationToken {
    let stop = CancellationToken::new();
    tokio::spawn(serve_socket(folder, admin.clone(), stop.clone()).unwrap());
    stop
}

#[tokio::test]
async fn the_socket_answers_what_the_daemon_registered() {
    let folder = tempfile::tempdir().unwrap();
    let admin = admin();
    let stop = serve(folder.path(), &admin);
    admin.status("targets", || async { json!(3) });
    admin.dump("chains", || async { json!(["a"]) });
    let guard = admin.shared.inflight.begin("read", "chunk 1.0");

    let status = admin_get(folder.path(), "/status").await.unwrap();
    assert_eq!((&status["ready"], &status["targets"]), (&json!(false), &json!(3)));
    admin.set_ready(true);
    assert_eq!(admin_get(folder.path(), "/status").await.unwrap()["ready"], true);
    assert_eq!(admin_get(folder.path(), "/config").await.unwrap()["listen"], "x");
    let inflight = admin_get(folder.path(), "/inflight").await.unwrap();
    assert_eq!(inflight["operations"][0]["detail"], "chunk 1.0");
    let dump = admin_get(folder.path(), "/dump").await.unwrap();
    assert_eq!((&dump["chains"][0], &dump["status"]["ready"]), (&json!("a"), &json!(true)));
    let metrics = admin_text(folder.path(), "/metrics").await.unwrap();
    assert!(metrics.contains("ff2_test_process_cpu_seconds_total"), "{metrics}");
    let unknown = admin_get(folder.path(), "/nonsense").await.unwrap_err();
    assert!(unknown.to_string().contains("try /status"), "{unknown}");
    drop(guard);
    stop.cancel();
}

#[tokio::test]
async fn a_stuck_part_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let admin = admin();
    let stop = serve(folder.path(), &admin);
    admin.status("stuck", std::future::pending);
    admin.status("well", || async { json!(1) });
    let status = admin_get(folder.path(), "/status").await.unwrap();
    assert!(status["stuck"]["error"].is_string());
    assert_eq!(status["well"], 1);
    stop.cancel();
}

#[tokio::test]
async fn a_deep_folder_and_an_old_socket_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("x".repeat(100)).join("y".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join(SOCKET_NAME), "left behind").unwrap();
    let admin = admin();
    let stop = serve(&deep, &admin);
    assert_eq!(admin_get(&deep, "/status").await.unwrap()["name"], "ff2-test");
    let mode = fs::metadata(deep.join(SOCKET_NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    stop.cancel();
    let nobody = admin_get(folder.path(), "/status").await.unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn tcp_shows_metrics_status_and_added_pages_only() {
    let admin = admin();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve_tcp(listener, admin.clone(), stop.clone()));
    let ask = |page: &'static str| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(ask("/metrics").await.contains("ff2_test_build"));
    assert!(ask("/status").await.contains("\"ready\":false"));
    for hidden in ["/config", "/dump", "/inflight", "/page"] {
        assert!(ask(hidden).await.starts_with("HTTP/1.1 404"), "{hidden}");
    }
    admin.pages(Router::new().route("/page", get(|| async { "a page" })));
    assert!(ask("/page").await.ends_with("a page"));
    stop.cancel();
    server.await.unwrap().unwrap();
}
