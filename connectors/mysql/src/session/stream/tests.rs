use proptest::prelude::*;
use tokio::net::UnixStream;

use super::*;
use crate::url::Host;

/// MySQL 9.7.4's answer to the empty set, once it purged its log.
const PURGED: &[u8] = b"\xff\xd4\x04#HY000Cannot replicate because the source purged required binary logs. Replicate the missing transactions from elsewhere, or provision a new replica from backup. Consider increasing the source's binary log expiration period. The GTID set sent by the replica is '', and the missing transactions are 'bbbbbbbb-aaaa-aaaa-aaaa-aaaaaaaaaaaa:1'";
/// MariaDB 10.11.19's when another dump came under the same id.
const SAME_ID: &[u8] = b"\xff\xd4\x0f#HY000A slave with the same server_uuid/server_id is already connected; the first event '.' at 4, the last event read from 'binlog.000002' at 724, the last byte read from 'binlog.000002' at 755.";

fn packet(sequence: &mut u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_le_bytes();
    let header = [length[0], length[1], length[2], *sequence];
    *sequence = sequence.wrapping_add(1);
    [&header, payload].concat()
}

/// An event as a payload: behind its zero byte; of so many bytes, with a type.
fn payload(kind: u8, length: usize) -> Vec<u8> {
    let mut event = vec![0x55; length + 1];
    event[0] = 0;
    event[5] = kind;
    event
}

fn run(silence: Duration) -> (Dump, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let session = Session::new(Stream::Unix(ours), Host::Unix("/s".into()));
    (Dump::run(session, silence), theirs)
}

/// All events of a dump, and how it ended.
async fn drain(dump: &mut Dump) -> (Vec<Vec<u8>>, Result<(), SourceError>) {
    let mut events = Vec::new();
    loop {
        match dump.next().await {
            Ok(Some(chunk)) => {
                for range in &chunk.events {
                    events.push(chunk.data[range.start as usize..range.end as usize].to_vec());
                }
            }
            Ok(None) => return (events, Ok(())),
            Err(error) => return (events, Err(error)),
        }
    }
}

#[tokio::test]
async fn events_come_whole_however_the_bytes_are_cut() {
    let mut sequence = 0;
    let sizes: Vec<usize> = (0..400).map(|at| 19 + at * 7 % 300).collect();
    let mut bytes: Vec<u8> = sizes.iter().flat_map(|&size| packet(&mut sequence, &payload(30, size))).collect();
    bytes.extend(packet(&mut sequence, b"\xfe\0\0\x02\0"));
    for cut in [1, 7, 4096, bytes.len()] {
        let (mut dump, mut server) = run(Duration::from_secs(30));
        let bytes = bytes.clone();
        let sent = async move {
            for part in bytes.chunks(cut) {
                server.write_all(part).await.expect("sent");
            }
            server
        };
        let ((events, ended), _server) = tokio::join!(drain(&mut dump), sent);
        ended.expect("the log's end");
        let expected: Vec<Vec<u8>> = sizes.iter().map(|&size| payload(30, size)[1..].to_vec()).collect();
        assert_eq!(events, expected);
    }
}

#[tokio::test]
async fn a_long_compressed_transaction_comes_in_a_file() {
    for length in [SPILLED_BYTES - 1, SPILLED_BYTES, FULL_PACKET - 1, 2 * FULL_PACKET + 5] {
        let mut sequence = 0;
        let mut bytes = packet(&mut sequence, &payload(30, 19));
        let whole = payload(PAYLOAD_KIND, length);
        let mut rest = &whole[..];
        loop {
            let (part, behind) = rest.split_at(rest.len().min(FULL_PACKET));
            bytes.extend(packet(&mut sequence, part));
            rest = behind;
            if part.len() < FULL_PACKET {
                break;
            }
        }
        bytes.extend(packet(&mut sequence, &payload(30, 20)));
        bytes.extend(packet(&mut sequence, b"\xfe\0\0\x02\0"));
        let (mut dump, mut server) = run(Duration::from_secs(30));
        let sent = async move {
            for part in bytes.chunks(100_003) {
                server.write_all(part).await.expect("sent");
            }
            server
        };
        let read = async {
            let (mut before, mut spilled, mut behind) = (0, None, 0);
            while let Some(chunk) = dump.next().await.expect("goes on") {
                assert!(chunk.data.len() <= SPILLED_BYTES + CHUNK_BYTES, "{} bytes in memory", chunk.data.len());
                if let Some(event) = chunk.spilled {
                    spilled = Some(event);
                } else if spilled.is_some() {
                    behind += chunk.events.len();
                } else {
                    before += chunk.events.len();
                }
            }
            (before, spilled, behind)
        };
        let ((before, spilled, behind), _server) = tokio::join!(read, sent);
        if length < SPILLED_BYTES {
            assert_eq!((before, spilled.is_some(), behind), (3, false, 0));
            continue;
        }
        assert_eq!((before, behind), (1, 1));
        let spilled = spilled.expect("in a file");
        let mut kept = Vec::new();
        std::io::Read::read_to_end(&mut &*spilled.file, &mut kept).expect("reads");
        assert!(kept == whole[1..], "{length}");
        assert_eq!(spilled.size, length as u64);
    }
}

#[tokio::test]
async fn an_event_over_several_packets_is_joined() {
    let lengths = [FULL_PACKET - 1, FULL_PACKET, 2 * FULL_PACKET + 5];
    let mut sequence = 0;
    let mut bytes = packet(&mut sequence, &payload(30, 19));
    for length in lengths {
        let whole = payload(30, length);
        let mut rest = &whole[..];
        loop {
            let (part, behind) = rest.split_at(rest.len().min(FULL_PACKET));
            bytes.extend(packet(&mut sequence, part));
            rest = behind;
            if part.len() < FULL_PACKET {
                break;
            }
        }
    }
    bytes.extend(packet(&mut sequence, &payload(16, 31)));
    let (mut dump, mut server) = run(Duration::from_secs(30));
    let sent = async move { server.write_all(&bytes).await.expect("sent") };
    let ((events, ended), ()) = tokio::join!(drain(&mut dump), sent);
    assert_eq!(ended.expect_err("cut off").code, "FV-1100");
    let found: Vec<usize> = events.iter().map(Vec::len).collect();
    assert_eq!(found, [19, FULL_PACKET - 1, FULL_PACKET, 2 * FULL_PACKET + 5, 31]);
    assert!(events.iter().all(|event| event[5..].iter().all(|&byte| byte == 0x55)));
}

#[tokio::test]
async fn what_came_before_an_error_is_handed_on_first() {
    for (answer, code, kind) in
        [(PURGED, "FV-1301", SourceErrorKind::PositionLost), (SAME_ID, "FV-1313", SourceErrorKind::Busy)]
    {
        let (mut dump, mut server) = run(Duration::from_secs(30));
        let mut sequence = 0;
        let bytes = [packet(&mut sequence, &payload(4, 40)), packet(&mut sequence, answer)].concat();
        server.write_all(&bytes).await.expect("sent");
        let (events, ended) = drain(&mut dump).await;
        let error = ended.expect_err("an error");
        assert_eq!((events.len(), error.code, error.kind), (1, code, kind));
    }
}

#[tokio::test]
async fn packets_out_of_the_protocol_end_the_session() {
    let mut sequence = 1;
    let misnumbered = packet(&mut sequence, &payload(4, 40));
    for bytes in [misnumbered, packet(&mut 0, b"\0short"), packet(&mut 0, b""), packet(&mut 0, b"\x07")] {
        let (mut dump, mut server) = run(Duration::from_secs(30));
        server.write_all(&bytes).await.expect("sent");
        let (events, ended) = drain(&mut dump).await;
        assert_eq!((events.len(), ended.expect_err("an error").code), (0, "FV-1122"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_misses_three_heartbeats_is_dead() {
    let (mut dump, mut server) = run(Duration::from_secs(15));
    let began = Instant::now();
    let mut sequence = 0;
    server.write_all(&packet(&mut sequence, &payload(27, 40))).await.expect("sent");
    let (events, ended) = drain(&mut dump).await;
    assert_eq!((events.len(), ended.expect_err("silence").code), (1, "FV-1123"));
    assert!(began.elapsed() >= Duration::from_secs(15) && began.elapsed() < Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_looks_for_our_place_may_take_longer() {
    let (mut dump, mut server) = run(Duration::from_secs(15));
    let began = Instant::now();
    let mut sequence = 0;
    server.write_all(&packet(&mut sequence, &payload(4, 40))).await.expect("sent");
    let (_, ended) = drain(&mut dump).await;
    assert_eq!(ended.expect_err("silence").code, "FV-1123");
    assert!(began.elapsed() >= FIRST_SILENCE);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_taken_for_a_dead_server() {
    let (mut dump, mut server) = run(Duration::from_secs(15));
    let sending = tokio::spawn(async move {
        let mut sequence = 0;
        for _ in 0..200 {
            server.write_all(&packet(&mut sequence, &payload(30, 8192))).await.expect("sent");
        }
        server.write_all(&packet(&mut sequence, b"\xfe\0\0\x02\0")).await.expect("sent");
        server
    });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let (events, ended) = drain(&mut dump).await;
    ended.expect("the log's end");
    assert_eq!(events.len(), 200);
    sending.await.expect("a server");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), is_event in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ended = runtime.block_on(async {
            let (mut dump, mut server) = run(Duration::from_secs(30));
            let first = if is_event { packet(&mut 0, &payload(4, 40)) } else { Vec::new() };
            server.write_all(&[first, bytes].concat()).await.expect("sent");
            drop(server);
            drain(&mut dump).await.1
        });
        // At the latest the end of the connection is an error; an EOF packet is the log's end.
        if let Err(error) = ended {
            prop_assert_ne!(error.code, "FV-1199");
        }
    }
}

#[tokio::test]
async fn leaving_closes_the_connection() {
    let (dump, mut server) = run(Duration::from_secs(30));
    dump.close().await;
    assert_eq!(server.read(&mut [0; 8]).await.expect("the end"), 0);
}
