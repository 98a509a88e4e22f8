//! Databases that others made: their dumps lie beside the repository, where they are at all.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Where the dumps may be, beside the repository or its worktrees: they are others' work and large.
const ARCHIVES: [&str; 2] = ["../shared/data/sample-dbs.tar.xz", "../../shared/data/sample-dbs.tar.xz"];

/// A dump of the archive, unpacked below `folder`; `None`, said aloud, where there is no archive.
pub(crate) fn sample(name: &str, folder: &Path) -> Option<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(archive) = ARCHIVES.iter().map(|archive| root.join(archive)).find(|archive| archive.is_file()) else {
        // Past the capture of the test's output, which shows nothing of a test that passes.
        let _ = writeln!(std::io::stderr(), "PASSED OVER: {} is not there, {name} was not loaded", ARCHIVES[0]);
        return None;
    };
    let member = format!("samples/{name}");
    let unpacked =
        Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(folder).arg(&member).status().expect("tar");
    assert!(unpacked.success(), "{member}");
    Some(std::fs::read(folder.join(member)).expect("a dump"))
}
