//! The rows of each split, and the domain that they are read by.

use super::Arguments;
use crate::cli::{Failure, data};
use crate::distill::Case;
use crate::domain::{Domain, Purpose};
use crate::eval::split::{split, split_by_site};
use std::path::Path;
use std::sync::Arc;

/// One split's domain and rows. The domain differs from split to split only under `auto`.
pub struct Prepared {
    pub domain: Arc<Domain>,
    pub cases: Arc<Vec<Case>>,
    pub train: Vec<usize>,
    pub test: Vec<usize>,
}

/// Where the rows of each split come from.
pub enum Source<'a> {
    /// One table and one domain for all splits.
    Table { domain: Arc<Domain>, cases: Arc<Vec<Case>>, by_site: bool },
    /// Two tables, and a domain.
    Pair { domain: Arc<Domain>, cases: Arc<Vec<Case>>, train: usize },
    /// One table; each split drafts a domain from its training rows.
    Drafted { arguments: &'a Arguments, path: &'a Path },
}

impl<'a> Source<'a> {
    pub fn new(arguments: &'a Arguments) -> Result<Source<'a>, Failure> {
        let auto = arguments.domain == "auto";
        if auto && arguments.outcome.is_none() {
            return Err(Failure::usage("--domain auto needs --outcome COLUMN"));
        }
        if !auto && arguments.action.is_some() {
            return Err(Failure::usage("--action belongs to --domain auto; a domain file names its own"));
        }
        match (&arguments.data, &arguments.train, &arguments.test) {
            (Some(path), ..) if auto => Ok(Source::Drafted { arguments, path }),
            (Some(path), ..) => {
                let domain = load(arguments, &arguments.domain)?;
                let cases = Arc::new(data::cases(path, &domain, Purpose::Evidence)?);
                Ok(Source::Table { domain: Arc::new(domain), cases, by_site: arguments.by_site })
            }
            (None, Some(train), Some(test)) => {
                let domain = if auto {
                    data::draft(train, &draft_options(arguments))?
                } else {
                    load(arguments, &arguments.domain)?
                };
                let mut cases = data::cases(train, &domain, Purpose::Evidence)?;
                let train = cases.len();
                let purpose = if auto { Purpose::Unseen } else { Purpose::Questions };
                cases.extend(data::cases(test, &domain, purpose)?);
                Ok(Source::Pair { domain: Arc::new(domain), cases: Arc::new(cases), train })
            }
            _ => Err(Failure::usage("either --data or --train with --test")),
        }
    }

    pub fn prepare(&mut self, seed: u64) -> Result<Prepared, Failure> {
        match self {
            Source::Table { domain, cases, by_site } => {
                let parts = if *by_site {
                    let sites: Vec<Option<&str>> = cases.iter().map(|case| case.site.as_deref()).collect();
                    split_by_site(&sites, seed)
                } else {
                    split(cases.len(), seed)
                };
                let (train, test) = both(parts)?;
                Ok(Prepared { domain: domain.clone(), cases: cases.clone(), train, test })
            }
            Source::Pair { domain, cases, train } => {
                let (train, test) = both(((0..*train).collect(), (*train..cases.len()).collect()))?;
                Ok(Prepared { domain: domain.clone(), cases: cases.clone(), train, test })
            }
            Source::Drafted { arguments, path } => {
                let (header, rows) = data::records(path)?;
                let column =
                    arguments.site.as_ref().and_then(|site| header.iter().position(|name| name == site));
                let parts = match column.filter(|_| arguments.by_site) {
                    Some(column) => {
                        let sites: Vec<_> =
                            rows.iter().map(|row| row.get(column).map(String::from_utf8_lossy)).collect();
                        let sites: Vec<Option<&str>> = sites.iter().map(|site| site.as_deref()).collect();
                        split_by_site(&sites, seed)
                    }
                    None if arguments.by_site => {
                        return Err(Failure::usage(
                            "--by-site with --domain auto needs --site COLUMN of the table",
                        ));
                    }
                    None => split(rows.len(), seed),
                };
                let (train, test) = both(parts)?;
                let folder = tempfile::tempdir().map_err(|e| data::io(Path::new("temporary folder"), e))?;
                let part = folder.path().join("train.csv");
                data::write_records(&part, &header, train.iter().map(|&row| &rows[row]))?;
                let domain = data::draft(&part, &draft_options(arguments))?;
                let cases = data::cases(path, &domain, Purpose::Unseen)?;
                Ok(Prepared { domain: Arc::new(domain), cases: Arc::new(cases), train, test })
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{train} training and {test} test rows: at least one of each is needed")]
struct TooFewRows {
    train: usize,
    test: usize,
}

/// Training and test rows, if there are any of both.
fn both((train, test): (Vec<usize>, Vec<usize>)) -> Result<(Vec<usize>, Vec<usize>), Failure> {
    match train.is_empty() || test.is_empty() {
        true => Err(Failure::rejected(TooFewRows { train: train.len(), test: test.len() })),
        false => Ok((train, test)),
    }
}

fn load(arguments: &Arguments, file: &str) -> Result<Domain, Failure> {
    let mut domain = data::load(Path::new(file))?;
    if let Some(site) = &arguments.site {
        domain.source.site = Some(site.clone());
    }
    Ok(domain)
}

fn draft_options(arguments: &Arguments) -> data::DraftOptions {
    data::DraftOptions {
        outcome: arguments.outcome.clone().unwrap_or_default(),
        action: arguments.action.clone(),
        site: arguments.site.clone(),
    }
}
