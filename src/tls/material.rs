//! Files that are used as a whole, and replaced as a whole: the last good content stays until there
//! is better.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, Digest, SHA256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::zeroize::Zeroizing;

/// Files are read until two readings agree, so that none is seen while it is being replaced; after
/// so many the last one counts.
const READINGS: u32 = 5;

/// No certificate chain, key or bundle of roots is longer.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What is wrong with a file of certificates or keys. The operator's fault, or of whoever writes
/// the file for him.
#[derive(Debug)]
pub enum FileError {
    /// It can't be read.
    Unreadable { path: PathBuf, source: io::Error },
    /// It is too long to be what it should be.
    TooLarge { path: PathBuf },
    /// There is no such thing in it, or it is cut off.
    Missing { path: PathBuf, what: &'static str },
    /// The key is another certificate's: half of a pair was replaced.
    Mismatch { certificate: PathBuf, key: PathBuf },
    /// It has expired, or is not valid yet.
    NotValid { path: PathBuf, valid_from: SystemTime, valid_to: SystemTime },
    /// The system has no certificate authorities.
    NoRoots,
    /// TLS can't work with it.
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
            Self::Unusable { path, source } => {
                write!(formatter, "{} can't be used for TLS: {source}", path.display())
            }
        }
    }
}

impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The message has the causes.
        None
    }
}

/// The content of the files that belong together, in the order of their paths.
pub(super) struct Contents<'p> {
    files: Vec<(&'p Path, Zeroizing<Vec<u8>>)>,
}

impl<'p> Contents<'p> {
    /// Reads `paths` until nothing changes any more.
    fn read(paths: &'p [PathBuf]) -> Result<(Self, Digest), FileError> {
        let mut last = Self::read_once(paths)?;
        for _ in 1..READINGS {
            let again = Self::read_once(paths)?;
            let same = again.1.as_ref() == last.1.as_ref();
            last = again;
            if same {
                break;
            }
        }
        Ok(last)
    }

    fn read_once(paths: &'p [PathBuf]) -> Result<(Self, Digest), FileError> {
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
        Ok((Self { files }, digest.finish()))
    }

    /// All certificates in file number `index`; at least one.
    pub(super) fn certificates(
        &self,
        index: usize,
    ) -> Result<Vec<CertificateDer<'static>>, FileError> {
        let (path, content) = &self.files[index];
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
        match read {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(FileError::Missing { path: (*path).into(), what: "certificate" }),
        }
    }

    /// The private key in file number `index`.
    pub(super) fn key(&self, index: usize) -> Result<PrivateKeyDer<'static>, FileError> {
        let (path, content) = &self.files[index];
        let missing = |_| FileError::Missing { path: (*path).into(), what: "private key" };
        PrivateKeyDer::from_pem_slice(content).map_err(missing)
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Where file number `index` is.
    pub(super) fn path(&self, index: usize) -> PathBuf {
        self.files[index].0.into()
    }
}

/// What `build` makes of `paths` now, for what is not replaced when they are.
pub(super) fn read<T>(
    paths: &[PathBuf],
    build: impl FnOnce(&Contents<'_>) -> Result<T, FileError>,
) -> Result<T, FileError> {
    build(&Contents::read(paths)?.0)
}

type Build<T> = Box<dyn Fn(&Contents<'_>) -> Result<T, FileError> + Send + Sync>;

/// What was made of the last good content of some files.
pub(super) struct Material<T> {
    paths: Vec<PathBuf>,
    build: Build<T>,
    current: ArcSwap<T>,
    /// Of the content that was looked at last, good or bad.
    seen: Mutex<Option<Digest>>,
}

impl<T> Material<T> {
    /// Reads `paths` and makes of them what `build` makes.
    pub(super) fn load(
        paths: Vec<PathBuf>,
        build: impl Fn(&Contents<'_>) -> Result<T, FileError> + Send + Sync + 'static,
    ) -> Result<Self, FileError> {
        let (contents, digest) = Contents::read(&paths)?;
        let current = ArcSwap::from_pointee(build(&contents)?);
        drop(contents);
        Ok(Self { paths, build: Box::new(build), current, seen: Mutex::new(Some(digest)) })
    }

    /// What is in force.
    pub(super) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Looks at the files again and replaces what is in force if they are new, good, and `accept`ed;
    /// says whether it did. Content that was found bad is only spoken of once, unless `again`.
    pub(super) fn refresh(
        &self,
        again: bool,
        accept: impl Fn(&T) -> Result<(), FileError>,
    ) -> Result<bool, FileError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (contents, digest) = match Contents::read(&self.paths) {
            Ok(read) => read,
            Err(error) => {
                let news = seen.take().is_some() || again;
                return if news { Err(error) } else { Ok(false) };
            }
        };
        let known = seen.as_ref().is_some_and(|seen| seen.as_ref() == digest.as_ref());
        if known && !again {
            return Ok(false);
        }
        *seen = Some(digest);
        let fresh = (self.build)(&contents)?;
        accept(&fresh)?;
        self.current.store(Arc::new(fresh));
        Ok(!known)
    }
}
