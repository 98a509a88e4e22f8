use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use figvine_change::{Body, Cell, Change, Column, Op, Row, RowChange, Transaction, ValueCodec, ValueError};
use futures_util::FutureExt;
use proptest::prelude::*;
use secrecy::SecretString;

use super::*;

/// Digits as they are.
#[derive(Debug)]
struct Digits;

impl ValueCodec for Digits {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        out.extend_from_slice(raw);
        let is_number = !raw.is_empty() && raw.iter().all(u8::is_ascii_digit);
        if is_number { Ok(()) } else { Err(ValueError { type_name: "int8".into(), reason: "not all digits" }) }
    }
}

/// Any text as a string.
#[derive(Debug)]
struct Text;

impl ValueCodec for Text {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        figvine_change::json::write_string(raw, out);
        Ok(())
    }
}

fn table(name: &str, columns: &[&str], key: &[usize]) -> Arc<Table> {
    let columns = columns.iter().map(|name| {
        let codec: Arc<dyn ValueCodec> = if name.ends_with("id") { Arc::new(Digits) } else { Arc::new(Text) };
        Column { name: (*name).into(), type_name: "some type".into(), codec }
    });
    Arc::new(Table { schema: "public".into(), name: name.into(), columns: columns.collect(), key: key.to_vec() })
}

fn people() -> Arc<Table> {
    table("people", &["id", "password", "email", "name"], &[0])
}

/// `None`: null; `Some("?")`: unchanged.
type Cells<'a> = &'a [Option<&'a str>];

#[derive(Default)]
struct Maker {
    batch: Batch,
    data: Vec<u8>,
}

impl Maker {
    fn row(&mut self, cells: Cells<'_>) -> Row {
        let first = self.batch.cells.len() as u32;
        for cell in cells {
            let cell = match cell {
                None => Cell::Null,
                Some("?") => Cell::Unchanged,
                Some(text) => {
                    let start = self.data.len() as u32;
                    self.data.extend_from_slice(text.as_bytes());
                    Cell::Value(start..self.data.len() as u32)
                }
            };
            self.batch.cells.push(cell);
        }
        Row { first, len: cells.len() as u32 }
    }

    fn change(&mut self, table: &Arc<Table>, op: Op, rows: [Option<Row>; 3], before_is_key: bool) -> &mut Self {
        let place = self.batch.tables.iter().position(|other| Arc::ptr_eq(other, table));
        let place = place.unwrap_or_else(|| {
            self.batch.tables.push(Arc::clone(table));
            self.batch.tables.len() - 1
        });
        let [before, after, rekeyed] = rows;
        let body = Body::Row(RowChange { table: place as u32, op, before, before_is_key, after, rekeyed });
        self.batch.changes.push(Change { transaction: 0, ordinal: 0, part: 1, last: false, body });
        self
    }

    fn insert(&mut self, table: &Arc<Table>, cells: Cells<'_>) -> &mut Self {
        let row = self.row(cells);
        self.change(table, Op::Insert, [None, Some(row), None], false)
    }

    fn done(&mut self) -> Batch {
        Batch { data: std::mem::take(&mut self.data).into(), ..std::mem::take(&mut self.batch) }
    }
}

/// One insert.
fn inserted(table: &Arc<Table>, cells: Cells<'_>) -> Batch {
    Maker::default().insert(table, cells).done()
}

fn settings(denies: bool, rules: &[(&str, Action)]) -> Arc<Settings> {
    let rules = rules.iter().map(|(glob, action)| Rule::new(glob, action.clone()).expect("a rule")).collect();
    Arc::new(Settings::new(denies, rules, Some(&SecretString::from("a secret of sixteen"))))
}

fn private(rules: &[(&str, Action)]) -> Private<Passing> {
    Private::new(settings(false, rules), Passing::default())
}

fn mapped<K: KeyStore>(private: &mut Private<K>, mut batch: Batch) -> Result<Batch, PrivateError> {
    let outcome = private.map(&mut batch).now_or_never().expect("nothing to wait for");
    outcome.map(|()| batch)
}

/// The values of a row by their columns' names, as they would be published; what cannot be written as its error.
fn shown(batch: &Batch, table: u32, row: Row) -> BTreeMap<String, String> {
    let table = batch.table(table).expect("a table");
    let cells = batch.row(row);
    assert_eq!(cells.len(), table.columns.len(), "as many cells as columns");
    let value = |column: &Column, cell: &Cell| match cell {
        Cell::Null => "null".to_owned(),
        Cell::Unchanged => "unchanged".to_owned(),
        Cell::Value(range) => {
            let mut out = Vec::new();
            match column.codec.write_json(batch.bytes(range), &mut out) {
                Ok(()) => String::from_utf8(out).expect("UTF-8"),
                Err(error) => format!("error: {error}"),
            }
        }
    };
    table.columns.iter().zip(cells).map(|(column, cell)| (column.name.to_string(), value(column, cell))).collect()
}

/// All rows of all changes.
fn all(batch: &Batch) -> Vec<BTreeMap<String, String>> {
    let mut found = Vec::new();
    for change in &batch.changes {
        let Body::Row(row) = &change.body else { continue };
        found.extend([row.before, row.after, row.rekeyed].into_iter().flatten().map(|r| shown(batch, row.table, r)));
    }
    found
}

fn encrypt(subject: &str) -> Action {
    Action::Encrypt(Encrypt { subject: subject.into(), kind: "person".into(), shredded: Shredded::Null })
}

#[test]
fn a_batch_without_hidden_columns_is_passed_on_as_it_came() {
    for mut private in [private(&[]), private(&[("*.orders.*", Action::Drop)])] {
        let batch = inserted(&people(), &[Some("1"), Some("x"), Some("y"), None]);
        let (data, table) = (batch.data.as_ptr(), Arc::clone(&batch.tables[0]));
        let batch = mapped(&mut private, batch).expect("maps");
        assert_eq!(batch.data.as_ptr(), data);
        assert!(Arc::ptr_eq(&batch.tables[0], &table));
    }
}

#[test]
fn hidden_values_are_in_no_row_and_dropped_columns_in_no_table() {
    let mut private = private(&[
        ("*.people.password", Action::Drop),
        ("*.people.email", Action::Hash),
        ("*.people.name", Action::Mask(Mask::Keep { first: 1, last: 0 })),
    ]);
    let (people, orders) = (people(), table("orders", &["id", "note"], &[0]));
    let mut maker = Maker::default();
    maker.insert(&people, &[Some("1"), Some("CANARY"), Some("CANARY@x"), Some("CANARY")]);
    maker.insert(&orders, &[Some("7"), Some("as it is")]);
    let (before, after) =
        (maker.row(&[Some("1"), Some("?"), None, None]), maker.row(&[Some("1"), None, Some("?"), None]));
    maker.change(&people, Op::Update, [Some(before), Some(after), None], false);
    let batch = mapped(&mut private, maker.done()).expect("maps");
    let names = |at: usize| batch.tables[at].columns.iter().map(|c| format!("{}: {}", c.name, c.type_name)).collect();
    let columns: [Vec<String>; 2] = [names(0), names(1)];
    assert_eq!(columns[0], ["id: some type", "email: hashed some type", "name: masked some type"]);
    assert_eq!(columns[1], ["id: some type", "note: some type"]);
    assert_eq!(batch.tables[0].key, [0]);
    let rows = all(&batch);
    assert!(!format!("{rows:?}").contains("ANARY"), "{rows:?}");
    assert_eq!(rows[0]["name"], "\"C***\"");
    assert_eq!(rows[0]["email"].len(), 66);
    assert_eq!(rows[1]["note"], "\"as it is\"");
    assert_eq!((rows[2]["email"].as_str(), rows[3]["email"].as_str()), ("null", "unchanged"));
    // The same table in a later batch is the same table still.
    let later = mapped(&mut private, inserted(&people, &[Some("2"), None, None, None])).expect("maps");
    assert!(Arc::ptr_eq(&later.tables[0], &batch.tables[0]));
}

#[test]
fn a_key_keeps_its_columns_when_others_before_it_are_dropped() {
    let table = table("t", &["secret", "b_id", "note", "a_id"], &[1, 3]);
    let mut private = private(&[("*.*.secret", Action::Drop), ("*.*.a_id", Action::Tokenise)]);
    let batch = inserted(&table, &[Some("CANARY"), Some("12"), Some("n"), Some("34")]);
    let batch = mapped(&mut private, batch).expect("maps");
    let key: Vec<_> = batch.tables[0].key.iter().map(|&at| &*batch.tables[0].columns[at].name).collect();
    assert_eq!(key, ["b_id", "a_id"]);
    assert_eq!(all(&batch)[0]["b_id"], "12");
    assert_ne!(all(&batch)[0]["a_id"], "\"34\"");
}

#[test]
fn equal_values_hash_alike_whatever_their_columns_types() {
    let mut private = private(&[("*.*.*", Action::Hash)]);
    let table = table("t", &["id", "text"], &[0]);
    let row = &all(&mapped(&mut private, inserted(&table, &[Some("42"), Some("42")])).expect("maps"))[0];
    assert_eq!(row["id"], row["text"]);
    // Escapes belong to JSON, not to the text.
    let quoted = &all(&mapped(&mut private, inserted(&table, &[None, Some("a\"b")])).expect("maps"))[0];
    assert_eq!(quoted["text"][1..65], hex(&Master::new("a secret of sixteen").hash(b"a\"b")));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_value_that_cannot_be_read_is_told_by_its_own_codec_and_not_written() {
    let mut private = private(&[("*.*.id", Action::Hash), ("*.*.password", Action::Drop)]);
    let batch = mapped(&mut private, inserted(&people(), &[Some("CANARY"), None, None, None])).expect("maps");
    assert_eq!(all(&batch)[0]["id"], "error: not a value of type int8: not all digits");
}

#[test]
fn a_key_is_not_dropped_or_masked_nor_encrypted_for_whom_it_does_not_name() {
    let refused = |denies, rules: &[(&str, Action)]| {
        let mut private = Private::new(settings(denies, rules), Passing::default());
        let error = mapped(&mut private, inserted(&people(), &[Some("1"), None, None, None])).expect_err("refused");
        assert!(!error.is_transient());
        error.to_string()
    };
    let of_key = "column id of table public.people belongs to its key and cannot be";
    assert_eq!(refused(false, &[("*.*.id", Action::Drop)]), format!("{of_key} dropped"));
    assert_eq!(refused(false, &[("*.*.ID", Action::Mask(Mask::default()))]), format!("{of_key} masked"));
    assert_eq!(refused(true, &[]), format!("{of_key} dropped"));
    assert!(refused(false, &[("*.*.id", encrypt("email"))]).contains("its email, which is not in the key"));
    assert!(refused(false, &[("*.*.email", encrypt("nobody"))]).contains("no such column"));
    let rules = vec![Rule::new("*.*.email", Action::Hash).expect("a rule")];
    let mut without = Private::new(Arc::new(Settings::new(false, rules, None)), Passing::default());
    let error = mapped(&mut without, inserted(&people(), &[Some("1"), None, None, None])).expect_err("refused");
    assert!(error.to_string().contains("without a key"), "{error}");
}

#[test]
fn where_columns_are_denied_only_those_with_a_rule_are_published() {
    let rules = [("*.*.id", Action::Publish), ("*.people.email", Action::Tokenise)];
    let mut private = Private::new(settings(true, &rules), Passing::default());
    let batch = inserted(&people(), &[Some("1"), Some("CANARY"), Some("anna@x.org"), Some("CANARY")]);
    let batch = mapped(&mut private, batch).expect("maps");
    assert_eq!(batch.tables[0].columns.len(), 2);
    let rows = all(&batch);
    assert_eq!(rows[0]["id"], "1");
    assert!(rows[0]["email"].len() == 12 && rows[0]["email"].contains('@'));
}

#[test]
fn the_halves_of_a_key_change_share_their_rows() {
    let mut private = private(&[("*.*.password", Action::Drop), ("*.*.id", Action::Hash)]);
    let people = people();
    let mut maker = Maker::default();
    let (old, new) = (maker.row(&[Some("1"), None, None, None]), maker.row(&[Some("2"), Some("p"), None, Some("n")]));
    maker.change(&people, Op::Delete, [Some(old), None, Some(new)], true);
    maker.change(&people, Op::Insert, [Some(old), Some(new), Some(old)], true);
    let rows = all(&mapped(&mut private, maker.done()).expect("maps"));
    assert_eq!([&rows[0], &rows[1]], [&rows[2], &rows[3]]);
    assert_eq!(rows[0]["id"], rows[4]["id"]);
    assert_ne!(rows[0]["id"], rows[1]["id"]);
}

#[test]
fn a_row_of_another_width_is_refused_before_it_is_taken_for_one() {
    let mut private = private(&[("*.*.password", Action::Drop)]);
    let narrow: Cells<'_> = &[Some("1"), Some("CANARY"), None];
    let wide: Cells<'_> = &[Some("1"), None, Some("CANARY"), None, None];
    for row in [narrow, wide] {
        let error = mapped(&mut private, inserted(&people(), row)).expect_err("refused");
        assert!(matches!(error, PrivateError::Malformed(_)), "{error}");
    }
}

#[test]
fn a_rule_that_means_no_column_or_does_not_fit_its_table_is_found() {
    let column = |table: &str, name: &str, is_key| figvine_change::NamedColumn {
        schema: "public".into(),
        table: table.into(),
        name: name.into(),
        is_key,
    };
    let columns = [column("t", "id", true), column("t", "email", false), column("u", "name", false)];
    let told = |denies, rules: &[(&str, Action)]| -> Vec<String> {
        let findings = settings(denies, rules).check(&columns);
        findings.iter().map(|f| format!("{} {} {}: {}", f.severity, f.code, f.object, f.what)).collect()
    };
    assert!(told(false, &[]).is_empty());
    assert_eq!(
        told(false, &[("*.*.email", Action::Hash), ("*.*.mail", Action::Drop), ("*.t.id", Action::Drop)]),
        [
            "warning FV-3107 setting private: the glob '*.*.mail' means no column of a captured table",
            "blocker FV-3104 table public.t: column id of table public.t belongs to its key and cannot be dropped",
        ]
    );
    assert_eq!(
        told(true, &[("*.*.id", Action::Publish), ("*.T.Email", Action::Hash)]),
        ["ok FV-3107 setting private: every rule means a column; of all columns 1 dropped, 1 hashed, 1 published"]
    );
}

/// Keys that outlive a ring, as those in KV do.
#[derive(Debug, Default)]
struct Shelf(Passing, Mutex<Option<SubjectId>>);

impl KeyStore for &Shelf {
    async fn read(&self, subject: &SubjectId) -> Result<Option<Entry>, KeyError> {
        let shredded = self.1.lock().expect("nobody panicked").clone();
        if shredded.as_ref() == Some(subject) {
            return Ok(Some(Entry::tombstone("2026-11-23T00:00:00Z".into())));
        }
        self.0.read(subject).await
    }

    async fn create(&self, subject: &SubjectId, entry: &Entry) -> Result<bool, KeyError> {
        self.0.create(subject, entry).await
    }

    fn is_stale(&self) -> bool {
        self.1.lock().expect("nobody panicked").is_some()
    }
}

#[test]
fn an_encrypted_value_is_the_same_on_a_replay_and_opens_with_its_subjects_key() {
    let shelf = Shelf::default();
    let settings = settings(false, &[("*.*.email", encrypt("id")), ("*.*.password", encrypt("ID"))]);
    let run = || {
        let batch = inserted(&people(), &[Some("1"), Some("CANARY"), Some("CANARY"), None]);
        all(&mapped(&mut Private::new(Arc::clone(&settings), &shelf), batch).expect("maps"))
    };
    let first = run();
    assert_eq!(first, run());
    assert!(!format!("{first:?}").contains("CANARY"));
    assert_ne!(first[0]["email"], first[0]["password"]);
    let sealed = Sealed::parse(first[0]["email"].trim_matches('"')).expect("sealed");
    let master = settings.master().expect("a master");
    assert_eq!(sealed.subject, master.subject("person", "1"));
    let entry = (&shelf).read(&sealed.subject).now_or_never().expect("at once").expect("reads").expect("an entry");
    let key = entry.open(master, &sealed.subject).expect("opens").expect("a key");
    assert_eq!(sealed.open(&key).as_deref(), Some("\"CANARY\""));
    let other = Master::new("another secret of sixteen");
    assert!(matches!(entry.open(&other, &sealed.subject), Err(KeyError::OtherMaster { .. })));
}

#[test]
fn a_shredded_subjects_later_values_are_null_and_its_keys_tell_nothing() {
    let shelf = Shelf::default();
    let masked = Encrypt { subject: "id".into(), kind: "person".into(), shredded: Shredded::Mask };
    let rules = [("*.*.email", encrypt("id")), ("*.*.name", Action::Encrypt(masked)), ("*.people.id", encrypt("id"))];
    let settings = settings(false, &rules);
    let mut private = Private::new(Arc::clone(&settings), &shelf);
    let mut row = |id: &str| {
        let batch = inserted(&people(), &[Some(id), None, Some("CANARY"), Some("CANARY")]);
        all(&mapped(&mut private, batch).expect("maps")).remove(0)
    };
    let before = row("1");
    let subject = settings.master().expect("a master").subject("person", "1");
    *shelf.1.lock().expect("nobody panicked") = Some(subject.clone());
    let after = row("1");
    assert_eq!((after["email"].as_str(), after["name"].as_str()), ("null", "\"***\""));
    assert!(after["id"].starts_with(&format!("\"fv1:{}:gone:", subject.as_str())), "{after:?}");
    assert_eq!(after, row("1"));
    assert_ne!(before["id"], after["id"]);
    // Of others nothing changed.
    assert!(Sealed::parse(row("2")["email"].trim_matches('"')).is_some());
}

#[test]
fn a_row_that_tells_its_key_alone_is_its_subjects_all_the_same() {
    let table = table("t", &["id", "email", "person_id"], &[0]);
    let mut private = private(&[("*.*.email", encrypt("person_id"))]);
    let mut maker = Maker::default();
    // The log gives the key alone before: its nulls are no nulls.
    let (before, after) = (maker.row(&[Some("1"), Some("x"), None]), maker.row(&[Some("1"), Some("x"), Some("7")]));
    maker.change(&table, Op::Update, [Some(before), Some(after), None], true);
    let rows = all(&mapped(&mut private, maker.done()).expect("maps"));
    assert_eq!(rows[0]["email"], rows[1]["email"]);
    // A subject that is not carried at all is no reason to publish the value, or to take another's key.
    let mut maker = Maker::default();
    let after = maker.row(&[Some("1"), Some("CANARY"), Some("?")]);
    maker.change(&table, Op::Update, [None, Some(after), None], false);
    let rows = all(&mapped(&mut private, maker.done()).expect("maps"));
    assert!(rows[0]["email"].starts_with("error: "), "{rows:?}");
    assert!(!rows[0]["email"].contains("CANARY"));
}

#[test]
fn cursors_of_tables_with_hidden_columns_are_sealed_and_open_again() {
    let settings = settings(false, &[("*.*.id", Action::Hash)]);
    let mut private = Private::new(Arc::clone(&settings), Passing::default());
    let mut maker = Maker::default();
    maker.insert(&people(), &[Some("4711"), None, None, None]);
    let mut chunk = Chunk {
        batch: maker.done(),
        cursors: std::iter::once(0..4).collect(),
        sight: Box::new(Blind),
        high: "".into(),
        is_last: true,
        read_at: 0,
    };
    private.map_chunk(&mut chunk).now_or_never().expect("at once").expect("maps");
    let text = std::str::from_utf8(chunk.batch.bytes(&chunk.cursors[0])).expect("UTF-8");
    assert!(!text.contains("4711"), "{text}");
    let cursor = Cursor::parse(text).expect("a cursor");
    assert_eq!(settings.open_cursor(cursor), Cursor::parse("4711"));
    assert!(all(&chunk.batch)[0]["id"].len() == 66, "{:?}", all(&chunk.batch));
    // What an operator typed is sealed before it is kept, once.
    let typed = settings.seal_cursor(Cursor::parse("4711").expect("a cursor"));
    assert_eq!(settings.seal_cursor(typed.clone()), typed);
    assert_eq!(typed.as_str(), text);
    assert_eq!(Settings::default().open_cursor(typed), None, "without the key it opens nothing");
}

#[derive(Debug)]
struct Blind;

impl figvine_change::Sight for Blind {
    fn shows(&self, _: &Transaction) -> bool {
        false
    }
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Publish),
        Just(Action::Drop),
        (1..4_usize, 0..4_usize).prop_map(|(first, last)| Action::Mask(Mask::Keep { first, last })),
        Just(Action::Mask(Mask::default())),
        Just(Action::Hash),
        Just(Action::Tokenise),
        Just(encrypt("id")),
    ]
}

proptest! {
    #[test]
    fn whatever_the_rules_rows_fit_their_tables_and_tell_what_may_be_told(
        actions in prop::collection::vec(action(), 3),
        denies in any::<bool>(),
        rows in prop::collection::vec(prop::collection::vec(prop_oneof![
            Just(None), Just(Some("?".to_owned())), "[a-z]{6}CANARY[a-z]{6}".prop_map(Some)
        ], 3), 1..6),
    ) {
        let columns = ["a", "b", "c"];
        let globs: Vec<String> = columns.iter().map(|column| format!("*.*.{column}")).collect();
        let mut rules: Vec<(&str, Action)> = globs.iter().map(String::as_str).zip(actions.iter().cloned()).collect();
        rules.push(("*.*.id", Action::Publish));
        let mut private = Private::new(settings(denies, &rules), Passing::default());
        let table = table("t", &["a", "b", "id", "c"], &[2]);
        let mut maker = Maker::default();
        for (number, row) in rows.iter().enumerate() {
            let id = number.to_string();
            let mut cells: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
            cells.insert(2, Some(&id));
            let (before, after) = (maker.row(&cells), maker.row(&cells));
            maker.change(&table, Op::Update, [Some(before), Some(after), None], false);
        }
        let batch = mapped(&mut private, maker.done()).expect("maps");
        for (number, row) in all(&batch).iter().enumerate() {
            let came = &rows[number / 2];
            prop_assert_eq!(&row["id"], &(number / 2).to_string());
            for (at, column) in columns.iter().enumerate() {
                let Some(told) = row.get(*column) else {
                    prop_assert_eq!(&actions[at], &Action::Drop);
                    continue;
                };
                prop_assert_ne!(&actions[at], &Action::Drop);
                match &came[at] {
                    None => prop_assert_eq!(told, "null"),
                    Some(text) if text == "?" => prop_assert_eq!(told, "unchanged"),
                    Some(text) if actions[at] == Action::Publish => prop_assert_eq!(told, &format!("\"{text}\"")),
                    Some(_) => prop_assert!(!told.contains("CANARY") && !told.contains("error"), "{}", told),
                }
            }
        }
    }

    #[test]
    fn no_batch_makes_it_panic(
        cells in prop::collection::vec(0..4_u8, 0..12),
        rows in prop::collection::vec((0..14_u32, 0..6_u32, 0..14_u32, 0..6_u32), 0..6),
        ranges in prop::collection::vec((0..20_u32, 0..20_u32), 12),
    ) {
        let range = |at: usize| -> Range<u32> { ranges[at].0..ranges[at].1 };
        let cells = cells.iter().enumerate().map(|(at, kind)| match kind {
            0 => Cell::Null,
            1 => Cell::Unchanged,
            _ => Cell::Value(range(at)),
        });
        let people = people();
        let mut maker = Maker { batch: Batch { cells: cells.collect(), ..Batch::default() }, data: vec![b'1'; 16] };
        for (a, b, c, d) in rows {
            let rows = [Some(Row { first: a, len: b }), Some(Row { first: c, len: d }), None];
            maker.change(&people, Op::Update, rows, a % 2 == 0);
        }
        let _ = mapped(&mut private(&[("*.*.email", encrypt("id")), ("*.*.password", Action::Drop)]), maker.done());
    }
}
