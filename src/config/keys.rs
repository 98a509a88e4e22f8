//! Every key of the file: what it holds, what holds without it, and what it is for.
//!
//! The one table that the loader, the overrides and the JSON Schema rest on.

/// A key of a section.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What holds when the key is absent, as one would write it.
    pub(super) default: Option<&'static str>,
    /// Whether the section is wrong without it.
    pub(super) required: bool,
    /// What it is for: one sentence, shown by editors.
    pub(super) about: &'static str,
}

/// What a key holds.
pub(super) enum Kind {
    /// Text that may be shown.
    Text,
    /// Text that is never shown.
    Secret,
    /// One text or a list of them; the texts are never shown.
    SecretOrList,
    /// A list of texts.
    List,
    /// One text or a list of them.
    TextOrList,
    /// Texts under names of the user's choice, or a list of texts.
    Members,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Whole { min: u64, max: u64 },
    /// A length of time, `10s`.
    Duration { min_ms: u64, off: bool },
    /// A number of bytes, `32MiB`.
    Size { min: u64, max: u64, off: bool },
    /// A socket address or `off`.
    Listen,
    /// A section.
    Section(&'static [Key]),
    /// A section of sections under names of the user's choice.
    Named(&'static [Key]),
    /// A list of sections.
    Each(&'static [Key]),
}

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, default: None, required: false, about }
}

impl Key {
    const fn or(self, default: &'static str) -> Self {
        Self { name: self.name, kind: self.kind, default: Some(default), required: self.required, about: self.about }
    }

    const fn required(self) -> Self {
        Self { name: self.name, kind: self.kind, default: self.default, required: true, about: self.about }
    }
}

const MIB: u64 = 1 << 20;

/// The whole file.
pub(super) const ROOT: &[Key] = &[
    key("nats", Kind::Section(NATS), "How to reach NATS.").required(),
    key(
        "sources",
        Kind::Named(SOURCE),
        "The databases, by name; the name stands in subjects, stream, slot and metrics.",
    )
    .required(),
    key("http", Kind::Section(HTTP), "Health, metrics and status over HTTP."),
    key(
        "shutdown_timeout",
        Kind::Duration { min_ms: 1, off: false },
        "How long a shutdown may take to flush and to store a checkpoint.",
    )
    .or("20s"),
];

const NATS: &[Key] = &[
    key(
        "url",
        Kind::SecretOrList,
        "Server addresses, nats://host:port or tls://host:port; required without a context.",
    ),
    key("context", Kind::Text, "The name of a context of the nats CLI; url, auth and tls win over what it says."),
    key("auth", Kind::Section(AUTH), "One way to authenticate."),
    key("tls", Kind::Section(TLS), "TLS beyond what the address says."),
];

const AUTH: &[Key] = &[
    key("creds", Kind::Text, "A credentials file: JWT and seed."),
    key("nkey", Kind::Text, "A file with an nkey seed."),
    key("jwt", Kind::Text, "A file with a JWT; goes with seed."),
    key("seed", Kind::Text, "A file with the seed of the JWT."),
    key("user", Kind::Text, "The user; goes with password."),
    key("password", Kind::Secret, "The user's password."),
    key("token", Kind::Secret, "A token."),
];

const TLS: &[Key] = &[
    key("ca", Kind::Text, "PEM file of the authorities to trust instead of the system's."),
    key("cert", Kind::Text, "PEM file of our certificate chain; goes with key."),
    key("key", Kind::Text, "PEM file of its key."),
    key("first", Kind::Bool, "TLS before the server's greeting.").or("false"),
];

const SOURCE: &[Key] = &[
    key("postgres", Kind::Section(POSTGRES), "A PostgreSQL database."),
    key("mysql", Kind::Section(MYSQL), "A MySQL server."),
    key("mariadb", Kind::Section(MYSQL), "A MariaDB server."),
    key(
        "tables",
        Kind::List,
        "Globs over schema.table (MySQL, MariaDB: database.table); '!' takes away; later ones win.",
    )
    .required(),
    key("stream", Kind::Section(STREAM), "The JetStream stream."),
    key(
        "format",
        Kind::Word(&["cloudevents", "cloudevents-structured", "plain", "debezium"]),
        "The envelope of events.",
    )
    .or("cloudevents"),
    key("debezium", Kind::Section(super::debezium::KEYS), "Options of the format debezium, by Debezium's own names."),
    key("partitions", Kind::Whole { min: 1, max: 100 }, "Number of partitions that keys are spread over.").or("16"),
    key("subject", Kind::Text, "The subject of change events, a template that begins with 'cdc.{source}.'.")
        .or("cdc.{source}.{schema}.{table}.{partition}"),
    key("ce_source", Kind::Text, "The attribute ce-source; by default /figvine/<source>."),
    key(
        "release_delay",
        Kind::Duration { min_ms: 0, off: false },
        "How long the database keeps its log behind what the stream has stored.",
    )
    .or("0s"),
    key(
        "initial",
        Kind::Word(&["backfill", "none"]),
        "What to do about rows that are there before the first start, and in tables that are captured from later on.",
    )
    .or("none"),
    key("backfill", Kind::Section(BACKFILL), "How existing rows are read."),
    key("ignore", Kind::Section(IGNORE), "Transactions that are not told."),
    key("schemas", Kind::Section(SCHEMAS), "The schemas of event types: how they may change."),
    key(
        "on_poison",
        Kind::Word(&["stop", "park"]),
        "What to do about a change that cannot be told, or an event that a rule cannot make: stop at it, or park it as a dead letter.",
    )
    .or("stop"),
    key("dead_letters", Kind::Section(DEAD_LETTERS), "Where what is parked is kept."),
    key("private", Kind::Section(PRIVATE), "What of the rows is hidden before anything leaves the process."),
    key("rules", Kind::Each(RULE), "Domain events that are made of changes."),
    key("rule_files", Kind::List, "Files with more rules, each with the key rules."),
    key("domain_subject", Kind::Text, "The subject of domain events, a template that begins with 'events.{source}.'.")
        .or("events.{source}.{type}.{partition}"),
    key("outbox", Kind::Section(OUTBOX), "Events that the application writes itself, into a table or into the log."),
];

/// Of a file of rules.
pub(super) const RULE_FILE: &[Key] =
    &[key("rules", Kind::Each(RULE), "Domain events that are made of changes.").required()];

const RULE: &[Key] = &[
    key("type", Kind::Text, "The type of the events: letters, digits, '_' and '-'.").required(),
    key("version", Kind::Whole { min: 1, max: 9999 }, "The major version of the type.").or("1"),
    key("name", Kind::Text, "The rule's name, which stands in identities of events; by default the type."),
    key("from", Kind::Text, "The table, schema.table (MySQL, MariaDB: database.table).").required(),
    key(
        "on",
        Kind::List,
        "The operations: insert, update, delete, which are all where it is left out; or read, for existing rows of a backfill.",
    ),
    key("changed", Kind::List, "Columns of which an update must have changed one at least."),
    key("when", Kind::Text, "A condition in CEL over after, before and tx."),
    key("key", Kind::TextOrList, "A list of columns, or an expression in CEL; by default the table's key."),
    key("data", Kind::Members, "A list of columns, or expressions in CEL by the names of members; by default the row."),
    key("also_change_event", Kind::Bool, "Whether the change is told by an event of its own, too.").or("true"),
    key("aggregate", Kind::Section(AGGREGATE), "Parts that belong to the row: one event per row and transaction."),
];

const AGGREGATE: &[Key] = &[
    key("root", Kind::Text, "The table of the whole: that of from, which it is by default."),
    key("include", Kind::Each(INCLUDE), "The tables of the parts.").required(),
    key("complete_when", Kind::Word(&["transaction"]), "When it is told.").or("transaction"),
    key(
        "max_bytes",
        Kind::Size { min: 1 << 10, max: 1 << 34, off: false },
        "Bytes of rows that may be held of one transaction.",
    )
    .or("64MiB"),
    key(
        "on_large",
        Kind::Word(&["park", "stop", "spill"]),
        "Beyond that: park tells one event <type>_missing in the place of the rule's, stop ends the source, spill holds rows in a temporary file.",
    )
    .or("park"),
];

const INCLUDE: &[Key] = &[
    key("table", Kind::Text, "The table: schema.table, or its own name where it lies beside the root.").required(),
    key("on", Kind::Text, "The column that holds the root's key.").required(),
    key("as", Kind::Text, "The name of the list; by default the table's own."),
    key("columns", Kind::List, "The columns of each part; by default all."),
    key(
        "lookup",
        Kind::Bool,
        "Whether parts that the transaction did not touch are read from the table, as they are then; <as>_looked_up_at says when.",
    )
    .or("false"),
];

const OUTBOX: &[Key] = &[
    key("table", Kind::Text, "The table, schema.table (MySQL, MariaDB: database.table)."),
    key("columns", Kind::Section(OUTBOX_COLUMNS), "What its columns are called."),
    key("messages", Kind::List, "PostgreSQL: globs over the prefixes of logical messages that are events."),
];

const OUTBOX_COLUMNS: &[Key] = &[
    key("type", Kind::Text, "The column with the type of the event.").or("type"),
    key("key", Kind::Text, "The column with what the event is keyed by.").or("aggregateid"),
    key("payload", Kind::Text, "The column with the body.").or("payload"),
];

const IGNORE: &[Key] = &[
    key(
        "origins",
        Kind::List,
        "PostgreSQL: names of replication origins; MySQL: UUIDs of servers; MariaDB: GTID domains.",
    ),
    key(
        "annotations",
        Kind::List,
        "PostgreSQL: globs over the prefixes of logical messages; MySQL, MariaDB: texts in comments of statements.",
    ),
];

const SCHEMAS: &[Key] = &[
    key("enabled", Kind::Bool, "Whether schemas are kept and named; the format debezium has none.").or("true"),
    key(
        "compatibility",
        Kind::Word(&[
            "full_transitive",
            "full",
            "backward",
            "backward_transitive",
            "forward",
            "forward_transitive",
            "none",
        ]),
        "What a change within a major version must keep readable: older events for new consumers (backward), newer ones for old (forward), both (full).",
    )
    .or("full_transitive"),
    key(
        "on_drift",
        Kind::Word(&["degrade", "stop", "park"]),
        "What to do about a change that is not compatible: begin a new major version, stop at it, or park the rows in the new shape.",
    )
    .or("degrade"),
];

const DEAD_LETTERS: &[Key] = &[
    key("stream", Kind::Text, "The stream's name; by default that of the source's stream with _DEAD behind it."),
    key(
        "max_messages",
        Kind::Whole { min: 1, max: 10_000_000 },
        "Letters that it holds; a full one takes nothing more, and the source stops.",
    )
    .or("10000"),
    key("max_age", Kind::Duration { min_ms: 100, off: true }, "Letters older than this are removed.").or("off"),
];

const PRIVATE: &[Key] = &[
    key(
        "default",
        Kind::Word(&["allow", "deny"]),
        "What becomes of a column without a rule; deny does not publish it.",
    )
    .or("allow"),
    key(
        "key",
        Kind::Secret,
        "The secret, 16 characters or more, that the keys of hash, tokenise and encrypt are made of.",
    ),
    key("columns", Kind::Each(PRIVATE_COLUMN), "Rules for columns; of several for one the last holds."),
];

const PRIVATE_COLUMN: &[Key] = &[
    key(
        "match",
        Kind::Text,
        "A glob over schema.table.column (MySQL, MariaDB: database.table.column), in either case.",
    )
    .required(),
    key("publish", Kind::Bool, "Publish the column as it is."),
    key("drop", Kind::Bool, "Do not publish the column."),
    key("mask", Kind::Section(PRIVATE_MASK), "Publish little or nothing of its values."),
    key("hash", Kind::Section(&[]), "Publish the HMAC-SHA256 of its values."),
    key("tokenise", Kind::Section(&[]), "Publish texts of the same look, one to one with the values."),
    key(
        "encrypt",
        Kind::Section(PRIVATE_ENCRYPT),
        "Publish its values encrypted for the subject that the row is about.",
    ),
];

const PRIVATE_MASK: &[Key] = &[
    key("text", Kind::Text, "The text that stands for every value; *** without any key here."),
    key("keep_first", Kind::Whole { min: 1, max: 1024 }, "Characters that are left at the beginning."),
    key("keep_last", Kind::Whole { min: 1, max: 1024 }, "Characters that are left at the end."),
];

const PRIVATE_ENCRYPT: &[Key] = &[
    key("subject", Kind::Text, "The column of the same row that names the subject.").required(),
    key("kind", Kind::Text, "What kind of subject it names.").or("subject"),
    key("shredded", Kind::Word(&["null", "mask"]), "What later values of a shredded subject are.").or("null"),
];

const BACKFILL: &[Key] = &[
    key("rate", Kind::Whole { min: 0, max: u32::MAX as u64 }, "Rows a second; 0 is as fast as it goes.").or("0"),
    key(
        "bytes_rate",
        Kind::Size { min: 1 << 10, max: u32::MAX as u64, off: true },
        "Bytes of events a second; off is as fast as it goes.",
    )
    .or("off"),
    key("parallel", Kind::Whole { min: 1, max: 32 }, "Tables that are read at the same time.").or("2"),
    key("chunk_time", Kind::Duration { min_ms: 1, off: false }, "How long the reading of one chunk should take.")
        .or("250ms"),
    key(
        "max_replica_lag",
        Kind::Duration { min_ms: 1, off: true },
        "Backfills wait while a replica of the database is further behind.",
    )
    .or("30s"),
    key(
        "max_active_sessions",
        Kind::Whole { min: 0, max: u32::MAX as u64 },
        "Backfills wait while more sessions are at work in the database; 0 does not look.",
    )
    .or("0"),
    key(
        "min_log_free",
        Kind::Whole { min: 0, max: 100 },
        "Backfills wait while less of the log that the database may keep for us is free, in percent.",
    )
    .or("30"),
];

const POSTGRES: &[Key] = &[
    key("url", Kind::Secret, "postgres://user:password@host:port/database?sslmode=verify-full").required(),
    key("slot", Kind::Text, "The replication slot; by default figvine_<source>."),
    key("publication", Kind::Text, "The publication; by default figvine_<source>."),
    key("publication_managed", Kind::Bool, "Whether the publication is created and kept to the configured tables.")
        .or("true"),
    key("publish_via_partition_root", Kind::Bool, "Whether rows of partitions come as rows of the partitioned table.")
        .or("false"),
    key("keyless", Kind::Word(&["refuse", "whole_row"]), "What to do with a table that has no key.").or("refuse"),
    key("messages", Kind::List, "Globs over the prefixes of logical messages that become events."),
    key(
        "trace_message",
        Kind::Text,
        "The prefix of the logical message that holds, before its first change, the traceparent of a transaction; or off.",
    )
    .or("traceparent"),
    key(
        "heartbeat",
        Kind::Duration { min_ms: 100, off: true },
        "How often a heartbeat is written into the log, so that an idle database's log is released.",
    )
    .or("10s"),
    key(
        "lock_timeout",
        Kind::Duration { min_ms: 1, off: false },
        "How long slot creation may wait for running transactions.",
    )
    .or("10s"),
    key("bigint", Kind::Word(&["number", "string"]), "How int8 is written.").or("number"),
    key("decimal", Kind::Word(&["string", "number"]), "How numeric is written.").or("string"),
];

/// MariaDB's too.
const MYSQL: &[Key] = &[
    key("url", Kind::Secret, "mysql://user:password@host:port/database?ssl-mode=VERIFY_IDENTITY").required(),
    key(
        "server_id",
        Kind::Whole { min: 1, max: u32::MAX as u64 },
        "The id under which we read, unlike that of any server or replica; by default made of the stream's name.",
    ),
    key("keyless", Kind::Word(&["refuse", "whole_row"]), "What to do with a table that has no key.").or("refuse"),
    key(
        "on_statement",
        Kind::Word(&["error", "warn"]),
        "What to do with a statement in the log that changes a captured table without telling its rows.",
    )
    .or("error"),
    key(
        "trace_comments",
        Kind::Bool,
        "Whether traceparent in a comment of a statement, as sqlcommenter writes it, is the trace of its changes.",
    )
    .or("false"),
    key(
        "heartbeat",
        Kind::Duration { min_ms: 100, off: false },
        "How often the server says that it is there while the log has nothing new; three missing ones end the session.",
    )
    .or("5s"),
    key("bigint", Kind::Word(&["number", "string"]), "How BIGINT is written.").or("number"),
    key("decimal", Kind::Word(&["string", "number"]), "How DECIMAL is written.").or("string"),
    key("tinyint1", Kind::Word(&["number", "boolean"]), "How TINYINT(1) is written.").or("number"),
    key(
        "zero_date",
        Kind::Word(&["string", "null", "error"]),
        "What a date with a zero in it is written as; error stops at it.",
    )
    .or("string"),
];

const STREAM: &[Key] = &[
    key("name", Kind::Text, "The stream's name; by default FIGVINE_<SOURCE>."),
    key("replicas", Kind::Whole { min: 1, max: 5 }, "Copies of the stream.").or("1"),
    // The server refuses less than 100 ms (error 10052).
    key("max_age", Kind::Duration { min_ms: 100, off: true }, "Messages older than this are removed.").or("off"),
    key(
        "max_bytes",
        Kind::Size { min: 1, max: i64::MAX as u64, off: true },
        "Bytes the stream may hold; a full one takes nothing more.",
    )
    .or("off"),
    key("compression", Kind::Bool, "Whether the server compresses the stream on disk.").or("false"),
    key("adopt", Kind::Bool, "Whether to take over a stream that does not carry our mark.").or("false"),
    key(
        "on_stream_loss",
        Kind::Word(&["stop", "reread"]),
        "What to do when the stream lost messages that it had acknowledged.",
    )
    .or("stop"),
    key(
        "ack_timeout",
        Kind::Duration { min_ms: 1, off: false },
        "How long a message may stay unacknowledged before the session is given up.",
    )
    .or("2s"),
    key("window_messages", Kind::Whole { min: 1, max: 50_000 }, "Messages in flight.").or("4096"),
    key("window_bytes", Kind::Size { min: 1 << 10, max: 64 * MIB, off: false }, "Bytes in flight.").or("32MiB"),
];

const HTTP: &[Key] = &[key("listen", Kind::Listen, "The address to listen on, or off.").or("127.0.0.1:9464")];
