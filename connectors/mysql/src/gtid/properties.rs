//! Both kinds of set against sets of single transactions, and against what servers wrote.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const SERVERS: [Uuid; 3] = [Uuid([0xaa; 16]), Uuid([0xbb; 16]), Uuid([7; 16])];
const TAGS: [&str; 3] = ["", "b", "tag_one"];

type Naive = BTreeSet<(usize, usize, u64)>;

fn set_of(naive: &Naive) -> MySqlSet {
    let mut set = MySqlSet::default();
    for &(server, tag, number) in naive {
        set.add(SERVERS[server], TAGS[tag], number);
    }
    set
}

fn naive() -> impl Strategy<Value = Vec<(usize, usize, u64)>> {
    proptest::collection::vec((0..3usize, 0..3usize, 1..24u64), 0..60)
}

proptest! {
    #[test]
    fn a_set_holds_what_was_added_in_any_order(added in naive()) {
        let mut set = MySqlSet::default();
        for &(server, tag, number) in &added {
            set.add(SERVERS[server], TAGS[tag], number);
        }
        let all: Naive = added.into_iter().collect();
        prop_assert_eq!(&set, &set_of(&all));
        for (at, &server) in SERVERS.iter().enumerate() {
            for (tag_at, tag) in TAGS.iter().enumerate() {
                for number in 0..26 {
                    prop_assert_eq!(set.contains(server, tag, number), all.contains(&(at, tag_at, number)));
                }
            }
        }
    }

    #[test]
    fn sets_combine_as_sets_of_single_transactions_do(a in naive(), b in naive()) {
        let (a, b): (Naive, Naive) = (a.into_iter().collect(), b.into_iter().collect());
        let mut union = set_of(&a);
        union.union(&set_of(&b));
        prop_assert_eq!(&union, &set_of(&a.union(&b).copied().collect()));
        let mut rest = set_of(&a);
        rest.subtract(&set_of(&b));
        prop_assert_eq!(&rest, &set_of(&a.difference(&b).copied().collect()));
        prop_assert_eq!(set_of(&a).is_subset(&set_of(&b)), a.is_subset(&b));
        prop_assert!(rest.is_subset(&union));
        prop_assert_eq!(rest.is_empty(), a.is_subset(&b));
    }

    #[test]
    fn text_and_binary_form_read_back(a in naive()) {
        let set = set_of(&a.into_iter().collect());
        prop_assert_eq!(&set.to_string().parse::<MySqlSet>().expect("a set"), &set);
        prop_assert_eq!(&MySqlSet::decode(&set.encode()).expect("a set"), &set);
    }

    #[test]
    fn no_text_and_no_bytes_panic(text in "[0-9a-f:,_ -]{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = text.parse::<MySqlSet>();
        let _ = format!("aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:{text}").parse::<MySqlSet>();
        let _ = text.parse::<MariaDbSet>();
        let _ = MySqlSet::decode(&bytes);
    }

    #[test]
    fn a_mariadb_position_keeps_the_last_of_each_domain(
        added in proptest::collection::vec((0..4u32, any::<u32>(), any::<u64>()), 0..30),
    ) {
        let mut set = MariaDbSet::default();
        let mut naive = BTreeMap::new();
        for &(domain, server, sequence) in &added {
            set.add(MariaDbGtid { domain, server, sequence });
            naive.insert(domain, (server, sequence));
        }
        let found: BTreeMap<_, _> = set.entries().map(|gtid| (gtid.domain, (gtid.server, gtid.sequence))).collect();
        prop_assert_eq!(found, naive);
        prop_assert_eq!(&set.to_string().parse::<MariaDbSet>().expect("a position"), &set);
        prop_assert!(set.is_reached_by(&set));
    }
}

#[test]
fn a_set_is_written_as_the_server_writes_it_but_for_blanks() {
    let server = "AAAAAAAA-aaaa-aaaa-aaaa-aaaaaaaaaaaa:7-8:B:3:tag_one:5:5-6,\nbbbbbbbb-aaaa-aaaa-aaaa-aaaaaaaaaaaa:1";
    let set: MySqlSet = server.parse().expect("a set");
    assert_eq!(
        set.to_string(),
        "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:7-8:b:3:tag_one:5-6,bbbbbbbb-aaaa-aaaa-aaaa-aaaaaaaaaaaa:1"
    );
    assert_eq!("".parse::<MySqlSet>().expect("the empty set"), MySqlSet::default());
}

#[test]
fn the_binary_form_is_the_one_in_previous_gtids_events() {
    // MySQL 9.7.4: bodies of PREVIOUS_GTIDS_EVENT.
    let tagged = "01040000000000 01 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 00 0100000000000000 0700000000000000 0900000000000000 \
                  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 02 62 0100000000000000 0300000000000000 0400000000000000 \
                  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0e 7461675f6f6e65 0100000000000000 0500000000000000 0600000000000000 \
                  bbbbbbbbaaaaaaaaaaaaaaaaaaaaaaaa 00 0100000000000000 0100000000000000 0200000000000000";
    let classic =
        "0100000000000000 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0100000000000000 0700000000000000 0900000000000000";
    for (hex, text) in [
        (tagged, "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:7-8:b:3:tag_one:5,bbbbbbbb-aaaa-aaaa-aaaa-aaaaaaaaaaaa:1"),
        (classic, "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:7-8"),
    ] {
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).expect("hex")).expect("a nibble");
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
        let set: MySqlSet = text.parse().expect("a set");
        assert_eq!(set.encode(), bytes);
        assert_eq!(MySqlSet::decode(&bytes).expect("a set"), set);
    }
}

#[test]
fn what_is_no_set_is_refused() {
    let uuid = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";
    for text in ["x", "1-2", "aaaa:1", uuid] {
        assert!(text.parse::<MySqlSet>().is_err(), "{text}");
    }
    for rest in ["", "0", "2-1", "1-", "+1", "tag", "tag:b:1", "9223372036854775807", "1:1tag:2", "a-b:1", "1::2"] {
        assert!(format!("{uuid}:{rest}").parse::<MySqlSet>().is_err(), "{rest}");
    }
    assert!(format!("{uuid}:{}:1", "t".repeat(33)).parse::<MySqlSet>().is_err());
    for text in ["0-1", "0-1-2-3", "a-1-2", "-1-2", "0-1-", "4294967296-1-1", "0-1-1,0-2-2", "+0-1-1"] {
        assert!(text.parse::<MariaDbSet>().is_err(), "{text}");
    }
}

#[test]
fn a_mariadb_position_is_reached_domain_by_domain() {
    let set = |text: &str| text.parse::<MariaDbSet>().expect("a position");
    assert!(set("0-10-9").is_reached_by(&set("0-11-9,1-1-1")));
    assert!(!set("0-10-9,1-1-2").is_reached_by(&set("0-11-99,1-1-1")));
    assert!(!set("0-10-9").is_reached_by(&set("1-1-99")));
    assert!(MariaDbSet::default().is_reached_by(&set("")));
}
