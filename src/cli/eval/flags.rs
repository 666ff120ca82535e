//! What may be asked of `qis eval`.

use crate::cli::{Compute, Failure};
use crate::eval::{Method, Poison, PoisonKind};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  qis eval --domain datasets/heart4.toml --data heart4.csv --splits 5
  qis eval --domain datasets/ai4i2020.toml --data ai4i2020.csv --splits 5 --nodes 1024 --rows 7
  qis eval --domain datasets/ai4i2020.toml --data ai4i2020.csv --splits 5 --rows 7 --curve 1,4,16,64,256,1000
  qis eval --domain datasets/heart4.toml --data heart4.csv --splits 5 --nodes 64 --poison 0.3 --report heart4.html
  qis eval --domain auto --outcome label --train train.csv --test test.csv")]
pub struct Arguments {
    /// Domain file, or `auto` to draft one from the training rows
    #[arg(long, value_name = "FILE|auto")]
    pub domain: String,
    /// Views of the domain: the first is the swarm's, others compete with it on the same rows [default: the
    /// domain's first]
    #[arg(long, visible_alias = "views", value_name = "NAME", num_args = 1..)]
    pub view: Vec<String>,
    /// Table that is split into 70% training and 30% test rows
    #[arg(long, value_name = "FILE", conflicts_with_all = ["train", "test"], required_unless_present = "train")]
    pub data: Option<PathBuf>,
    /// Number of splits
    #[arg(long, value_name = "K", default_value_t = 1, conflicts_with = "train", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub splits: u64,
    /// Table of training rows
    #[arg(long, value_name = "FILE", requires = "test")]
    pub train: Option<PathBuf>,
    /// Table of test rows; without the outcome column they are predicted all the same
    #[arg(long, value_name = "FILE", requires = "train")]
    pub test: Option<PathBuf>,
    /// With a domain file: the only outcome that counts. With `auto`: the outcome's column
    #[arg(long, value_name = "NAME")]
    pub outcome: Option<String>,
    /// Column of the action, with `--domain auto`
    #[arg(long, value_name = "COLUMN")]
    pub action: Option<String>,
    /// Column that names the node of a row
    #[arg(long, value_name = "COLUMN")]
    pub site: Option<String>,
    /// Split by whole sites: no site has training and test rows
    #[arg(long, conflicts_with = "train")]
    pub by_site: bool,
    /// Deal the training rows to this many nodes instead of one per site
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub nodes: Option<u32>,
    /// Rows per node [default: all rows dealt out]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    pub rows: Option<u32>,
    /// Uneven classes per node: concentration of a Dirichlet distribution, smaller is more uneven
    #[arg(long, value_name = "A")]
    pub dirichlet: Option<f64>,
    /// Tune the first view on the packets of the training rows; with `auto` it always is
    #[arg(long)]
    pub tune: bool,
    /// What is compared with the swarm
    #[arg(
        long,
        value_name = "METHODS",
        value_delimiter = ',',
        default_value = "swarm,local,ridge,fedavg,pooled_mean"
    )]
    pub methods: Vec<String>,
    /// Numbers of nodes to draw a learning curve over: nodes of `--rows` rows, or so many of the sites
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub curve: Vec<u32>,
    /// Let this share of the nodes lie, and say what honest nodes lose by it
    #[arg(long, value_name = "SHARE")]
    pub poison: Option<f64>,
    /// How they lie: all rows flipped, the same ten times each, those of one class, or half of them
    #[arg(long, value_name = "KIND", requires = "poison", default_value = "flip", value_parser = ["flip", "flood", "targeted", "partial"])]
    pub poison_kind: String,
    /// Scramble the slots of the embeddings in this many steps, and say what becomes of answers
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub scramble: Option<u16>,
    /// First seed; split i uses seed + i
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Write every prediction, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Write each split with its rows and predictions, for `benches/pooled.py`
    #[arg(long, value_name = "DIR")]
    pub splits_out: Option<PathBuf>,
    /// Write a page with tables and plots
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub compute: Compute,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What the flags mean, checked.
pub struct Wanted {
    pub methods: Vec<Method>,
    pub poison: Option<Poison>,
    pub rows: Option<usize>,
}

impl Arguments {
    /// # Errors
    /// Flags that contradict each other, or a value that means nothing: exit code 2.
    pub fn wanted(&self) -> Result<Wanted, Failure> {
        if let Some(a) = self.dirichlet
            && !(a.is_finite() && a > 0.0)
        {
            return Err(Failure::usage(format!(
                "--dirichlet {a}: a number above 0 is needed, for example 0.3"
            )));
        }
        if self.rows.is_some() && self.nodes.is_none() && self.curve.is_empty() {
            return Err(Failure::usage(
                "--rows needs --nodes N, or --curve N,N,.. for several numbers of nodes",
            ));
        }
        if self.dirichlet.is_some() && self.nodes.is_none() && self.rows.is_none() {
            return Err(Failure::usage("--dirichlet needs --nodes N, or --rows R with --curve"));
        }
        if !self.curve.is_empty() && self.nodes.is_some() && self.rows.is_none() {
            return Err(Failure::usage(
                "--curve with --nodes needs --rows R: every point has nodes of R rows",
            ));
        }
        let methods = self.methods.iter().map(|name| {
            Method::named(name).ok_or_else(|| {
                let known: Vec<&str> = Method::ALL.iter().map(|method| method.name()).collect();
                Failure::usage(format!("--methods: no method `{name}`; there are {}", known.join(", ")))
            })
        });
        let mut methods = methods.collect::<Result<Vec<Method>, Failure>>()?;
        // Each once, in the order of the reports.
        methods = Method::ALL.into_iter().filter(|method| methods.contains(method)).collect();
        if let Some(name) = self.view.iter().enumerate().find(|(i, name)| self.view[..*i].contains(name)) {
            return Err(Failure::usage(format!("--view {}: named twice", name.1)));
        }
        let poison = match self.poison {
            None => None,
            Some(share) if share > 0.0 && share < 1.0 => {
                let kind = match self.poison_kind.as_str() {
                    "flood" => PoisonKind::Flood,
                    "targeted" => PoisonKind::Targeted,
                    "partial" => PoisonKind::Partial,
                    _ => PoisonKind::Flip,
                };
                Some(Poison { share, kind })
            }
            Some(share) => {
                return Err(Failure::usage(format!(
                    "--poison {share}: a share of the nodes between 0 and 1 is needed, for example 0.3"
                )));
            }
        };
        Ok(Wanted { methods, poison, rows: self.rows.map(|rows| rows as usize) })
    }
}
