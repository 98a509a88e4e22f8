//! Logs of many versions of both servers, whole, cut off and damaged. They are
//! not part of this repository: `shared/data/binlog-fixtures.tar.xz` beside it.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::show;

/// For one file, without optimisation, on a busy machine.
const LONGEST: Duration = Duration::from_secs(20);

fn archive() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().map(|folder| folder.join("shared/data/binlog-fixtures.tar.xz")).find(|path| path.exists())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn logs_of_many_versions_are_read_or_refused_with_a_reason() {
    let Some(archive) = archive() else {
        println!("PASSED OVER: shared/data/binlog-fixtures.tar.xz does not lie beside the repository");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unpacked = Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(folder.path()).status();
    assert!(unpacked.is_ok_and(|status| status.success()), "tar cannot unpack {}", archive.display());

    let mut out = String::new();
    for path in files(folder.path()) {
        if path.extension().is_some_and(|extension| extension == "md") {
            continue;
        }
        let mut bytes = std::fs::read(&path).expect("a readable file");
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked).expect("a gzip file");
            bytes = unpacked;
        }
        let name = path.strip_prefix(folder.path()).expect("a file of the folder").display();
        let began = Instant::now();
        write!(out, "{name}\n{}", show::counts(&bytes)).expect("memory");
        assert!(began.elapsed() < LONGEST, "{name} took {:?}", began.elapsed());
    }
    insta::assert_snapshot!("fixtures", out);
}
