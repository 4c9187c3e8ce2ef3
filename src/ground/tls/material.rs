//! Files that are used as a whole, and replaced as a whole: the last good content stays until there
//! is better.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::zeroize::Zeroizing;
use tokio::time::Instant;

use super::pem::{self, PemError};

/// Most readings of the files. Files are read until two readings agree, so that no file is used while it is
/// being replaced; after this many readings the last one counts.
const READINGS: u32 = 5;

/// Time for which new content must lie unchanged before a look uses it, unless the operator asks for the look
/// (SIGHUP): a writer may pause between two halves of a file, each of which could pass for the whole.
pub const RESTED: Duration = Duration::from_secs(2);

/// Link by which the kubelet replaces all files of a mounted Secret or `ConfigMap` at once.
const CURRENT_VERSION: &str = "..data";

/// Size of the longest file that is read. No certificate chain, key or bundle of roots is longer.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Error of a file of certificates or keys: a mistake of the operator, or of the program that writes the file.
#[derive(Debug)]
pub enum FileError {
    /// The file can't be read.
    Unreadable { path: PathBuf, source: io::Error },
    /// The file is too long for a certificate chain, a key or a bundle of roots.
    TooLarge { path: PathBuf },
    /// The file holds no `what`, or only a part of one.
    Missing { path: PathBuf, what: &'static str },
    /// A certificate or key is there, but not in a form that is read.
    Form { path: PathBuf, error: PemError },
    /// The key belongs to another certificate: half of a pair was replaced.
    Mismatch { certificate: PathBuf, key: PathBuf },
    /// The certificate has expired, or is not valid yet.
    NotValid { path: PathBuf, valid_from: SystemTime, valid_to: SystemTime },
    /// The system has no certificate authorities.
    NoRoots,
    /// A file that a variable of the environment names can't be used.
    Named { variable: &'static str, error: Box<FileError> },
    /// No certificate authority is in the folders that a variable of the environment names.
    NoneIn { variable: &'static str, folders: PathBuf },
    /// The content of the file can't be used for TLS.
    Unusable { path: PathBuf, source: Box<dyn Error + Send + Sync> },
}

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => write!(
                formatter,
                "{} can't be read ({source}): mount the Secret there, readable by the sidecar's user",
                path.display()
            ),
            Self::TooLarge { path } => {
                write!(formatter, "{} is over 4 MiB: it can't be the right file", path.display())
            }
            Self::Missing { path, what } => write!(
                formatter,
                "{} has no whole {what} in PEM form in it (-----BEGIN ...): copy it again",
                path.display()
            ),
            Self::Form { path, error } => write!(formatter, "{} {error}", path.display()),
            Self::Mismatch { certificate, key } => write!(
                formatter,
                "the key in {} is not that of the certificate in {}: replace both together",
                key.display(),
                certificate.display()
            ),
            Self::NotValid { path, valid_from, valid_to } => write!(
                formatter,
                "the certificate in {} is valid from {} to {}, and not now: renew it",
                path.display(),
                httpdate::fmt_http_date(*valid_from),
                httpdate::fmt_http_date(*valid_to)
            ),
            Self::NoRoots => formatter.write_str(
                "this system has no certificate authorities: install ca-certificates, or take \
                 outgoing.roots = \"bundled\"",
            ),
            Self::Named { variable, error } => write!(
                formatter,
                "{variable} names a file that can't be used: {error}; correct it, or unset {variable}"
            ),
            Self::NoneIn { variable, folders } => write!(
                formatter,
                "{variable} names {}, where there is no certificate authority: correct it, or unset \
                 {variable}",
                folders.display()
            ),
            Self::Unusable { path, source } => {
                write!(formatter, "{} can't be used for TLS: {source}", path.display())
            }
        }
    }
}

impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The message already holds the causes.
        None
    }
}

/// The content of the files that belong together, in the order of their paths.
pub(super) struct Contents<'p> {
    files: Vec<(&'p Path, Zeroizing<Vec<u8>>)>,
}

impl<'p> Contents<'p> {
    /// Reads `paths` until two readings agree, at most [`READINGS`] times.
    fn read(paths: &'p [PathBuf]) -> Result<(Self, Print), FileError> {
        let mut last = Self::read_once(paths)?;
        for _ in 1..READINGS {
            let again = Self::read_once(paths)?;
            let same = again.1 == last.1;
            last = again;
            if same {
                break;
            }
        }
        Ok(last)
    }

    fn read_once(paths: &'p [PathBuf]) -> Result<(Self, Print), FileError> {
        let mut files = Vec::with_capacity(paths.len());
        let mut digest = Context::new(&SHA256);
        for path in paths {
            let unreadable = |source| FileError::Unreadable { path: path.clone(), source };
            let length = std::fs::metadata(path).map_err(unreadable)?.len();
            if length > MAX_FILE_BYTES {
                return Err(FileError::TooLarge { path: path.clone() });
            }
            let content = Zeroizing::new(std::fs::read(path).map_err(unreadable)?);
            digest.update(&content.len().to_le_bytes());
            digest.update(&content);
            files.push((path.as_path(), content));
        }
        let print = digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        Ok((Self { files }, print))
    }

    /// Reads all certificates in file number `index`; at least one.
    pub(super) fn certificates(
        &self,
        index: usize,
    ) -> Result<Vec<CertificateDer<'static>>, FileError> {
        let (path, content) = &self.files[index];
        pem::certificates(content).map_err(|error| unreadable_pem(path, "certificate", error))
    }

    /// Reads the private key in file number `index`.
    pub(super) fn key(&self, index: usize) -> Result<PrivateKeyDer<'static>, FileError> {
        let (path, content) = &self.files[index];
        pem::key(content).map_err(|error| unreadable_pem(path, "private key", error))
    }

    /// Returns the number of files.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Returns the path of file number `index`.
    pub(super) fn path(&self, index: usize) -> PathBuf {
        self.files[index].0.into()
    }
}

fn unreadable_pem(path: &Path, what: &'static str, error: PemError) -> FileError {
    let path = path.to_owned();
    match error {
        PemError::Missing => FileError::Missing { path, what },
        error => FileError::Form { path, error },
    }
}

/// Whether `path` is a link into the current version of a mounted Secret or `ConfigMap`: its content is
/// replaced at once, and is never half written.
pub fn is_replaced_at_once(path: &Path) -> bool {
    let is_link = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|it| it.is_symlink());
    is_link(path) && path.parent().is_some_and(|folder| is_link(&folder.join(CURRENT_VERSION)))
}

/// Builds a value from `paths` once. New content of the files does not replace the value.
pub(super) fn read<T>(
    paths: &[PathBuf],
    build: impl FnOnce(&Contents<'_>) -> Result<T, FileError>,
) -> Result<T, FileError> {
    build(&Contents::read(paths)?.0)
}

type Build<T> = Box<dyn Fn(&Contents<'_>) -> Result<T, FileError> + Send + Sync>;

/// Digest by which the content of files is compared.
type Print = [u8; 32];

/// Value that was built from the last good content of some files.
pub(super) struct Material<T> {
    paths: Vec<PathBuf>,
    build: Build<T>,
    current: ArcSwap<T>,
    seen: Mutex<Seen>,
}

/// Result of a look at files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The files have the content in force, as before.
    Same,
    /// New content is in force.
    Replaced,
    /// The rejected content is gone: the files have the content in force again, or the content in force is
    /// good by now.
    Mended,
    /// The files still have content that was rejected and reported.
    Rejected,
    /// New content that may be half written: look again after [`RESTED`].
    Unsettled,
}

/// Content of the files at one look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Content(Print),
    Unreadable,
}

/// Memory of the looks so far.
struct Seen {
    in_force: Print,
    /// Content that was rejected last and has not been mended since.
    rejected: Option<Found>,
    /// Content that is not in force, and since when the files have had it.
    found: Option<(Found, Instant)>,
}

impl Seen {
    /// Whether the files have had this content, which is not in force, for [`RESTED`].
    fn has_rested(&mut self, lies: Found) -> bool {
        let now = Instant::now();
        match self.found {
            Some((found, since)) if found == lies => now.saturating_duration_since(since) >= RESTED,
            _ => {
                self.found = Some((lies, now));
                false
            }
        }
    }

    /// Notes a rejection. Returns the error the first time, and each time with `again`.
    fn reject(
        &mut self,
        rejected: Found,
        again: bool,
        error: FileError,
    ) -> Result<Refreshed, FileError> {
        let known = self.rejected.replace(rejected) == Some(rejected);
        if known && !again { Ok(Refreshed::Rejected) } else { Err(error) }
    }
}

impl<T> Material<T> {
    /// Reads `paths` and builds a value from their content with `build`.
    pub(super) fn load(
        paths: Vec<PathBuf>,
        build: impl Fn(&Contents<'_>) -> Result<T, FileError> + Send + Sync + 'static,
    ) -> Result<Self, FileError> {
        let (contents, in_force) = Contents::read(&paths)?;
        let current = ArcSwap::from_pointee(build(&contents)?);
        drop(contents);
        let seen = Mutex::new(Seen { in_force, rejected: None, found: None });
        Ok(Self { paths, build: Box::new(build), current, seen })
    }

    /// Returns the value in force.
    pub(super) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Looks at the files again and replaces the value in force if their content is new, at rest, good and
    /// `accept`ed. Rejected content is judged again at each look: a certificate may become valid with time.
    /// `again` says that the operator has asked: new content is taken at once, a rejection returned again.
    pub(super) fn refresh(
        &self,
        again: bool,
        accept: impl Fn(&T) -> Result<(), FileError>,
    ) -> Result<Refreshed, FileError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (contents, print) = match Contents::read(&self.paths) {
            Ok(read) => read,
            // A writer may be replacing the file at this moment.
            Err(_) if !again && !seen.has_rested(Found::Unreadable) => {
                return Ok(Refreshed::Unsettled);
            }
            Err(error) => return seen.reject(Found::Unreadable, again, error),
        };
        let is_new = print != seen.in_force;
        if !is_new && !again {
            seen.found = None;
            return Ok(match seen.rejected {
                None => Refreshed::Same,
                Some(rejected)
                    if rejected == Found::Content(print) && accept(&self.current()).is_err() =>
                {
                    Refreshed::Rejected
                }
                Some(_) => {
                    seen.rejected = None;
                    Refreshed::Mended
                }
            });
        }
        let may_be_half = is_new && !self.paths.iter().all(|path| is_replaced_at_once(path));
        if may_be_half && !again && !seen.has_rested(Found::Content(print)) {
            return Ok(Refreshed::Unsettled);
        }
        let fresh = match (self.build)(&contents).and_then(|fresh| accept(&fresh).map(|()| fresh)) {
            Ok(fresh) => fresh,
            Err(error) => return seen.reject(Found::Content(print), again, error),
        };
        self.current.store(Arc::new(fresh));
        let was_rejected = seen.rejected.is_some();
        *seen = Seen { in_force: print, rejected: None, found: None };
        Ok(match (is_new, was_rejected) {
            (true, _) => Refreshed::Replaced,
            (false, true) => Refreshed::Mended,
            (false, false) => Refreshed::Same,
        })
    }
}
