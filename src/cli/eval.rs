//! `qis eval`: what a swarm of nodes predicts for rows that no node has seen.

use super::{Compute, Failure, data, output};
use crate::distill::Case;
use crate::domain::{Domain, Purpose};
use crate::eval::{self, METHODS, Metrics, Nodes, Setting, Split, mean_and_error, split::split};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  qis eval --domain datasets/heart4.toml --data heart4.csv --splits 5
  qis eval --domain datasets/ai4i2020.toml --data ai4i2020.csv --splits 5 --nodes 1024 --rows 7
  qis eval --domain auto --outcome label --train train.csv --test test.csv")]
pub struct Arguments {
    /// Domain file, or `auto` to draft one from the training rows
    #[arg(long, value_name = "FILE|auto")]
    domain: String,
    /// View of the domain [default: its first]
    #[arg(long, value_name = "NAME")]
    view: Option<String>,
    /// Table that is split into 70% training and 30% test rows
    #[arg(long, value_name = "FILE", conflicts_with_all = ["train", "test"], required_unless_present = "train")]
    data: Option<PathBuf>,
    /// Number of splits
    #[arg(long, value_name = "K", default_value_t = 1, conflicts_with = "train", value_parser = clap::value_parser!(u64).range(1..=1000))]
    splits: u64,
    /// Table of training rows
    #[arg(long, value_name = "FILE", requires = "test")]
    train: Option<PathBuf>,
    /// Table of test rows; without the outcome column they are predicted all the same
    #[arg(long, value_name = "FILE", requires = "train")]
    test: Option<PathBuf>,
    /// With a domain file: the only outcome that counts. With `auto`: the outcome's column
    #[arg(long, value_name = "NAME")]
    outcome: Option<String>,
    /// Column of the action, with `--domain auto`
    #[arg(long, value_name = "COLUMN")]
    action: Option<String>,
    /// Column that names the node of a row
    #[arg(long, value_name = "COLUMN")]
    site: Option<String>,
    /// Deal the training rows to this many nodes instead of one per site
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    nodes: Option<u32>,
    /// Rows per node [default: all rows dealt out]
    #[arg(long, value_name = "R", requires = "nodes", value_parser = clap::value_parser!(u32).range(1..))]
    rows: Option<u32>,
    /// Uneven classes per node: concentration of a Dirichlet distribution, smaller is more uneven
    #[arg(long, value_name = "A", requires = "nodes")]
    dirichlet: Option<f64>,
    /// First seed; split i uses seed + i
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Tune the view on the packets of the training rows first
    #[arg(long)]
    tune: bool,
    /// Write every prediction, one JSON object per line
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// One split's domain and rows. The domain differs from split to split only under `auto`.
struct Prepared {
    domain: Arc<Domain>,
    cases: Arc<Vec<Case>>,
    train: Vec<usize>,
    test: Vec<usize>,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Some(a) = arguments.dirichlet
        && !(a.is_finite() && a > 0.0)
    {
        return Err(Failure::usage(format!("--dirichlet {a}: a number above 0 is needed, for example 0.3")));
    }
    let engine = arguments.compute.engine()?;
    let nodes = match arguments.nodes {
        None => Nodes::Sites,
        Some(count) => Nodes::Drawn {
            count: count as usize,
            rows: arguments.rows.map(|rows| rows as usize),
            dirichlet: arguments.dirichlet,
        },
    };
    let seeds: Vec<u64> = match &arguments.data {
        Some(_) => (0..arguments.splits).map(|i| arguments.seed.wrapping_add(i)).collect(),
        None => vec![arguments.seed],
    };
    let mut predictions = match &arguments.predictions {
        None => None,
        Some(path) => Some((path.clone(), BufWriter::new(data::create(path)?))),
    };
    let mut source = Source::new(&arguments)?;
    let bar = output::progress(seeds.len() as u64, "splits");
    let mut splits: Vec<Split> = vec![];
    let mut rows = 0;
    for &seed in &seeds {
        let prepared = source.prepare(seed)?;
        rows = prepared.train.len() + prepared.test.len();
        let schema = Arc::new(prepared.domain.schema.clone());
        let view = data::view(&prepared.domain, arguments.view.as_deref())?;
        let outcome = match (&arguments.outcome, arguments.domain.as_str()) {
            (Some(name), domain) if domain != "auto" => Some(data::outcome(&prepared.domain, name)?),
            _ => None,
        };
        let tuner = |schema: &crate::domain::Schema, view: &crate::domain::View, packets: &[crate::packet::Verified]| {
            let tuned = crate::tune::tune(schema, view, packets, &engine);
            if std::env::var("QREPORT").is_ok() { tuned.report.iter().for_each(|line| output::note(line)); }
            tuned.view
        };
        let tuner: Option<&eval::Tuner> = if arguments.tune { Some(&tuner) } else { None };
        let setting = Setting { schema: &schema, view, engine: &engine, outcome, tuner };
        let mut split = eval::run(setting, &prepared.cases, (&prepared.train, &prepared.test), nodes, seed)
            .map_err(Failure::failed)?;
        if let Some((path, writer)) = &mut predictions {
            write_predictions(writer, &schema, &split).map_err(|e| data::io(path, e))?;
        }
        split.predictions.clear();
        splits.push(split);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some((path, mut writer)) = predictions {
        writer.flush().map_err(|e| data::io(&path, e))?;
    }
    let ran = engine.ran();
    output::note(&format!("computed on {ran}"));
    let data = arguments.data.as_ref().or(arguments.test.as_ref()).map(|path| path.display().to_string());
    print(&arguments, data.unwrap_or_default(), rows, &splits);
    Ok(())
}

/// Where the rows of each split come from.
enum Source<'a> {
    /// One table and one domain for all splits.
    Table { domain: Arc<Domain>, cases: Arc<Vec<Case>> },
    /// Two tables, and a domain.
    Pair { domain: Arc<Domain>, cases: Arc<Vec<Case>>, train: usize },
    /// One table; each split drafts a domain from its training rows.
    Drafted { arguments: &'a Arguments, path: &'a Path },
}

impl<'a> Source<'a> {
    fn new(arguments: &'a Arguments) -> Result<Source<'a>, Failure> {
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
                Ok(Source::Table { domain: Arc::new(domain), cases })
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

    fn prepare(&mut self, seed: u64) -> Result<Prepared, Failure> {
        match self {
            Source::Table { domain, cases } => {
                let (train, test) = both(split(cases.len(), seed))?;
                Ok(Prepared { domain: domain.clone(), cases: cases.clone(), train, test })
            }
            Source::Pair { domain, cases, train } => {
                let (train, test) = both(((0..*train).collect(), (*train..cases.len()).collect()))?;
                Ok(Prepared { domain: domain.clone(), cases: cases.clone(), train, test })
            }
            Source::Drafted { arguments, path } => {
                let (header, rows) = data::records(path)?;
                let (train, test) = both(split(rows.len(), seed))?;
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

fn write_predictions(
    writer: &mut impl Write,
    schema: &crate::domain::Schema,
    split: &Split,
) -> std::io::Result<()> {
    for prediction in &split.predictions {
        let outcomes: Vec<Json> = schema
            .outcomes
            .iter()
            .zip(&prediction.outcomes)
            .filter_map(|(outcome, found)| {
                let (estimate, lower, upper) = (*found)?;
                Some(json!({"name": outcome.name, "estimate": estimate, "lower": lower, "upper": upper}))
            })
            .collect();
        let line = json!({
            "split": split.seed,
            "row": prediction.row,
            "method": prediction.method,
            "node": prediction.node,
            "outcomes": outcomes,
        });
        writeln!(writer, "{line}")?;
    }
    Ok(())
}

fn print(arguments: &Arguments, data: String, rows: usize, splits: &[Split]) {
    let over = |method: &str| -> (Metrics, Metrics) {
        mean_and_error(&splits.iter().map(|split| split.metrics[method]).collect::<Vec<_>>())
    };
    let nodes = splits.iter().map(|split| split.nodes).max().unwrap_or(0);
    let read_share = splits.iter().map(|split| split.read_share).sum::<f64>() / splits.len() as f64;
    if arguments.json {
        let by_method = |pick: fn((Metrics, Metrics)) -> Metrics| -> BTreeMap<&str, Metrics> {
            METHODS.into_iter().map(|method| (method, pick(over(method)))).collect()
        };
        let splits: Vec<Json> =
            splits.iter().map(|split| json!({"seed": split.seed, "metrics": split.metrics})).collect();
        output::json(&json!({
            "data": data,
            "rows": rows,
            "nodes": nodes,
            "splits": splits,
            "mean": by_method(|pair| pair.0),
            "se": by_method(|pair| pair.1),
            "read_share": read_share,
        }));
        return;
    }
    output::line(&format!(
        "{data}: {rows} rows, {}, {}; a question reads {:.1}% of the packets",
        output::count(nodes as u64, "node"),
        output::count(splits.len() as u64, "split"),
        100.0 * read_share
    ));
    let cell = |mean: Option<f64>, error: Option<f64>, digits: usize| match error {
        Some(error) => format!("{} ± {error:.digits$}", output::number(mean, digits)),
        None => output::number(mean, digits),
    };
    output::table(
        ["method", "AUC", "accuracy", "Brier", "log loss [nat]", "RMSE"],
        METHODS.into_iter().map(|method| {
            let (mean, error) = over(method);
            [
                method.to_string(),
                cell(mean.auc, error.auc, 4),
                cell(mean.accuracy, error.accuracy, 4),
                cell(mean.brier, error.brier, 4),
                cell(mean.log_loss, error.log_loss, 4),
                cell(mean.rmse, error.rmse, 3),
            ]
        }),
    );
}
