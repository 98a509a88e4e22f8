use mysql_common::scramble::{scramble_native, scramble_sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::url::Host;

/// MySQL 9.7.4's first packet, without its header.
const MYSQL: &[u8] = b"\x0a9.7.4-2\0\x0b\0\0\0\x0e4%\x11)\x29&O\0\xff\xff\xff\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0B\x10\x11Xxb@B\x01\x13y\x08\0caching_sha2_password\0";
/// MariaDB 10.11.19's.
const MARIADB: &[u8] = b"\x0a5.5.5-10.11.19-MariaDB-0+deb12u1-log\0\x05\0\0\0|X\x22@[)Zj\0\xfe\xf7\x08\x02\0\xff\x81\x15\0\0\0\0\0\0\x1d\0\0\0'}fcB]-gCWl:\0mysql_native_password\0";

/// The other end of a session: a server by script.
struct Script {
    stream: UnixStream,
    sequence: u8,
}

impl Script {
    async fn send(&mut self, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("short").to_le_bytes();
        let header = [length[0], length[1], length[2], self.sequence];
        self.stream.write_all(&[&header, payload].concat()).await.expect("sent");
        self.sequence = self.sequence.wrapping_add(1);
    }

    async fn receive(&mut self) -> Vec<u8> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await.expect("a header");
        assert_eq!(header[3], self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        let mut payload = vec![0; u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize];
        self.stream.read_exact(&mut payload).await.expect("a payload");
        payload
    }
}

fn pair() -> (Session, Script) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    (Session::new(Stream::Unix(ours), Host::Unix("/s".into())), Script { stream: theirs, sequence: 0 })
}

fn url() -> ConnectUrl {
    ConnectUrl::parse("mysql://fig:secret@/?socket=/s").expect("a url")
}

/// User, proof and plugin of a HandshakeResponse41.
fn read_response(packet: &[u8]) -> (String, Vec<u8>, String) {
    let mut rest = &packet[32..];
    let user = text(&mut rest).expect("a user");
    let length = usize::from(*rest.split_off_first().expect("a length"));
    let proof = rest.split_off(..length).expect("a proof").to_vec();
    (user, proof, text(&mut rest).expect("a plugin"))
}

#[test]
fn greetings_of_both_servers_are_read() {
    let greeting = Greeting::read(MYSQL).expect("a greeting");
    assert_eq!((greeting.version.as_str(), greeting.plugin.as_str()), ("9.7.4-2", "caching_sha2_password"));
    assert_eq!(greeting.nonce, b"\x0e4%\x11)\x29&OB\x10\x11Xxb@B\x01\x13y\x08");
    assert_ne!(greeting.capabilities & client::SSL, 0);
    let greeting = Greeting::read(MARIADB).expect("a greeting");
    assert_eq!(greeting.version, "5.5.5-10.11.19-MariaDB-0+deb12u1-log");
    assert_eq!((greeting.nonce.len(), greeting.plugin.as_str()), (20, "mysql_native_password"));
    assert_eq!(greeting.capabilities & client::SSL, 0);
}

#[test]
fn no_broken_greeting_panics() {
    for end in 0..MYSQL.len() {
        let _ = Greeting::read(&MYSQL[..end]);
    }
    // A host that may not connect; no SQLSTATE before the handshake.
    let error = Greeting::read(b"\xff\x6a\x04Host '10.0.0.1' is not allowed to connect to this MySQL server");
    assert_eq!(error.expect_err("refused").code, "FV-1110");
    assert_eq!(Greeting::read(b"SSH-2.0-OpenSSH").expect_err("another protocol").code, "FV-1116");
}

#[tokio::test]
async fn a_cached_password_is_proved_by_its_hash() {
    let (session, mut script) = pair();
    let server = async {
        script.send(MYSQL).await;
        let (user, proof, plugin) = read_response(&script.receive().await);
        let nonce = Greeting::read(MYSQL).expect("a greeting").nonce;
        assert_eq!((user.as_str(), plugin.as_str()), ("fig", "caching_sha2_password"));
        assert_eq!(Some(proof), scramble_sha256(&nonce, b"secret").map(Vec::from));
        script.send(&[1, 3]).await;
        script.send(&[0, 0, 0, 2, 0, 0, 0]).await;
    };
    let url = url();
    let (logged_in, ()) = tokio::join!(login(session, &url, "figvine shop"), server);
    logged_in.expect("let in");
}

#[tokio::test]
async fn the_whole_password_goes_where_nobody_listens() {
    let (session, mut script) = pair();
    let server = async {
        script.send(MYSQL).await;
        script.receive().await;
        script.send(&[1, 4]).await;
        assert_eq!(script.receive().await, b"secret\0");
        script.send(&[0, 0, 0, 2, 0, 0, 0]).await;
    };
    let url = url();
    let (logged_in, ()) = tokio::join!(login(session, &url, "figvine shop"), server);
    logged_in.expect("let in");
}

#[tokio::test]
async fn the_server_may_switch_to_the_users_own_plugin() {
    let (session, mut script) = pair();
    let server = async {
        script.send(MYSQL).await;
        script.receive().await;
        script.send(b"\xfemysql_native_password\0abcdefghijklmnopqrst\0").await;
        assert_eq!(Some(script.receive().await), scramble_native(b"abcdefghijklmnopqrst", b"secret").map(Vec::from));
        script.send(b"\xfeclient_ed25519\0abcdefghijklmnopqrstuvwxyz01234\0").await;
        assert_eq!(script.receive().await.len(), 64);
        script.send(b"\xff\x15\x04#28000Access denied for user 'fig'@'localhost' (using password: YES)").await;
    };
    let url = url();
    let (refused, ()) = tokio::join!(login(session, &url, "figvine shop"), server);
    let error = refused.expect_err("refused");
    assert_eq!((error.code, error.kind), ("FV-1110", SourceErrorKind::Refused));
    assert!(!format!("{error:?}").contains("secret"));
}

#[tokio::test]
async fn an_unknown_plugin_is_named() {
    for (switch, name) in [(&b"\xfedialog\0abc"[..], "dialog"), (b"\xfe", "mysql_old_password")] {
        let (session, mut script) = pair();
        let server = async {
            script.send(MARIADB).await;
            script.receive().await;
            script.send(switch).await;
        };
        let url = url();
        let (refused, ()) = tokio::join!(login(session, &url, "figvine shop"), server);
        let error = refused.expect_err("refused");
        assert_eq!(error.code, "FV-1117");
        assert!(error.what.contains(name), "{}", error.what);
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_wanted() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let length = u8::try_from(MARIADB.len()).expect("short");
        stream.write_all(&[&[length, 0, 0, 0], MARIADB].concat()).await.expect("sent");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("the end");
        rest
    });
    let url = ConnectUrl::parse(&format!("mysql://fig:secret@127.0.0.1:{port}/?ssl-mode=REQUIRED")).expect("a url");
    let error = Session::open(&url, "figvine shop").await.expect_err("refused");
    assert_eq!(error.code, "FV-1113");
    assert_eq!(server.await.expect("a server"), b"", "nothing was told in clear");
}
