//! What mends a file that this process may not open: who asks, and the command.
//!
//! A process that gave up its capabilities, or runs as a user of its own, may be refused at a reload what it could read at
//! start. "Permission denied" does not say for whom, nor whether it is the file or a directory on the way.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To be read.
    Read,
    /// To be appended to, and made if there is none.
    Append,
}

/// The remedy for `e`, which opening `path` met; nothing when it is not about permissions.
#[must_use]
pub fn remedy(path: &Path, access: Access, e: &io::Error) -> Option<String> {
    if e.raw_os_error() != Some(libc::EACCES) {
        return None;
    }
    let (place, right) = refused(path, access);
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let shown = place.display();
    let owned = std::fs::metadata(place).is_ok_and(|m| m.uid() == uid);
    let command = if owned {
        format!("chmod u+{right} {shown}")
    } else {
        format!("chgrp {gid} {shown} && chmod g+{right} {shown}")
    };
    Some(format!("this process runs as uid {uid}, gid {gid}; mend it with `{command}`"))
}

/// The first place on the way that refuses, and the right that is missing there.
fn refused(path: &Path, access: Access) -> (&Path, &'static str) {
    let mut parent = Path::new(".");
    let mut below: Vec<&Path> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
    below.reverse();
    for place in below {
        match std::fs::metadata(place) {
            // A name cannot be looked up in a directory that may not be searched.
            Err(e) if e.raw_os_error() == Some(libc::EACCES) => return (parent, "x"),
            Err(_) if access == Access::Append => return (parent, "wx"),
            Ok(_) | Err(_) => parent = place,
        }
    }
    (path, if access == Access::Read { "r" } else { "w" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_permissions_refuse_has_a_remedy() {
        let path = Path::new("/no/such/file");
        for errno in [libc::ENOENT, libc::EISDIR, libc::EPERM] {
            assert_eq!(remedy(path, Access::Read, &io::Error::from_raw_os_error(errno)), None);
        }
    }

    #[test]
    fn the_file_is_named_or_where_it_would_be_made_and_the_right_that_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let (file, none) = (dir.path().join("file"), dir.path().join("none"));
        std::fs::write(&file, "").unwrap();
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let uid = nix::unistd::geteuid();
        for (path, access, command) in [
            (&file, Access::Read, format!("`chmod u+r {}`", file.display())),
            (&file, Access::Append, format!("`chmod u+w {}`", file.display())),
            (&none, Access::Append, format!("`chmod u+wx {}`", dir.path().display())),
        ] {
            let text = remedy(path, access, &denied).unwrap();
            assert!(text.ends_with(&command) && text.contains(&format!("uid {uid}, ")), "{text}");
        }
    }
}
