//! The frames of the NATS client protocol that a publisher needs.
//!
//! ```text
//! we       HPUB <subject> [<reply>] <header bytes> <all bytes>\r\n<headers>\r\n<body>\r\n
//! server   MSG <subject> <sid> [<reply>] <bytes>\r\n<body>\r\n                     an answer
//!          HMSG <subject> <sid> [<reply>] <header bytes> <all bytes>\r\n...\r\n    503: nobody listens
//!          PING, PONG, +OK, -ERR '<words>', INFO {...}
//! ```
//! Source: docs.nats.io, reference/nats-protocol; headers: ADR-4.

use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;

use crate::event::Events;

/// The longest control line that we read: `INFO` of a large cluster lists all its servers.
const MAX_LINE: usize = 64 * 1024;
/// The largest message that we read: an answer has some hundred bytes.
const MAX_MESSAGE: usize = 1024 * 1024;

const VERSION: &[u8] = b"NATS/1.0\r\n";
const EXPECTED_SEQUENCE: &[u8] = b"Nats-Expected-Last-Sequence: ";
const EXPECTED_STREAM: &[u8] = b"Nats-Expected-Stream: ";

/// The most bytes that a frame's payload has beside an event's headers and body: what the server's
/// `max_payload` leaves for these is smaller by so much. A stream's name has at most 255 bytes.
pub const CHAIN_BYTES: usize = VERSION.len() + EXPECTED_SEQUENCE.len() + 20 + 2 + EXPECTED_STREAM.len() + 255 + 2 + 2;

/// One event as it stands in [`Events`].
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Where it is published.
    pub subject: &'a [u8],
    /// Header lines, each with its line end.
    pub headers: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Event<'a> {
    /// The event at `index`; `None` when there is none or its places do not fit the buffer.
    #[must_use]
    pub fn of(events: &'a Events, index: usize) -> Option<Self> {
        let at = events.list.get(index)?;
        let part = |from: u32, to: u32| events.bytes.get(from as usize..to as usize);
        Some(Self {
            subject: part(at.subject, at.headers)?,
            headers: part(at.headers, at.body)?,
            body: part(at.body, at.end)?,
        })
    }

    /// Bytes of subject, headers and body.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subject.len() + self.headers.len() + self.body.len()
    }

    /// Whether there is nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a frame holds beside its event.
#[derive(Debug, Clone, Copy)]
pub struct Chained<'a> {
    /// The sequence that the stream must end at for the event to be stored.
    pub expected: u64,
    /// The stream that must store it; once for each session is enough.
    pub stream: Option<&'a str>,
    /// The inbox, where an answer is wanted: it goes to `<inbox>.<sequence>`.
    pub inbox: Option<&'a str>,
}

/// Appends the frame of one event; returns its payload's size (headers and body), which the server limits.
pub fn publish(event: &Event<'_>, chained: Chained<'_>, out: &mut BytesMut) -> usize {
    let mut digits = itoa::Buffer::new();
    let expected = digits.format(chained.expected).as_bytes();
    let mut headers = VERSION.len() + event.headers.len() + EXPECTED_SEQUENCE.len() + expected.len() + 2 + 2;
    if let Some(stream) = chained.stream {
        headers += EXPECTED_STREAM.len() + stream.len() + 2;
    }
    let all = headers + event.body.len();
    out.reserve(all + event.subject.len() + 128);

    out.extend_from_slice(b"HPUB ");
    out.extend_from_slice(event.subject);
    if let Some(inbox) = chained.inbox {
        out.extend_from_slice(b" ");
        out.extend_from_slice(inbox.as_bytes());
        out.extend_from_slice(b".");
        uint(chained.expected.saturating_add(1), out);
    }
    out.extend_from_slice(b" ");
    uint(headers as u64, out);
    out.extend_from_slice(b" ");
    uint(all as u64, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(VERSION);
    out.extend_from_slice(event.headers);
    out.extend_from_slice(EXPECTED_SEQUENCE);
    out.extend_from_slice(expected);
    out.extend_from_slice(b"\r\n");
    if let Some(stream) = chained.stream {
        out.extend_from_slice(EXPECTED_STREAM);
        out.extend_from_slice(stream.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(event.body);
    out.extend_from_slice(b"\r\n");
    all
}

fn uint(value: u64, out: &mut BytesMut) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A message to one of our subjects.
    Message {
        /// The last token of its subject, where it is a number: the sequence that we asked for.
        token: Option<u64>,
        /// The status of its headers, `503`, where it has one.
        status: Option<u16>,
        /// Its body.
        body: Bytes,
    },
    /// It wants to know whether we live.
    Ping,
    /// It lives.
    Pong,
    /// It complains, in these words; most complaints are its last words.
    Complaint(String),
    /// News of itself.
    Info {
        /// Whether it is about to shut down.
        lame_duck: bool,
    },
}

/// What a server sends cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A control line that does not end.
    #[error("a line of the nats server is longer than {MAX_LINE} bytes")]
    Line,
    /// A message larger than any answer.
    #[error("a message of the nats server is larger than {MAX_MESSAGE} bytes")]
    Message,
    /// None of the protocol's operations, or one with wrong arguments.
    #[error("the nats server sends what is no operation of the protocol")]
    Operation,
}

/// Takes the incoming bytes apart, however they were cut.
#[derive(Debug, Default)]
pub struct Parser {
    /// What was read and not yet understood. Append here.
    pub unread: BytesMut,
    /// Bytes of it that hold no line end.
    scanned: usize,
}

impl Parser {
    /// Goes on behind what the greeting's reader had read already.
    #[must_use]
    pub fn new(unread: BytesMut) -> Self {
        Self { unread, scanned: 0 }
    }

    /// The next frame; `None` when more bytes are needed.
    ///
    /// # Errors
    /// What is no NATS protocol. The connection is of no use then.
    pub fn next_frame(&mut self) -> Result<Option<Incoming>, WireError> {
        loop {
            let Some(at) = memchr::memchr(b'\n', self.unread.get(self.scanned..).unwrap_or_default()) else {
                self.scanned = self.unread.len();
                return if self.scanned > MAX_LINE { Err(WireError::Line) } else { Ok(None) };
            };
            let end = self.scanned + at + 1;
            if end > MAX_LINE {
                return Err(WireError::Line);
            }
            let line = self.unread.get(..end).unwrap_or_default().trim_ascii_end();
            let operation = operation(line)?;
            let Operation::Message { token, headers, all } = operation else {
                self.unread.advance(end);
                self.scanned = 0;
                match operation {
                    Operation::Nothing => continue,
                    Operation::Whole(incoming) => return Ok(Some(incoming)),
                    Operation::Message { .. } => return Err(WireError::Operation),
                }
            };
            // The body ends with a line end of its own.
            if self.unread.len() < end + all + 2 {
                self.unread.reserve(end + all + 2 - self.unread.len());
                // The line is found again at once: what stands before it does not grow.
                self.scanned = end - 1;
                return Ok(None);
            }
            self.unread.advance(end);
            self.scanned = 0;
            let mut body = self.unread.split_to(all).freeze();
            if !self.unread.starts_with(b"\r\n") {
                return Err(WireError::Operation);
            }
            self.unread.advance(2);
            let headers = body.split_to(headers);
            return Ok(Some(Incoming::Message { token, status: status(&headers), body }));
        }
    }
}

enum Operation {
    Nothing,
    Whole(Incoming),
    Message { token: Option<u64>, headers: usize, all: usize },
}

fn operation(line: &[u8]) -> Result<Operation, WireError> {
    let (name, rest) = match memchr::memchr2(b' ', b'\t', line) {
        Some(at) => (line.get(..at).unwrap_or_default(), line.get(at..).unwrap_or_default().trim_ascii_start()),
        None => (line, &[][..]),
    };
    let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
    if is("MSG") || is("HMSG") {
        return message(rest, is("HMSG"));
    }
    Ok(Operation::Whole(if is("PING") {
        Incoming::Ping
    } else if is("PONG") {
        Incoming::Pong
    } else if is("-ERR") {
        Incoming::Complaint(String::from_utf8_lossy(rest).trim_matches('\'').to_owned())
    } else if is("INFO") {
        #[derive(Deserialize)]
        struct News {
            #[serde(default)]
            ldm: bool,
        }
        let news: News = serde_json::from_slice(rest).map_err(|_| WireError::Operation)?;
        Incoming::Info { lame_duck: news.ldm }
    } else if is("+OK") {
        return Ok(Operation::Nothing);
    } else {
        return Err(WireError::Operation);
    }))
}

/// `<subject> <sid> [<reply>] [<header bytes>] <all bytes>`.
fn message(rest: &[u8], with_headers: bool) -> Result<Operation, WireError> {
    let text = std::str::from_utf8(rest).map_err(|_| WireError::Operation)?;
    let mut fields = text.split_ascii_whitespace();
    let subject = fields.next().ok_or(WireError::Operation)?;
    let count = fields.clone().count();
    let (least, most) = if with_headers { (3, 4) } else { (2, 3) };
    if count < least || count > most {
        return Err(WireError::Operation);
    }
    let mut size = || fields.next_back().and_then(|f| f.parse::<usize>().ok()).ok_or(WireError::Operation);
    let all = size()?;
    let headers = if with_headers { size()? } else { 0 };
    if all > MAX_MESSAGE {
        return Err(WireError::Message);
    }
    if headers > all {
        return Err(WireError::Operation);
    }
    let token = subject.rsplit_once('.').and_then(|(_, token)| token.parse().ok());
    Ok(Operation::Message { token, headers, all })
}

/// The status behind the version: `NATS/1.0 503`.
fn status(headers: &[u8]) -> Option<u16> {
    let rest = headers.strip_prefix(b"NATS/1.0 ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

/// Why a stream did not store a message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// As HTTP has them.
    #[serde(default)]
    pub code: u16,
    /// What exactly: nats-server's `server/errors.json`. 0 when the answer names none.
    #[serde(default)]
    pub err_code: u32,
    /// In the server's words.
    #[serde(default)]
    pub description: String,
}

/// Reads an answer: the sequence that a message was stored at, or why it was not.
/// What cannot be read is a refusal too: it proves nothing.
///
/// # Errors
/// The refusal.
pub fn answer(status: Option<u16>, body: &[u8]) -> Result<u64, Refusal> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        seq: u64,
        #[serde(default)]
        duplicate: bool,
        error: Option<Refusal>,
    }
    let unclear = |description: &str| Refusal { code: 0, err_code: 0, description: description.to_owned() };
    if let Some(code) = status {
        return Err(Refusal { code, ..unclear("no stream listens on the subject") });
    }
    match serde_json::from_slice::<Answer>(body) {
        Ok(Answer { error: Some(refusal), .. }) => Err(refusal),
        // We send no message ids: a duplicate would be one of somebody else's.
        Ok(Answer { duplicate: true, .. }) => Err(unclear("the stream takes the message for a duplicate")),
        Ok(Answer { seq, .. }) if seq > 0 => Ok(seq),
        Ok(_) | Err(_) => Err(unclear("the answer cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::EventAt;

    fn parse(parser: &mut Parser) -> (Vec<Incoming>, Option<WireError>) {
        let mut frames = Vec::new();
        loop {
            match parser.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    fn feed(bytes: &[u8], cuts: &[usize]) -> (Vec<Incoming>, Option<WireError>) {
        let mut parser = Parser::default();
        let mut frames = Vec::new();
        let mut from = 0;
        for to in cuts.iter().copied().chain([bytes.len()]) {
            parser.unread.extend_from_slice(&bytes[from..to]);
            from = to;
            let (more, error) = parse(&mut parser);
            frames.extend(more);
            if error.is_some() {
                return (frames, error);
            }
        }
        (frames, None)
    }

    #[test]
    fn a_frame_counts_its_headers_and_its_bytes() {
        let bytes = b"cdc.shop.aA: b\r\n{}".to_vec();
        let list = vec![EventAt { subject: 0, headers: 10, body: 16, end: 18 }];
        let events = Events { bytes, list, end: None, reads: None };
        let event = Event::of(&events, 0).expect("one");
        let mut out = BytesMut::new();
        let size = publish(&event, Chained { expected: 41, stream: None, inbox: Some("_INBOX.x") }, &mut out);
        let headers = "NATS/1.0\r\nA: b\r\nNats-Expected-Last-Sequence: 41\r\n\r\n";
        let text = format!("HPUB cdc.shop.a _INBOX.x.42 {} {}\r\n{headers}{{}}\r\n", headers.len(), headers.len() + 2);
        assert_eq!(String::from_utf8(out.to_vec()).expect("ascii"), text);
        assert_eq!(size, headers.len() + 2);

        out.clear();
        publish(&event, Chained { expected: 0, stream: Some("S"), inbox: None }, &mut out);
        let headers = "NATS/1.0\r\nA: b\r\nNats-Expected-Last-Sequence: 0\r\nNats-Expected-Stream: S\r\n\r\n";
        let text = format!("HPUB cdc.shop.a {} {}\r\n{headers}{{}}\r\n", headers.len(), headers.len() + 2);
        assert_eq!(String::from_utf8(out.to_vec()).expect("ascii"), text);
        assert!(Event::of(&events, 1).is_none());

        out.clear();
        let longest = "S".repeat(255);
        let size = publish(&event, Chained { expected: u64::MAX, stream: Some(&longest), inbox: None }, &mut out);
        assert_eq!(size, "A: b\r\n{}".len() + CHAIN_BYTES);
    }

    #[test]
    fn each_operation_is_understood() {
        let bytes = b"PING\r\n+OK\r\nPONG\r\nINFO {\"ldm\":true}\r\n-ERR 'Slow Consumer'\r\n\
            MSG _INBOX.x.7 1 2\r\nhi\r\nMSG _INBOX.x 1 r 0\r\n\r\nHMSG _INBOX.x.8 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
        let (frames, error) = feed(bytes, &[]);
        assert_eq!(error, None);
        assert_eq!(
            frames,
            [
                Incoming::Ping,
                Incoming::Pong,
                Incoming::Info { lame_duck: true },
                Incoming::Complaint("Slow Consumer".into()),
                Incoming::Message { token: Some(7), status: None, body: Bytes::from_static(b"hi") },
                Incoming::Message { token: None, status: None, body: Bytes::new() },
                Incoming::Message { token: Some(8), status: Some(503), body: Bytes::new() },
            ]
        );
    }

    #[test]
    fn what_has_no_end_is_refused() {
        assert_eq!(feed(&vec![b'x'; MAX_LINE + 1], &[]).1, Some(WireError::Line));
        assert_eq!(feed(b"MSG a 1 1048577\r\n", &[]).1, Some(WireError::Message));
        for text in
            ["HMSG a 1 5 4\r\n", "MSG a 1\r\n", "MSG a 1 -1\r\n", "MSG a 1 r r 1\r\n", "HUH\r\n", "MSG a 1 1\r\nxyz"]
        {
            assert_eq!(feed(text.as_bytes(), &[]).1, Some(WireError::Operation), "{text:?}");
        }
    }

    #[test]
    fn an_answer_tells_the_sequence_or_the_refusal() {
        assert_eq!(answer(None, br#"{"stream":"S","seq":7}"#), Ok(7));
        let refusal =
            answer(None, br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"}}"#);
        assert_eq!(refusal.expect_err("refused").err_code, 10071);
        assert_eq!(answer(Some(503), b"").expect_err("nobody").code, 503);
        assert!(answer(None, br#"{"stream":"S","seq":7,"duplicate":true}"#).is_err());
        for body in [&b""[..], b"{}", b"[]", b"nonsense", br#"{"stream":"S","seq":0}"#] {
            assert!(answer(None, body).is_err());
        }
    }

    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let one = prop_oneof![
            Just(b"PING\r\n".to_vec()),
            Just(b"+OK\r\n".to_vec()),
            Just(b"INFO {\"server_id\":\"x\"}\r\n".to_vec()),
            Just(b"-ERR 'no'\r\n".to_vec()),
            Just(b"HMSG i.9 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n".to_vec()),
            (any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(token, body)| {
                let mut bytes = format!("MSG i.{token} 1 {}\r\n", body.len()).into_bytes();
                bytes.extend_from_slice(&body);
                bytes.extend_from_slice(b"\r\n");
                bytes
            }),
        ];
        prop::collection::vec(one, 0..8).prop_map(|all| all.concat())
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_frames_are_the_same(
            bytes in frames(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let whole = feed(&bytes, &[]);
            prop_assert_eq!(whole.1, None);
            prop_assert_eq!(feed(&bytes, &cuts), whole);
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(H?MSG|PING|INFO|-ERR|\\+OK)[ a-z0-9.{}\"]{0,20}\r\n.{0,20}",
        ) {
            feed(&bytes, &[]);
            feed(text.as_bytes(), &[]);
            let _ = answer(None, &bytes);
        }
    }
}
