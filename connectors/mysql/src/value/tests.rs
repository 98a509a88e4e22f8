use super::*;

/// See the head of the file.
const CAPTURED: &str = include_str!("../../tests/captures/values.tsv");

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hex digit") as u8;
    text.as_bytes().as_chunks::<2>().0.iter().map(|&[high, low]| digit(high) << 4 | digit(low)).collect()
}

/// What MariaDB keeps in the form of another type.
const HIDDEN: [&str; 5] = ["json", "uuid", "inet4", "inet6", "vector(3)"];

/// A captured value: its column, the catalogue's type, its bytes and the JSON.
fn captured(line: &str) -> (ColumnMap, Declared, Vec<u8>, &str) {
    let fields: Vec<&str> = line.split('\t').collect();
    let number = |index: usize| fields[index].parse::<u32>().expect("a number");
    let type_code = number(3) as u8;
    let has_charset = matches!(type_code, 15 | 140 | 141 | 247..=254);
    let collation = match number(2) {
        0 => has_charset.then_some(charset::BINARY),
        id => Some(id),
    };
    let column = ColumnMap {
        type_code,
        metadata: number(4) as u16,
        unsigned: number(5) == 1,
        collation,
        labels: fields[6].split('|').filter(|label| !label.is_empty()).map(|label| unhex(label).into()).collect(),
        ..ColumnMap::default()
    };
    let declared = Declared { column_type: fields[1].to_owned(), is_json: fields[0] == "ma" && fields[1] == "json" };
    (column, declared, unhex(fields[7]), fields[8])
}

fn json(codec: &dyn ValueCodec, raw: &[u8]) -> String {
    let mut out = Vec::new();
    match codec.write_json(raw, &mut out) {
        Ok(()) => String::from_utf8(out).expect("UTF-8"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn captured_values_are_shown_as_the_servers_show_them() {
    let (charsets, options) = (Charsets::new(), ValueOptions::default());
    let mut wrong = Vec::new();
    for line in CAPTURED.lines().filter(|line| !line.starts_with('#')) {
        let (column, declared, raw, expected) = captured(line);
        let told = json(&*codec(&column, Some(&declared), &charsets, &options), &raw);
        let alone = json(&*codec(&column, None, &charsets, &options), &raw);
        let hidden = HIDDEN.contains(&declared.column_type.as_str()) && line.starts_with("ma");
        if told != expected || (alone != expected && !hidden) {
            wrong.push(format!("{}: {told} {alone}, not {expected}", declared.column_type));
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn captured_values_are_what_their_codecs_promise() {
    let charsets = Charsets::new();
    let options = ValueOptions {
        bigint_as_string: true,
        decimal_as_number: true,
        tinyint1_as_boolean: true,
        zero_date: ZeroDate::Null,
        debezium: None,
    };
    let mut promised = std::collections::HashSet::new();
    for line in CAPTURED.lines().filter(|line| !line.starts_with('#')) {
        let (column, declared, raw, _) = captured(line);
        for (declared, options) in
            [(Some(&declared), &ValueOptions::default()), (None, &ValueOptions::default()), (Some(&declared), &options)]
        {
            let codec = codec(&column, declared, &charsets, options);
            let (mut out, mut schema) = (Vec::new(), Vec::new());
            if codec.write_json(&raw, &mut out).is_err() {
                continue;
            }
            codec.json_type().write_schema(true, &mut schema);
            let [value, schema] = [out, schema].map(|json| serde_json::from_slice(&json).expect("JSON"));
            assert!(jsonschema::draft202012::is_valid(&schema, &value), "{line}: {value} is not {schema}");
            promised.insert(schema.to_string());
        }
    }
    assert!(promised.len() > 25, "{promised:?}");
}

#[test]
fn what_is_promised_follows_type_and_options() {
    let (plain, charsets) = (ValueOptions::default(), Charsets::new());
    let form = |column: &ColumnMap, declared: Option<&Declared>, options: &ValueOptions| {
        codec(column, declared, &charsets, options).json_type()
    };
    let strings = ValueOptions { bigint_as_string: true, decimal_as_number: true, ..ValueOptions::default() };
    let bigint = ColumnMap { unsigned: true, ..column(kind::LONGLONG) };
    assert_eq!(form(&bigint, None, &plain), JsonType::integer(64, false));
    assert_eq!(form(&bigint, None, &strings), JsonType::integer(64, false).into_string());
    assert_eq!(form(&column(kind::NEWDECIMAL), None, &plain), JsonType::Decimal { as_string: true });
    assert_eq!(form(&column(kind::NEWDECIMAL), None, &strings), JsonType::Decimal { as_string: false });
    let booleans = ValueOptions { tinyint1_as_boolean: true, ..ValueOptions::default() };
    assert_eq!(form(&column(kind::TINY), Some(&declared("tinyint(1)")), &booleans), JsonType::Boolean);
    assert_eq!(form(&column(kind::TINY), Some(&declared("tinyint(1)")), &plain), JsonType::integer(8, true));
    let labels: Vec<Box<[u8]>> = vec![b"\xe9".as_slice().into(), b"\"".as_slice().into()];
    let latin = ColumnMap { collation: Some(8), labels, ..column(kind::ENUM) };
    assert_eq!(form(&latin, None, &plain), JsonType::Enum(["", "é", "\""].map(Into::into).into()));
    let debezium = ValueOptions { debezium: Some(Arc::default()), ..ValueOptions::default() };
    assert_eq!(form(&latin, None, &debezium), JsonType::Any);
    let text = ColumnMap { collation: Some(255), ..column(kind::BLOB) };
    assert_eq!(form(&text, None, &plain), JsonType::Text);
    let json = Declared { column_type: "longtext".to_owned(), is_json: true };
    assert_eq!(form(&text, Some(&json), &plain), JsonType::Any);
}

fn column(type_code: u8) -> ColumnMap {
    ColumnMap { type_code, ..ColumnMap::default() }
}

fn declared(column_type: &str) -> Declared {
    Declared { column_type: column_type.to_owned(), is_json: false }
}

/// One value through the codec of a column.
fn shown(column: &ColumnMap, declared: Option<&Declared>, options: &ValueOptions, raw: &[u8]) -> String {
    json(&*codec(column, declared, &Charsets::new(), options), raw)
}

#[test]
fn options_change_what_they_name_and_nothing_else() {
    let plain = ValueOptions::default();
    let options = ValueOptions {
        bigint_as_string: true,
        decimal_as_number: true,
        tinyint1_as_boolean: true,
        zero_date: ZeroDate::Null,
        debezium: None,
    };
    let bigint = ColumnMap { unsigned: true, ..column(kind::LONGLONG) };
    assert_eq!(shown(&bigint, None, &plain, &[0xff; 8]), "18446744073709551615");
    assert_eq!(shown(&bigint, None, &options, &[0xff; 8]), "\"18446744073709551615\"");
    assert_eq!(shown(&column(kind::LONG), None, &options, &[0xff; 4]), "-1");

    let decimal = ColumnMap { metadata: 0x0302, ..column(kind::NEWDECIMAL) };
    assert_eq!(shown(&decimal, None, &plain, &[0x7f, 0xfe]), "\"-0.01\"");
    assert_eq!(shown(&decimal, None, &options, &[0x7f, 0xfe]), "-0.01");

    let tiny = column(kind::TINY);
    assert_eq!(shown(&tiny, Some(&declared("tinyint(1)")), &plain, &[2]), "2");
    assert_eq!(shown(&tiny, Some(&declared("tinyint(1)")), &options, &[2]), "true");
    assert_eq!(shown(&tiny, Some(&declared("tinyint(1) unsigned")), &options, &[0]), "false");
    assert_eq!(shown(&tiny, Some(&declared("tinyint(10)")), &options, &[2]), "2");
    assert_eq!(shown(&tiny, Some(&declared("tinyint")), &options, &[2]), "2");
    assert_eq!(shown(&tiny, None, &options, &[2]), "2");

    assert_eq!(shown(&column(kind::DATE), None, &options, &[0; 3]), "null");
    let timestamp = ColumnMap { metadata: 3, ..column(kind::TIMESTAMP2) };
    assert_eq!(shown(&timestamp, None, &options, &[0; 6]), "null");
    assert_eq!(shown(&timestamp, None, &plain, &[0; 6]), "\"0000-00-00T00:00:00.000Z\"");
}

#[test]
fn what_is_not_known_is_refused_with_its_name() {
    let options = ValueOptions::default();
    assert_eq!(
        shown(&column(200), None, &options, b"a"),
        "not a value of type of code 200: is of a type that is not known here"
    );
    let text = ColumnMap { collation: Some(100_000), ..column(kind::VARCHAR) };
    assert_eq!(
        shown(&text, None, &options, b"a"),
        "not a value of type varchar(0) character set of collation 100000: its character set is not known here"
    );
    let text = ColumnMap { collation: None, ..column(kind::BLOB) };
    assert!(shown(&text, None, &options, b"a").ends_with("its character set is not known"));
    assert_eq!(shown(&text, Some(&declared("mediumblob")), &options, b"a"), "\"YQ==\"");
}

#[test]
fn types_are_named_as_the_server_names_them() {
    let charsets = Charsets::new();
    let name = |type_code: u8, metadata: u16, unsigned: bool, collation: u32| {
        let labels = vec![b"a'b".as_slice().into(), b"c".as_slice().into()];
        let collation = (collation > 0).then_some(collation);
        type_name(&ColumnMap { metadata, unsigned, collation, labels, ..column(type_code) }, None, &charsets)
    };
    assert_eq!(name(kind::LONGLONG, 0, true, 0), "bigint unsigned");
    assert_eq!(name(kind::NEWDECIMAL, 0x0c02, false, 0), "decimal(12,2)");
    assert_eq!(name(kind::VARCHAR, 80, false, 255), "varchar(20) character set utf8mb4");
    assert_eq!(name(kind::STRING, 0xeefc, false, 255), "char(127) character set utf8mb4");
    assert_eq!(name(kind::STRING, 0xfe10, false, 63), "binary(16)");
    assert_eq!(name(kind::BLOB, 4, false, 8), "longtext character set latin1");
    assert_eq!(name(kind::BLOB, 2, false, 63), "blob");
    assert_eq!(name(kind::DATETIME2, 6, false, 0), "datetime(6)");
    assert_eq!(name(kind::BIT, 0x0102, false, 0), "bit(10)");
    assert_eq!(name(kind::ENUM, 0xf701, false, 8), "enum('a''b','c') character set latin1");
    let uuid = ColumnMap { collation: Some(63), metadata: 0xfe10, ..column(kind::STRING) };
    assert_eq!(type_name(&uuid, Some(&declared("uuid")), &charsets), "uuid");
}

#[test]
fn a_compressed_value_is_no_longer_than_its_type() {
    let options = ValueOptions::default();
    let text = |metadata: u16, raw: &[u8]| {
        let column = ColumnMap { metadata, collation: Some(8), ..column(kind::VARCHAR_COMPRESSED) };
        shown(&column, None, &options, raw)
    };
    // 300 times the letter a, as a raw stream and with zlib's frame.
    let raw = b"\x8a\x01\x2c\x4b\x4c\x1c\x05\xc4\x02\x00";
    let framed = b"\x82\x01\x2c\x78\xda\x4b\x4c\x1c\x05\xc4\x02\x00\xd8\xa8\x71\xad";
    let expected = format!("\"{}\"", "a".repeat(300));
    assert_eq!(text(301, raw), expected);
    assert_eq!(text(301, framed), expected);
    assert_eq!(text(301, b""), "\"\"");
    assert_eq!(text(301, b"\0ab"), "\"ab\"");
    assert!(text(299, raw).ends_with("says a length that cannot be"));
    assert!(text(301, b"\x8a\x01\x2b\x4b\x4c\x1c\x05\xc4\x02\x00").ends_with("has another length than it says"));
    assert!(text(301, b"\x8a\x01\x2d\x4b\x4c\x1c\x05\xc4\x02\x00").ends_with("has another length than it says"));
    assert!(text(60_000, b"\x8a\xff\xff\x4b").ends_with("says a length that cannot be"));
    assert!(text(301, b"\x82\x01\x2c\xff\xff").ends_with("is not a compressed value"));
    assert!(text(301, b"\x70ab").ends_with("is compressed in a way that is not known here"));
    assert!(text(301, b"\x88ab").ends_with("is compressed in a way that is not known here"));
}

#[test]
fn labels_come_in_the_columns_character_set() {
    let options = ValueOptions::default();
    let labels: Vec<Box<[u8]>> = vec![b"\xe9".as_slice().into(), b"\"".as_slice().into()];
    let latin = ColumnMap { collation: Some(8), labels: labels.clone(), ..column(kind::ENUM) };
    assert_eq!(shown(&latin, None, &options, &[1]), "\"é\"");
    assert_eq!(shown(&latin, None, &options, &[2]), "\"\\\"\"");
    let utf8 = ColumnMap { collation: Some(255), labels, ..column(kind::SET) };
    assert!(shown(&utf8, None, &options, &[1]).ends_with("a label cannot be read in its character set"));
    assert_eq!(shown(&utf8, None, &options, &[2]), "[\"\\\"\"]");
}

#[test]
fn json_by_constraint_may_stand_in_any_character_set() {
    let options = ValueOptions::default();
    let json = Declared { column_type: "varchar(100)".to_owned(), is_json: true };
    let latin = ColumnMap { collation: Some(8), metadata: 100, ..column(kind::VARCHAR) };
    assert_eq!(shown(&latin, Some(&json), &options, b"{\"a\": \"\xe9\\n\"}"), "{\"a\":\"é\\n\"}");
    let utf16 = ColumnMap { collation: Some(54), metadata: 0xfe40, ..column(kind::STRING) };
    assert_eq!(shown(&utf16, Some(&json), &options, b"\0[\0 \0\"\x20\xac\0\"\0]"), "[\"€\"]");
}
