use std::io::ErrorKind;

use tokio::net::UnixStream;
use tokio::task::yield_now;

use super::*;

const LOG: LogId = LogId { system: 7, timeline: 1 };
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// A stream over a socket, whose other end is the server's.
fn streaming() -> (Replication, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let session = Session { stream: Stream::Unix(ours), input: BytesMut::new() };
    let (_durable, released) = Durable::channel();
    (Replication::run(session, LOG, released, STATUS_EVERY), theirs)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short body");
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

/// A piece of the log, which ends at `lsn`.
fn piece(lsn: u64, data: &[u8]) -> Vec<u8> {
    let numbers = [lsn, lsn, 0].map(u64::to_be_bytes).concat();
    message(b'd', &[b"w".as_slice(), &numbers, data].concat())
}

fn keepalive(lsn: u64, wants_answer: bool) -> Vec<u8> {
    let numbers = [lsn, 0].map(u64::to_be_bytes).concat();
    message(b'd', &[b"k".as_slice(), &numbers, &[u8::from(wants_answer)]].concat())
}

/// The length of a status, CopyData's head and all.
const STATUS_BYTES: usize = 5 + 1 + 4 * 8 + 1;

async fn statuses(server: &mut UnixStream, count: usize) {
    let mut bytes = vec![0; STATUS_BYTES * count];
    server.read_exact(&mut bytes).await.expect("statuses");
    assert!(bytes.chunks(STATUS_BYTES).all(|status| status.get(5) == Some(&b'r')));
}

/// Lets the other tasks do all that they can.
async fn let_all_work() {
    for _ in 0..2_000 {
        yield_now().await;
    }
}

#[tokio::test]
async fn notices_in_the_log_neither_reach_the_decoder_nor_let_memory_grow_while_nobody_reads() {
    let (mut replication, mut server) = streaming();
    let notice = message(b'N', b"SNOTICE\0Mhello\0\0");
    let setting = message(b'S', b"TimeZone\0UTC\0");
    let data = vec![7; 8 * 1024];
    let mut sent = Vec::new();
    // Far more than chunks and sockets may hold: what cannot be sent now has to wait for a reader.
    let mut written = 0_usize;
    let mut idle = 0;
    let mut rest: Vec<u8> = Vec::new();
    let mut number = 0;
    while idle < 20 {
        if rest.is_empty() {
            number += 1;
            let frame = piece(number, &data);
            sent.extend_from_slice(&frame);
            rest = [frame, notice.clone(), setting.clone()].concat();
        }
        match server.try_write(&rest) {
            Ok(count) => {
                rest.drain(..count);
                written += count;
                idle = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                idle += 1;
                let_all_work().await;
            }
        }
        assert!(written < 8 * 1024 * 1024, "{written} bytes were taken while nobody reads");
    }
    let mut got = BytesMut::new();
    let reader = async {
        while got.len() < sent.len() {
            got.extend_from_slice(&replication.next().await.expect("the log").expect("a chunk"));
        }
    };
    let (written, ()) = tokio::join!(server.write_all(&rest), reader);
    written.expect("the rest is taken");
    assert!(got == sent, "the log, and nothing else, in order");
}

#[tokio::test]
async fn a_keepalive_behind_a_notice_is_answered() {
    let (mut replication, mut server) = streaming();
    // The first status goes out at the beginning.
    statuses(&mut server, 1).await;
    let frames = [piece(1, b"x"), message(b'N', b"\0"), keepalive(2, true), message(b'S', b"a\0b\0")].concat();
    server.write_all(&frames).await.expect("writes");
    let mut got = BytesMut::new();
    let whole = [piece(1, b"x"), keepalive(2, true)].concat();
    while got.len() < whole.len() {
        got.extend_from_slice(&replication.next().await.expect("the log").expect("a chunk"));
    }
    assert_eq!(got, whole);
    // Sooner than the next one by itself.
    timeout(STATUS_EVERY / 2, statuses(&mut server, 1)).await.expect("an answer");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_any_more_is_given_up_within_a_minute_and_a_status() {
    let (mut replication, mut server) = streaming();
    server.write_all(&piece(1, b"x")).await.expect("writes");
    replication.next().await.expect("the log").expect("a chunk");
    let began = Instant::now();
    let given_up = timeout(Duration::from_secs(600), replication.next()).await.expect("it is given up");
    assert_eq!(given_up.expect_err("a failure").code, "FV-1100");
    let took = began.elapsed();
    assert!(took >= LEAST_SILENCE && took <= LEAST_SILENCE + 2 * STATUS_EVERY, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_server_that_answers_is_not_given_up() {
    let (mut replication, mut server) = streaming();
    let answers = async {
        for lsn in 1..=60 {
            statuses(&mut server, 1).await;
            server.write_all(&keepalive(lsn, false)).await.expect("writes");
        }
    };
    let reads = async {
        for _ in 1..=60 {
            replication.next().await.expect("the log").expect("a chunk");
        }
    };
    tokio::join!(answers, reads);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_waits_for_us_is_not_taken_for_a_silent_one() {
    let (mut replication, mut server) = streaming();
    let frame = piece(1, &vec![7; 2 * CHUNK_BYTES]);
    // Until nothing more is taken: from here on it is ours to read.
    let full = async { while server.write_all(&frame).await.is_ok() {} };
    let waited = timeout(Duration::from_secs(600), full).await;
    assert!(waited.is_err(), "the connection was closed");
    assert!(replication.next().await.is_ok_and(|chunk| chunk.is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_a_command_is_given_up() {
    let (ours, _server) = UnixStream::pair().expect("a pair of sockets");
    let mut session = Session { stream: Stream::Unix(ours), input: BytesMut::new() };
    let began = Instant::now();
    let answer = timeout(Duration::from_secs(600), session.identify()).await.expect("it is given up");
    assert_eq!(answer.expect_err("a failure").code, "FV-1100");
    assert!(began.elapsed() <= Duration::from_secs(121), "{:?}", began.elapsed());
}
