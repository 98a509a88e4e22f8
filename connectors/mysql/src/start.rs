//! Where a session begins: at the newest place when nothing was ever read, else
//! where the last one ended, if the server still has the log from there and all that
//! was read before. The server itself answers every bad start by one error.

use figvine_change::{Position, SourceError, SourceErrorKind};

use crate::catalogue::{Catalogue, LogFile, Server};
use crate::config::Flavour;
use crate::error::{Told, ahead, failure, lost};
use crate::gtid::{MariaDbSet, MySqlSet};
use crate::position::Place;

/// Finds the place to read from, and makes sure that the server's log holds all behind it.
pub(crate) async fn place(
    catalogue: &mut Catalogue,
    server: &Server,
    from: Option<&Position>,
) -> Result<Place, SourceError> {
    let Some(position) = from else {
        return catalogue.newest(server).await;
    };
    let place = Place::parse(position).ok_or_else(|| {
        foreign(format!("`{position}` is no position of a {} log", server.flavour.name()))
            .hint("The stream was written from another kind of database. Give this source a stream of its own.")
    })?;
    match (&place, server.flavour) {
        (Place::MySql(set), Flavour::MySql) => {
            if !server.has_gtids() {
                return Err(failure(
                    SourceErrorKind::Refused,
                    "FV-1255",
                    "the server has gtid_mode off, while the stream was written by GTIDs",
                )
                .hint(
                    "Turn `gtid_mode` on again; transactions that were logged without may be missing from the stream.",
                ));
            }
            let (executed, purged) = catalogue.gtid_sets().await?;
            mysql(set, &executed, &purged)?;
        }
        (Place::MariaDb(set), Flavour::MariaDb) => {
            let newest = catalogue.gtid_position().await?;
            let oldest = match catalogue.gtid_position_of_oldest().await {
                Ok(oldest) => oldest,
                // Without BINLOG MONITOR the server's own answer must do.
                Err(error) if error.code == "FV-1201" => MariaDbSet::default(),
                Err(error) => return Err(error),
            };
            mariadb(set, &newest, &oldest)?;
        }
        (Place::File { server: name, file, position }, _) => {
            let files = catalogue.log_files().await?;
            return in_file(server, name, file, *position, &files);
        }
        (Place::MySql(_) | Place::MariaDb(_), _) => {
            return Err(foreign(format!("`{position}` is no position of a {} log", server.flavour.name()))
                .hint("The other of MySQL and MariaDB wrote it; their logs do not go on in each other. Begin anew with another stream."));
        }
    }
    Ok(place)
}

fn mysql(set: &MySqlSet, executed: &MySqlSet, purged: &MySqlSet) -> Result<(), SourceError> {
    if !set.is_subset(executed) {
        let mut missing = set.clone();
        missing.subtract(executed);
        return Err(ahead(format!("the server lacks transactions that were read before: {}", shown(&missing))));
    }
    if !purged.is_subset(set) {
        let mut gone = purged.clone();
        gone.subtract(set);
        return Err(lost(format!("the server's log no longer has transactions that were not read: {}", shown(&gone))));
    }
    Ok(())
}

fn mariadb(set: &MariaDbSet, newest: &MariaDbSet, oldest: &MariaDbSet) -> Result<(), SourceError> {
    for gtid in set.entries() {
        match newest.last(gtid.domain) {
            None => {
                return Err(ahead(format!(
                    "the server's log has nothing of domain {}, read up to {gtid}",
                    gtid.domain
                )));
            }
            Some(last) if last.sequence < gtid.sequence => {
                return Err(ahead(format!("the server's log ends at {last}, while it was read up to {gtid}")));
            }
            // The same place in the order, another transaction.
            Some(last) if last.sequence == gtid.sequence && last.server != gtid.server => {
                return Err(ahead(format!("the server's log has {last} where {gtid} was read")));
            }
            Some(_) => {}
        }
    }
    for gtid in oldest.entries() {
        if set.last(gtid.domain).is_none_or(|read| read.sequence < gtid.sequence) {
            let read = set.last(gtid.domain).map_or_else(|| "nothing".into(), |read| format!("up to {read}"));
            return Err(lost(format!("the server's log begins behind {gtid}, and {read} was read of that domain")));
        }
    }
    Ok(())
}

fn in_file(server: &Server, name: &str, file: &str, position: u64, files: &[LogFile]) -> Result<Place, SourceError> {
    if name != server.name() {
        return Err(foreign(format!(
            "this is server {}, while {file}:{position} is in the log of server {name}",
            server.name()
        ))
        .hint(
            "A place in a file holds on the server that wrote it alone. Check the url; after a promotion begin anew \
                 with another stream, and turn GTIDs on.",
        ));
    }
    let Some(at) = files.iter().position(|other| other.name == file) else {
        return Err(lost(format!("the server no longer has {file} of its log, which was read up to {position}")));
    };
    let size = files.get(at).map_or(0, |file| file.size);
    if position > size {
        return Err(failure(
            SourceErrorKind::PositionLost,
            "FV-1304",
            format!("{file} has {size} bytes, while it was read up to {position}"),
        )
        .hint("The server lost the end of its log, or began it anew. Read the tables again, or begin anew with another stream."));
    }
    // Behind its last event a file has nothing but where to go on, and a dump cannot begin behind the first 4 GiB.
    let next = files.get(at + 1).filter(|_| position == size);
    let (file, position) = next.map_or((file, position), |next| (next.name.as_str(), 4));
    Ok(Place::File { server: name.to_owned(), file: file.to_owned(), position })
}

/// A position of another server or another kind.
fn foreign(what: String) -> SourceError {
    failure(SourceErrorKind::PositionLost, "FV-1302", what)
}

/// A set, cut where it is too long to read.
fn shown(set: &MySqlSet) -> String {
    let text = set.to_string();
    match text.get(..400) {
        Some(begin) => format!("{begin}..."),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &str) -> MySqlSet {
        match numbers {
            "" => MySqlSet::default(),
            numbers => format!("aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:{numbers}").parse().expect("a set"),
        }
    }

    #[test]
    fn mysql_must_have_all_that_was_read_and_all_that_was_not() {
        mysql(&set("1-9"), &set("1-12"), &set("1-9")).expect("usable");
        mysql(&set(""), &set("1-12"), &set("")).expect("usable");
        let code = |read, executed, purged| {
            let error = mysql(&set(read), &set(executed), &set(purged)).expect_err("unusable");
            assert_eq!(error.kind, SourceErrorKind::PositionLost);
            (
                error.code,
                error.what.rsplit(": ").next().map(|what| what.replace("aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", "")),
            )
        };
        assert_eq!(code("1-9", "1-12", "1-10"), ("FV-1301", Some(":10".into())));
        assert_eq!(code("1-9:t:1", "1-7", ""), ("FV-1303", Some(":8-9:t:1".into())));
    }

    #[test]
    fn mariadb_must_have_all_domains() {
        let check = |read: &str, newest: &str, oldest: &str| {
            let [read, newest, oldest] = [read, newest, oldest].map(|text| text.parse().expect("a position"));
            mariadb(&read, &newest, &oldest).map_err(|error| error.code)
        };
        assert_eq!(check("0-1-9", "0-2-12,1-1-1", "0-1-9"), Ok(()));
        assert_eq!(check("", "0-1-5", ""), Ok(()));
        assert_eq!(check("0-1-9", "0-2-12", "0-1-10"), Err("FV-1301"));
        assert_eq!(check("0-1-9", "0-2-12,1-1-1", "0-1-9,1-1-1"), Err("FV-1301"));
        assert_eq!(check("0-1-9", "0-2-8", ""), Err("FV-1303"));
        assert_eq!(check("0-1-9", "0-2-9", ""), Err("FV-1303"));
        assert_eq!(check("0-1-9,1-1-1", "0-2-12", ""), Err("FV-1303"));
    }

    #[test]
    fn a_file_must_be_there_and_long_enough_on_the_same_server() {
        let settings = [("server_uuid".to_owned(), "s".to_owned())];
        let server = Server::for_tests("9.7.4", settings);
        let files = ["b.1", "b.2"].map(|name| LogFile { name: name.into(), size: 100 });
        let check = |name: &str, file: &str, position| in_file(&server, name, file, position, &files);
        let at = |file: &str, position| Place::File { server: "s".into(), file: file.into(), position };
        assert_eq!(check("s", "b.1", 50).expect("usable"), at("b.1", 50));
        assert_eq!(check("s", "b.1", 100).expect("usable"), at("b.2", 4));
        assert_eq!(check("s", "b.2", 100).expect("usable"), at("b.2", 100));
        for (name, file, position, code) in
            [("x", "b.1", 50, "FV-1302"), ("s", "b.0", 50, "FV-1301"), ("s", "b.2", 101, "FV-1304")]
        {
            let error = check(name, file, position).expect_err("unusable");
            assert_eq!((error.code, error.kind), (code, SourceErrorKind::PositionLost));
        }
    }
}
