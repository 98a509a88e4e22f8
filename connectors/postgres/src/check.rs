//! The preflight: what would keep us from replicating, what would harm the
//! database, and what consumers will see. Reads only.

use figvine_change::{Finding, Severity, SourceError};

use crate::catalogue::{Catalogue, Server, TableFacts};
use crate::connector::{Postgres, STANDBY};
use crate::error::of_query;
use crate::publication::{self, Published, Unfit};
use crate::session::quoted;

/// Who we are to the server.
struct Role {
    name: String,
    replicates: bool,
    creates_in_database: bool,
}

pub(crate) async fn check(postgres: &Postgres) -> Result<Vec<Finding>, SourceError> {
    let catalogue = postgres.catalogue().await?;
    let server = catalogue.server().await?;
    let mut found = vec![version(&server)];
    found.extend(settings(&catalogue, &server).await?);
    let role = role(&catalogue).await?;
    found.push(replication_role(&role));
    if role.replicates {
        found.extend(session(postgres).await);
    }
    found.extend(slot(postgres, &catalogue, &server).await?);
    let tables = catalogue.tables().await?;
    let meant = publication::meant(&postgres.config, &postgres.globs, &tables);
    let published = publication::published(&catalogue, &postgres.config.publication, server.version).await?;
    found.extend(publication(postgres, published.as_ref(), &server, &role, &meant));
    found.extend(globs(postgres, &tables));
    for table in &meant {
        found.extend(one_table(postgres, published.as_ref(), &server, &role, table));
    }
    Ok(found)
}

fn version(server: &Server) -> Finding {
    let object = "server version";
    match server.version {
        140_000.. if server.in_recovery && server.version < STANDBY => Finding::new(
            Severity::Blocker,
            "FV-1205",
            object,
            format!("PostgreSQL {} on a standby", server.version_text),
        )
        .why("A standby can decode its log from version 16 on.")
        .hint("Point the url at the primary."),
        140_000.. => Finding::new(Severity::Ok, "FV-1204", object, format!("PostgreSQL {}", server.version_text)),
        _ => {
            Finding::new(Severity::Blocker, "FV-1204", object, format!("PostgreSQL {} is too old", server.version_text))
                .why("Version 14 is the first that sends all that is needed.")
        }
    }
}

async fn settings(catalogue: &Catalogue, server: &Server) -> Result<Vec<Finding>, SourceError> {
    let query = "select current_setting('wal_level'),
                        (select pending_restart from pg_settings where name = 'wal_level'),
                        current_setting('max_replication_slots')::int, (select count(*)::int from pg_replication_slots),
                        current_setting('max_wal_senders')::int,
                        (select count(*)::int from pg_stat_activity where backend_type = 'walsender'),
                        (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size'),
                        current_setting('server_encoding')";
    let row = catalogue.client().query_one(query, &[]).await.map_err(|e| of_query(e, "reading the settings"))?;
    let mut found = Vec::new();

    let (wal_level, pending): (String, bool) = (row.get(0), row.get(1));
    found.push(if wal_level == "logical" {
        Finding::new(Severity::Ok, "FV-1210", "setting wal_level", "logical")
    } else {
        let blocker = Finding::new(Severity::Blocker, "FV-1210", "setting wal_level", format!("it is {wal_level}, not logical"))
            .why("The log does not hold what row changes are decoded from.");
        if pending {
            blocker.hint("It is changed already: restart the server.")
        } else {
            blocker
                .fix("ALTER SYSTEM SET wal_level = 'logical';")
                .fix("SELECT pg_reload_conf();")
                .hint("Then restart the server: this setting is read only at its start. `pg_ctl restart` or the service's own way.")
        }
    });

    for (code, setting, limit, used) in [
        ("FV-1211", "max_replication_slots", row.get::<_, i32>(2), row.get::<_, i32>(3)),
        ("FV-1212", "max_wal_senders", row.get(4), row.get(5)),
    ] {
        let object = format!("setting {setting}");
        found.push(if used < limit {
            Finding::new(Severity::Ok, code, object, format!("{used} of {limit} in use"))
        } else {
            Finding::new(Severity::Warning, code, object, format!("all {limit} are in use"))
                .why("If ours is not among them, the bridge finds no room.")
                .fix(format!("ALTER SYSTEM SET {setting} = {};", limit + 10))
                .hint("Then restart the server.")
        });
    }

    let keep: i64 = row.get(6);
    let object = "setting max_slot_wal_keep_size";
    found.push(if keep < 0 && !server.in_recovery {
        Finding::new(Severity::Warning, "FV-1213", object, "unlimited")
            .why(
                "While the bridge is away the slot keeps all log: with no limit the disk fills and the database stops.",
            )
            .fix("ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';")
            .fix("SELECT pg_reload_conf();")
            .hint("Choose what the disk can spare: past it the slot is lost, and the database goes on.")
    } else {
        Finding::new(Severity::Ok, "FV-1213", object, if keep < 0 { "unlimited".into() } else { format!("{keep} MB") })
    });

    let encoding: String = row.get(7);
    if encoding == "SQL_ASCII" {
        found.push(
            Finding::new(Severity::Warning, "FV-1214", "server encoding", "SQL_ASCII")
                .why("Text may hold bytes that are no UTF-8; such a row stops the source, it is not altered."),
        );
    }
    Ok(found)
}

async fn role(catalogue: &Catalogue) -> Result<Role, SourceError> {
    let query = "select rolname::text, rolreplication or rolsuper, has_database_privilege(current_database(), 'create')
                 from pg_roles where rolname = current_user";
    let row = catalogue.client().query_one(query, &[]).await.map_err(|e| of_query(e, "reading our role"))?;
    Ok(Role { name: row.get(0), replicates: row.get(1), creates_in_database: row.get(2) })
}

fn replication_role(role: &Role) -> Finding {
    let object = format!("role {}", role.name);
    if role.replicates {
        Finding::new(Severity::Ok, "FV-1215", object, "may replicate")
    } else {
        Finding::new(Severity::Blocker, "FV-1215", object, "lacks REPLICATION")
            .why("The server gives its log only to roles with this attribute.")
            .fix(format!("ALTER ROLE {} WITH REPLICATION;", quoted(&role.name)))
    }
}

/// Whether a walsender lets us in: pg_hba.conf may know better than the role's attributes.
async fn session(postgres: &Postgres) -> Option<Finding> {
    let tried = match postgres.session().await {
        Ok(mut session) => session.identify().await,
        Err(error) => Err(error),
    };
    let error = tried.err()?;
    let refused = Finding::new(Severity::Blocker, "FV-1216", "replication connection", error.what.clone())
        .why("The log is read over a connection of its own kind.");
    let told = error.source.map(|told| told.to_string());
    Some(
        refused.hint(
            [Some("Look at pg_hba.conf and max_wal_senders.".into()), told]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" The server says: "),
        ),
    )
}

async fn slot(postgres: &Postgres, catalogue: &Catalogue, server: &Server) -> Result<Vec<Finding>, SourceError> {
    let name = &postgres.config.slot;
    let object = format!("slot {name}");
    let Some(slot) = catalogue.slot(name, server.version).await? else {
        let mut found =
            vec![Finding::new(Severity::Note, "FV-1310", object, "does not exist; the first start creates it")];
        if let Some((pid, who)) = catalogue.oldest_transaction().await? {
            found.push(
                Finding::new(
                    Severity::Note,
                    "FV-1317",
                    format!("transaction of pid {pid}"),
                    format!("is running ({who})"),
                )
                .why("A slot begins where all older transactions have ended: its creation waits for this one."),
            );
        }
        return Ok(found);
    };
    let drop = format!("SELECT pg_drop_replication_slot('{}');", name.replace('\'', "''"));
    let mut found = Vec::new();
    if slot.plugin.as_deref() != Some("pgoutput") {
        let plugin = slot.plugin.unwrap_or_else(|| "none (a physical slot)".into());
        found.push(
            Finding::new(Severity::Blocker, "FV-1311", &object, format!("its plugin is {plugin}, not pgoutput"))
                .why("It was made by or for another program.")
                .hint("Configure another slot name."),
        );
    } else if let Some(database) = &slot.other_database {
        found.push(
            Finding::new(Severity::Blocker, "FV-1314", &object, format!("belongs to database {database}"))
                .why("A logical slot reads one database.")
                .hint("Configure another slot name."),
        );
    } else if slot.invalidation.is_some() || slot.wal_status.as_deref() == Some("lost") {
        let why = slot.invalidation.unwrap_or_else(|| "its log was removed".into());
        found.push(
            Finding::new(Severity::Blocker, "FV-1301", &object, format!("the server invalidated it: {why}"))
                .why("Changes behind the last stored one are gone from the log; going on would leave a gap.")
                .fix(drop)
                .hint("Then read the tables again, or begin anew with another stream."),
        );
    } else if let Some(pid) = slot.active_pid {
        found.push(
            Finding::new(Severity::Note, "FV-1313", &object, format!("is in use by pid {pid}"))
                .why("If that is not this bridge, the two would fight for it."),
        );
    }
    if let Some((bytes, _, _)) = catalogue.retained(name).await? {
        found.push(Finding::new(
            Severity::Ok,
            "FV-1315",
            &object,
            format!("keeps {} MiB of log", bytes / (1024 * 1024)),
        ));
    }
    Ok(found)
}

fn publication(
    postgres: &Postgres,
    published: Option<&Published>,
    server: &Server,
    role: &Role,
    meant: &[&TableFacts],
) -> Vec<Finding> {
    let config = &postgres.config;
    let name = &config.publication;
    let object = format!("publication {name}");
    let fit: Vec<_> = meant.iter().filter(|table| publication::fitness(config, table).is_ok()).collect();
    let list = fit.iter().map(|table| table.quoted()).collect::<Vec<_>>().join(", ");
    let root = config.via_partition_root;
    let create = format!("{};", publication::creation(name, &list, root, server.version));
    let foreign: Vec<_> = fit.iter().filter(|table| !table.we_own).map(|table| table.qualified()).collect();
    let is_ours_to_make = is_ours_to_make(postgres, server);

    let Some(published) = published else {
        let found = if !is_ours_to_make {
            Finding::new(Severity::Blocker, "FV-1221", object, "does not exist")
                .why("It tells the server what to send.")
                .fix(create)
        } else if !foreign.is_empty() || !role.creates_in_database {
            let lacks = if foreign.is_empty() {
                "may not create it".into()
            } else {
                format!("does not own {} of its {} tables", foreign.len(), fit.len())
            };
            Finding::new(
                Severity::Blocker,
                "FV-1225",
                object,
                format!("does not exist, and role {} {lacks}", role.name),
            )
            .why("Only who owns a table may publish it. One that holds the right tables already is used as it is.")
            .fix(create)
        } else {
            Finding::new(
                Severity::Note,
                "FV-1220",
                object,
                format!("does not exist; the first start creates it for {} tables", fit.len()),
            )
        };
        return vec![found];
    };
    let mut found = existing_publication(&object, name, published, &fit, &foreign, is_ours_to_make, root);
    found.extend(generated_columns(&object, name, published, &fit, server, is_ours_to_make, &foreign));
    found
}

fn is_ours_to_make(postgres: &Postgres, server: &Server) -> bool {
    postgres.config.publication_managed && !server.in_recovery
}

/// Stored generated columns that the server could send and the publication leaves out.
fn generated_columns(
    object: &str,
    name: &str,
    published: &Published,
    fit: &[&&TableFacts],
    server: &Server,
    is_managed: bool,
    foreign: &[String],
) -> Option<Finding> {
    let tables = publication::without_generated(published, fit.iter().map(|table| **table), server.version);
    if tables.is_empty() || is_managed && foreign.is_empty() {
        return None;
    }
    let names = tables.iter().map(|table| table.qualified()).collect::<Vec<_>>().join(", ");
    let what = format!("leaves out the generated columns of {names}");
    let harms = tables.iter().any(|table| table.identity == 'f');
    let why = if harms {
        "PostgreSQL refuses the application's UPDATE and DELETE where they are part of the replica identity."
    } else {
        "Events will not carry them."
    };
    let severity = match (is_managed, harms) {
        (true, _) => Severity::Blocker,
        (false, true) => Severity::Warning,
        (false, false) => Severity::Note,
    };
    let fix = format!("{};", publication::with_generated(name));
    Some(Finding::new(severity, "FV-1232", object, what).why(why).fix(fix))
}

fn existing_publication(
    object: &str,
    name: &str,
    published: &Published,
    fit: &[&&TableFacts],
    foreign: &[String],
    is_managed: bool,
    root: bool,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let missing: Vec<_> = fit.iter().filter(|table| !published.tables.contains(&table.qualified())).collect();
    if missing.is_empty() {
        found.push(Finding::new(Severity::Ok, "FV-1220", object, format!("holds {} tables", published.tables.len())));
    } else {
        let names = missing.iter().map(|table| table.qualified()).collect::<Vec<_>>().join(", ");
        let list = missing.iter().map(|table| table.quoted()).collect::<Vec<_>>().join(", ");
        let is_blocked = !is_managed || !foreign.is_empty();
        let severity = if is_blocked { Severity::Blocker } else { Severity::Note };
        let lacking = Finding::new(severity, "FV-1226", object, format!("lacks {names}"));
        found.push(if is_blocked {
            lacking
                .why("The server would not send their changes.")
                .fix(format!("ALTER PUBLICATION {} ADD TABLE {list};", quoted(name)))
        } else {
            lacking.why("The next start adds them; a bridge that runs does so by itself.")
        });
    }
    if !published.leaves_out.is_empty() {
        let left_out = published.leaves_out.join(", ");
        found.push(
            Finding::new(Severity::Warning, "FV-1227", object, format!("leaves out {left_out}"))
                .why("Consumers will never see these operations.")
                .fix(format!("ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate');", quoted(name))),
        );
    }
    for (tables, what) in [(&published.filtered, "a row filter"), (&published.with_columns, "a column list")] {
        if !tables.is_empty() {
            found.push(
                Finding::new(Severity::Note, "FV-1228", object, format!("has {what} on {}", tables.join(", ")))
                    .why("It is respected: consumers see only what it lets through."),
            );
        }
    }
    if published.via_root != root && !is_managed {
        found.push(
            Finding::new(
                Severity::Warning,
                "FV-1229",
                object,
                format!("publish_via_partition_root is {}", published.via_root),
            )
            .why("The source's own setting says otherwise; the publication's holds.")
            .fix(format!("ALTER PUBLICATION {} SET (publish_via_partition_root = {root});", quoted(name))),
        );
    }
    found
}

fn globs(postgres: &Postgres, tables: &[TableFacts]) -> Vec<Finding> {
    let names: Vec<_> = tables.iter().map(TableFacts::qualified).collect();
    let idle = postgres.globs.without_match(&names).into_iter().map(|glob| {
        Finding::new(Severity::Warning, "FV-1230", format!("glob `{glob}`"), "matches no table")
            .why("A spelling mistake would go unnoticed until rows are missed.")
    });
    let other = tables
        .iter()
        .filter(|t| matches!(t.kind, 'f' | 'v' | 'm'))
        .filter(|t| postgres.globs.matches_table(&t.schema, &t.name));
    let other = other.map(|table| {
        let kind = match table.kind {
            'f' => "a foreign table",
            'v' => "a view",
            _ => "a materialized view",
        };
        Finding::new(Severity::Note, "FV-1231", format!("table {}", table.qualified()), format!("is {kind}"))
            .why("The log holds no changes of it; it is passed over.")
    });
    idle.chain(other).collect()
}

fn one_table(
    postgres: &Postgres,
    published: Option<&Published>,
    server: &Server,
    role: &Role,
    table: &TableFacts,
) -> Vec<Finding> {
    let object = format!("table {}", table.qualified());
    let sql_name = table.quoted();
    if let Err(unfit) = publication::fitness(&postgres.config, table) {
        let refusal = publication::refusal(table, unfit);
        let blocker =
            Finding::new(Severity::Blocker, refusal.code, object, refusal.what).hint(refusal.hint.unwrap_or_default());
        return vec![match unfit {
            Unfit::NoIdentity => blocker
                .why("Were it published, PostgreSQL would refuse the application's UPDATE and DELETE on it.")
                .fix(format!(
                    "ALTER TABLE {sql_name} REPLICA IDENTITY {};",
                    if table.has_primary_key { "DEFAULT" } else { "FULL" }
                )),
            Unfit::NoKey => {
                blocker.why("With the whole row as its key, each update is a delete and an insert of another key.")
            }
            Unfit::Unlogged => {
                blocker.why("Consumers would see nothing of it.").fix(format!("ALTER TABLE {sql_name} SET LOGGED;"))
            }
            Unfit::HiddenColumns => {
                blocker.why("Were it published, PostgreSQL would refuse the application's UPDATE and DELETE on it.")
            }
        }];
    }
    let mut found = vec![match (table.identity, table.has_primary_key) {
        ('f', true) => {
            Finding::new(Severity::Ok, "FV-1240", &object, "replica identity full: events carry the whole row before")
        }
        ('f', false) => Finding::new(Severity::Warning, "FV-1241", &object, "has no key: the whole row is its key")
            .why("Each update is a delete and an insert of another key; equal rows cannot be told apart."),
        ('i', _) => {
            Finding::new(Severity::Ok, "FV-1240", &object, "replica identity is an index: its columns are the key")
        }
        _ => Finding::new(
            Severity::Ok,
            "FV-1240",
            &object,
            "replica identity is the primary key: `before` carries the key alone",
        ),
    }];
    if table.identity != 'f' && table.toastable_columns > 0 {
        found.push(
            Finding::new(Severity::Note, "FV-1242", &object, "large values may be left out of updates")
                .why("A value stored out of line (some 2 kB and more) that an update does not touch is not in the log: it is named in `unchanged`.")
                .hint(format!("ALTER TABLE {sql_name} REPLICA IDENTITY FULL puts it there, for more log.")),
        );
    }
    let stored_is_sent = server.version >= publication::GENERATED
        && published.is_none_or(|p| {
            is_ours_to_make(postgres, server) || publication::without_generated(p, [table], server.version).is_empty()
        });
    let unsent = table.virtual_generated + if stored_is_sent { 0 } else { table.stored_generated };
    if unsent > 0 {
        found.push(
            Finding::new(Severity::Note, "FV-1243", &object, format!("{unsent} generated columns are not sent"))
                .why("Events will not carry them."),
        );
    }
    if table.kind == 'p' {
        found.push(
            Finding::new(Severity::Note, "FV-1244", &object, "is partitioned: rows come under its own name")
                .why("ATTACH, DETACH and TRUNCATE of a single partition change its rows without a change in the log."),
        );
    }
    if !table.may_select {
        found.push(
            Finding::new(Severity::Note, "FV-1245", &object, "may not be read by our role")
                .why("Streaming does not need it; reading existing rows does.")
                .fix(format!(
                    "GRANT USAGE ON SCHEMA {} TO {}; GRANT SELECT ON {sql_name} TO {};",
                    quoted(&table.schema),
                    quoted(&role.name),
                    quoted(&role.name)
                )),
        );
    }
    found
}
