//! The preflight: what would keep us from replicating, what would harm the
//! database, and what consumers will see. Reads only.

mod settings;
mod tables;

use figvine_change::{Finding, Severity, SourceError};

use crate::catalogue::{Catalogue, Grants, Server, TableFacts};
use crate::config::{Config, Flavour};
use crate::globs::Globs;
use crate::session::Session;
use crate::url::ConnectUrl;

/// Looks at server, user, log and tables.
pub(crate) async fn check(config: &Config, url: &ConnectUrl, globs: &Globs) -> Result<Vec<Finding>, SourceError> {
    let program = format!("figvine {}", config.source);
    let mut catalogue = Catalogue::connect(url, &program).await?;
    let server = catalogue.server().await?;
    let mut found = vec![version(config.flavour, &server)];
    found.extend(settings::settings(config, &server));
    let grants = catalogue.grants().await?;
    found.extend(privileges(&server, &grants));
    found.extend(session(server.flavour, &url.only(catalogue.host()), &program).await);
    let tables = catalogue.tables().await?;
    let meant: Vec<&TableFacts> =
        tables.iter().filter(|table| table.is_base() && globs.matches_table(&table.schema, &table.name)).collect();
    // Without the privilege the log's filters cannot be seen; that is told already.
    if let Ok(Some(status)) = catalogue.log_status(&server).await {
        found.extend(settings::filters(&status, &meant));
    }
    found.extend(tables::globs(globs, &tables));
    for table in &meant {
        found.extend(tables::one(config, &server, &grants, table));
    }
    found.extend(tables::cascades(&server, &meant, &catalogue.cascades(server.flavour, &meant).await?));
    Ok(found)
}

fn version(configured: Flavour, server: &Server) -> Finding {
    let object = "server version";
    let named = format!("{} {}", server.flavour.name(), server.version_text);
    // The first with whole row metadata.
    let (oldest, shown) = match server.flavour {
        Flavour::MySql => ((8, 0, 1), "8.0"),
        Flavour::MariaDb => ((10, 5, 0), "10.5"),
    };
    if server.flavour != configured {
        Finding::new(
            Severity::Blocker,
            "FV-1217",
            object,
            format!("{named}, while the source is configured as {}", configured.name()),
        )
        .why("Their logs differ.")
        .hint("Configure the source by the server's own name, `mysql:` or `mariadb:`, or check the url.")
    } else if server.version < oldest {
        Finding::new(Severity::Blocker, "FV-1204", object, format!("{named} is too old"))
            .why(format!("Version {shown} is the first whose log tells the columns' names."))
    } else {
        Finding::new(Severity::Ok, "FV-1204", object, named)
    }
}

fn privileges(server: &Server, grants: &Grants) -> Vec<Finding> {
    let user = &grants.user;
    let object = format!("user {user}");
    // What a role brings may not be listed.
    let lacking = |severity| if grants.has_roles { Severity::Warning } else { severity };
    let mut found = Vec::new();
    // MariaDB 10.5 split the older privileges up, and knows REPLICATION CLIENT as another name of BINLOG MONITOR.
    let replicates = grants.has(&["REPLICATION SLAVE"]);
    found.push(if replicates {
        Finding::new(Severity::Ok, "FV-1215", &object, "may replicate")
    } else {
        Finding::new(lacking(Severity::Blocker), "FV-1215", &object, "lacks REPLICATION SLAVE")
            .why("The server gives its log only to users with this privilege.")
            .fix(format!("GRANT REPLICATION SLAVE ON *.* TO {user};"))
    });
    let (looks, privilege) = match server.flavour {
        Flavour::MySql => (grants.has(&["REPLICATION CLIENT", "SUPER"]), "REPLICATION CLIENT"),
        Flavour::MariaDb => (grants.has(&["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"]), "BINLOG MONITOR"),
    };
    if !looks {
        let severity = if server.has_gtids() { Severity::Warning } else { lacking(Severity::Blocker) };
        found.push(
            Finding::new(severity, "FV-1218", &object, format!("lacks {privilege}"))
                .why(
                    "It lets us see which files of the log are there: how much log is left, whether a place in a file \
                     still holds, and which databases are kept out of it; on MySQL, where existing rows belong in it.",
                )
                .fix(format!("GRANT {privilege} ON *.* TO {user};")),
        );
    }
    if server.flavour == Flavour::MySql && !server.has_gtids() && !grants.has(&["BACKUP_ADMIN"]) && !grants.has_roles {
        found.push(
            Finding::new(Severity::Note, "FV-1219", &object, "lacks BACKUP_ADMIN")
                .why("Without GTIDs, existing rows can be read only by a user who may ask where log and tables agree.")
                .fix(format!("GRANT BACKUP_ADMIN ON *.* TO {user};"))
                .fix(format!("GRANT SELECT ON performance_schema.log_status TO {user};"))
                .hint("Streaming does not need it; nor do existing rows with `gtid_mode = ON`."),
        );
    }
    found
}

/// Whether a replica's connection lets us in: our own session speaks for itself.
async fn session(flavour: Flavour, url: &ConnectUrl, program: &str) -> Option<Finding> {
    let tried = match Session::open(url, program).await {
        Ok(mut session) => session.identify(flavour).await,
        Err(error) => Err(error),
    };
    let error = tried.err()?;
    let told = error.source.map(|told| format!("The server says: {told}."));
    let hint = [error.hint, told].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let refused = Finding::new(Severity::Blocker, "FV-1216", "replication connection", error.what);
    Some(refused.why("The log is read over a connection of its own.").hint(hint))
}

#[cfg(test)]
mod tests;
