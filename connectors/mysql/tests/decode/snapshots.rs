//! Each capture as events and rows.

use crate::show;

/// What `tests/captures/record` wrote.
pub(crate) const CAPTURES: [(&str, &[u8]); 10] = [
    ("mariadb118_crud", include_bytes!("../captures/mariadb118_crud.binlog")),
    ("mariadb_compressed", include_bytes!("../captures/mariadb_compressed.binlog")),
    ("mariadb_crud", include_bytes!("../captures/mariadb_crud.binlog")),
    ("mariadb_types", include_bytes!("../captures/mariadb_types.binlog")),
    ("mariadb_unchecked", include_bytes!("../captures/mariadb_unchecked.binlog")),
    ("mysql_crud", include_bytes!("../captures/mysql_crud.binlog")),
    ("mysql_images", include_bytes!("../captures/mysql_images.binlog")),
    ("mysql_payload", include_bytes!("../captures/mysql_payload.binlog")),
    ("mysql_types", include_bytes!("../captures/mysql_types.binlog")),
    ("mysql_unchecked", include_bytes!("../captures/mysql_unchecked.binlog")),
];

#[test]
fn logs_read_as_the_servers_wrote_them() {
    for (name, capture) in CAPTURES {
        insta::assert_snapshot!(name, show::whole(capture));
    }
}
