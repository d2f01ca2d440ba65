//! Makes the certificates for the tests, valid and invalid ones.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{RootCertStore, pki_types::CertificateDer};
use tempfile::TempDir;

/// A certificate authority that signs every request.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate and its key, PEM.
pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A certificate for these names that is good for years.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2050)
    }

    /// A certificate that ends, or has ended, with a year's first day.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        self.issue_as(names, |params| {
            params.not_after = date_time_ymd(year, 1, 1);
        })
    }

    /// A certificate that ends in so many days, and an hour.
    pub(crate) fn issue_for_days(&self, names: &[&str], days: u64) -> Pair {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let left = Duration::from_hours(24 * days + 1);
        self.issue_as(names, |params| {
            params.not_after = date_time_ymd(1970, 1, 1) + now + left;
        })
    }

    fn issue_as(&self, names: &[&str], adapt: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new(owned(names)).unwrap();
        params.not_before = date_time_ymd(2019, 1, 1);
        adapt(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// What a client that trusts this authority alone trusts.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).unwrap();
        roots
    }
}

/// A self-signed certificate that no authority vouches for.
pub(crate) fn self_signed(names: &[&str]) -> Pair {
    let params = CertificateParams::new(owned(names)).unwrap();
    let key = KeyPair::generate().unwrap();
    Pair {
        chain: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// A certificate and its key as files of a directory that goes with this.
pub(crate) struct Files {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    _directory: TempDir,
}

impl Files {
    pub(crate) fn new(pair: &Pair) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Self {
            chain: directory.path().join("tls.crt"),
            key: directory.path().join("tls.key"),
            _directory: directory,
        };
        files.replace(pair);
        files
    }

    pub(crate) fn replace(&self, pair: &Pair) {
        fs::write(&self.chain, &pair.chain).unwrap();
        fs::write(&self.key, &pair.key).unwrap();
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
