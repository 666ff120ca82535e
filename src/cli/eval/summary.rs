//! What all splits say together, as JSON and as tables.

use super::by_name;
use crate::cli::output;
use crate::domain::{Outcome, OutcomeKind};
use crate::eval::metrics::{differences, losses};
use crate::eval::poison::Poisoned;
use crate::eval::statistics::{Spread, mean};
use crate::eval::{Measure, Metrics, Poison, Split, Verdicts, mean_and_error, scramble};
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// Quality per method, a figure per split.
pub struct Table(pub Vec<(String, Vec<Metrics>)>);

/// Everything measured.
#[derive(Default)]
pub struct Summary {
    pub data: String,
    pub rows: usize,
    pub outcomes: Vec<Outcome>,
    pub splits: Vec<Split>,
    /// Per number of nodes, the splits.
    pub curve: BTreeMap<u32, Vec<Split>>,
    /// Numbers of nodes that some split's rows do not allow.
    pub left_out: BTreeSet<u32>,
    pub poison: Option<Poison>,
    pub poisoned: Vec<Poisoned>,
    /// Per split its steps.
    pub scramble: Vec<Vec<scramble::Step>>,
    /// (estimate, what came) of the swarm's test rows.
    pub reliability: Vec<(f64, f64)>,
    /// Per view and split (level in per cent, share covered).
    pub levels: BTreeMap<String, Vec<Vec<(u8, f64)>>>,
}

impl Summary {
    /// Takes a split without its predictions, which nobody reads any more.
    pub fn add(&mut self, mut split: Split) {
        split.methods.iter_mut().for_each(|method| method.rows = vec![]);
        self.splits.push(split);
    }

    pub fn add_poisoned(&mut self, found: Poisoned) {
        self.poisoned.push(found);
    }

    /// Packets read by a question, as a share of all: the mean over splits.
    pub fn read_share(&self) -> f64 {
        self.splits.iter().map(|split| split.read_share).sum::<f64>() / self.splits.len().max(1) as f64
    }

    /// Mean over splits of the recall of heaviest packets, where the view has address bits.
    pub fn recall(&self) -> Option<f64> {
        mean(&self.splits.iter().filter_map(|split| split.recall).collect::<Vec<_>>())
    }

    pub fn verdicts(&self) -> Verdicts {
        Verdicts::mean(&self.splits.iter().map(|split| split.verdicts).collect::<Vec<_>>())
    }

    pub fn nodes(&self) -> usize {
        self.splits.iter().map(|split| split.nodes).max().unwrap_or(0)
    }

    pub fn table(&self) -> Table {
        Table::from(&self.splits[..])
    }

    /// Quality without and with the lies.
    pub fn poisoned_tables(&self) -> [Table; 2] {
        let of = |pick: fn(&(String, Metrics, Metrics)) -> Metrics| {
            let split = |found: &Poisoned| found.methods.iter().map(|m| (m.0.clone(), pick(m))).collect();
            Table(by_name(self.poisoned.iter().map(split)))
        };
        [of(|method| method.1), of(|method| method.2)]
    }

    /// How much worse each method is with the lies than without.
    pub fn losses(&self) -> Vec<(String, BTreeMap<&'static str, Spread>)> {
        let [clean, lied] = self.poisoned_tables();
        let pairs = clean.0.into_iter().zip(lied.0);
        pairs.map(|((name, before), (_, after))| (name, losses(&before, &after))).collect()
    }

    /// Per step of scrambling: share, the swarm's quality over splits, and its verdicts.
    pub fn scrambled(&self) -> Vec<(f64, Vec<Metrics>, Verdicts)> {
        let steps = self.scramble.first().map_or(0, Vec::len);
        let step = |step: usize| {
            let all: Vec<&scramble::Step> = self.scramble.iter().map(|split| &split[step]).collect();
            let verdicts: Vec<Verdicts> = all.iter().map(|step| step.verdicts).collect();
            (all[0].share, all.iter().map(|step| step.metrics).collect(), Verdicts::mean(&verdicts))
        };
        (0..steps).map(step).collect()
    }

    /// What one figure would be: accuracy where there are several labels, else AUC or RMSE.
    pub fn headline(&self) -> Measure {
        let binary = self.outcomes.iter().filter(|outcome| outcome.kind == OutcomeKind::Binary).count();
        match self.splits.first().and_then(|split| split.methods.first()).map(|method| method.metrics) {
            Some(metrics) if binary > 1 && metrics.accuracy.is_some() => Measure::Accuracy,
            Some(metrics) if metrics.auc.is_some() => Measure::Auc,
            Some(metrics) if metrics.rmse.is_some() => Measure::Rmse,
            _ => Measure::Accuracy,
        }
    }

    /// The object of `--json`. `differences`: the swarm's figure minus the method's.
    pub fn json(&self) -> Json {
        let splits: Vec<Json> = self
            .splits
            .iter()
            .map(|split| {
                let metrics: BTreeMap<&str, Metrics> =
                    split.methods.iter().map(|method| (method.name.as_str(), method.metrics)).collect();
                json!({"seed": split.seed, "metrics": metrics})
            })
            .collect();
        let mut object = self.table().figures();
        let mut put = |key: &str, value: Json| object.insert(key.into(), value);
        put("data", json!(self.data));
        put("rows", json!(self.rows));
        put("nodes", json!(self.nodes()));
        put("splits", json!(splits));
        put("read_share", json!(self.read_share()));
        put("verdicts", json!(self.verdicts()));
        if let Some(recall) = self.recall() {
            put("recall_50", json!(recall));
        }
        if !self.curve.is_empty() || !self.left_out.is_empty() {
            let point = |(nodes, splits): (&u32, &Vec<Split>)| {
                let mut point = Table::from(&splits[..]).figures();
                point.insert("nodes".into(), json!(nodes));
                point.insert("packets".into(), json!(splits.iter().map(|split| split.packets).max()));
                Json::Object(point)
            };
            put("curve", self.curve.iter().map(point).collect());
            put("left_out", json!(self.left_out));
        }
        if let Some(poison) = self.poison {
            let [clean, lied] = self.poisoned_tables();
            let losses: BTreeMap<_, _> = self.losses().into_iter().collect();
            let excluded: Vec<_> = self.poisoned.iter().filter_map(|found| found.excluded).collect();
            let over = |share: fn(&(f64, f64)) -> f64| mean(&excluded.iter().map(share).collect::<Vec<_>>());
            let dishonest: Vec<usize> = self.poisoned.iter().map(|found| found.dishonest).collect();
            put(
                "poison",
                json!({
                    "share": poison.share,
                    "kind": poison.kind,
                    "dishonest": dishonest,
                    "excluded_honest": over(|share| share.0),
                    "excluded_dishonest": over(|share| share.1),
                    "clean": clean.figures(),
                    "poisoned": lied.figures(),
                    "loss": losses,
                }),
            );
        }
        if !self.scramble.is_empty() {
            let step = |(share, metrics, verdicts): (f64, Vec<Metrics>, Verdicts)| {
                let (mean, se) = mean_and_error(&metrics);
                json!({"share": share, "mean": mean, "se": se, "verdicts": verdicts})
            };
            put("scramble", self.scrambled().into_iter().map(step).collect());
        }
        Json::Object(object)
    }

    /// Tables for people.
    pub fn print(&self) {
        output::line(&self.sentence());
        let table = self.table();
        let header: Vec<&str> = table.header();
        output::columns(&header, table.cells());
        let differences = table.difference_cells();
        if !differences.is_empty() && self.splits.len() > 1 {
            output::line("swarm minus the others, paired by split, with 95% intervals:");
            output::columns(&header, differences);
        }
        if let Some(poison) = self.poison {
            output::line(&self.poison_sentence(poison));
            let [clean, lied] = self.poisoned_tables();
            let loss = self.losses().into_iter().map(|(name, losses)| {
                std::iter::once(format!("{name}: lost"))
                    .chain(difference_row(&clean.measures(), &losses))
                    .collect()
            });
            let rows: Vec<Vec<String>> =
                clean.named("honest all").into_iter().chain(lied.named("with lies")).chain(loss).collect();
            output::columns(&clean.header(), rows);
        }
        if !self.curve.is_empty() {
            let measure = self.headline();
            output::line(&format!("learning curve, {}:", measure.title()));
            let names: Vec<String> =
                self.curve.values().next().map_or(vec![], |splits| Table::from(&splits[..]).names());
            let header: Vec<&str> =
                std::iter::once("nodes").chain(names.iter().map(String::as_str)).collect();
            output::columns(
                &header,
                self.curve.iter().map(|(nodes, splits)| {
                    let table = Table::from(&splits[..]);
                    std::iter::once(nodes.to_string()).chain(table.column(measure)).collect::<Vec<_>>()
                }),
            );
        }
        if !self.left_out.is_empty() {
            let counts: Vec<String> = self.left_out.iter().map(u32::to_string).collect();
            output::line(&format!("left out, for want of rows or sites: {} nodes", counts.join(", ")));
        }
        if !self.scramble.is_empty() {
            let measure = self.headline();
            output::line("slots of the embeddings scrambled, the swarm:");
            output::columns(
                &["scrambled", measure.title(), "answer", "thin", "conflict"],
                self.scrambled().into_iter().map(|(share, metrics, verdicts)| {
                    let (mean, se) = mean_and_error(&metrics);
                    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
                    vec![
                        percent(share),
                        cell(measure.of(&mean), measure.of(&se), measure.digits()),
                        percent(verdicts.answer),
                        percent(verdicts.thin),
                        percent(verdicts.conflict),
                    ]
                }),
            );
        }
    }

    /// What was run, in one line.
    pub fn sentence(&self) -> String {
        let recall = self
            .recall()
            .map_or_else(String::new, |recall| format!(" and {:.1}% of the 50 heaviest", 100.0 * recall));
        let verdicts = self.verdicts();
        format!(
            "{}: {} rows, {}, {}; a question reads {:.1}% of the packets{recall}; verdicts {:.0}% answer, \
             {:.0}% thin, {:.0}% conflict",
            self.data,
            self.rows,
            output::count(self.nodes() as u64, "node"),
            output::count(self.splits.len() as u64, "split"),
            100.0 * self.read_share(),
            100.0 * verdicts.answer,
            100.0 * verdicts.thin,
            100.0 * verdicts.conflict,
        )
    }

    /// Who lied.
    pub fn poison_sentence(&self, poison: Poison) -> String {
        let most = self.poisoned.iter().map(|found| found.dishonest).max().unwrap_or(0);
        let kind = json!(poison.kind);
        format!(
            "{} lie ({}): quality for the rows that honest nodes ask about, without and with the lies, and \
             what is lost",
            output::count(most as u64, "node"),
            kind.as_str().unwrap_or_default(),
        )
    }
}

impl Table {
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Measures that some method has.
    pub fn measures(&self) -> Vec<Measure> {
        let has = |measure: &Measure| {
            self.0.iter().any(|(_, splits)| splits.iter().any(|split| measure.of(split).is_some()))
        };
        Measure::ALL.into_iter().filter(has).collect()
    }

    /// `mean`, `se` and `differences` for JSON.
    fn figures(&self) -> Map<String, Json> {
        let both: Vec<(&String, (Metrics, Metrics))> =
            self.0.iter().map(|(name, splits)| (name, mean_and_error(splits))).collect();
        let pick = |pick: fn(&(Metrics, Metrics)) -> Metrics| -> Json {
            both.iter().map(|(name, pair)| ((*name).clone(), json!(pick(pair)))).collect::<Map<_, _>>().into()
        };
        let differences: Map<String, Json> =
            self.differences().into_iter().map(|(name, by)| (name, json!(by))).collect();
        let mut object = Map::new();
        object.insert("mean".into(), pick(|pair| pair.0));
        object.insert("se".into(), pick(|pair| pair.1));
        object.insert("differences".into(), differences.into());
        object
    }

    /// The first method, the swarm, minus each other one.
    fn differences(&self) -> Vec<(String, BTreeMap<&'static str, Spread>)> {
        let Some(((_, swarm), others)) = self.0.split_first() else { return vec![] };
        others.iter().map(|(name, splits)| (name.clone(), differences(swarm, splits))).collect()
    }

    pub fn header(&self) -> Vec<&'static str> {
        std::iter::once("method").chain(self.measures().into_iter().map(Measure::title)).collect()
    }

    /// A row per method: mean and standard error.
    pub fn cells(&self) -> Vec<Vec<String>> {
        self.named("")
    }

    /// The same with a remark beside the name.
    fn named(&self, remark: &str) -> Vec<Vec<String>> {
        let measures = self.measures();
        let row = |(name, splits): &(String, Vec<Metrics>)| {
            let (mean, se) = mean_and_error(splits);
            let name = if remark.is_empty() { name.clone() } else { format!("{name}: {remark}") };
            let cells = measures.iter().map(|m| cell(m.of(&mean), m.of(&se), m.digits()));
            std::iter::once(name).chain(cells).collect()
        };
        self.0.iter().map(row).collect()
    }

    /// A row per method but the first: the difference with its interval.
    pub fn difference_cells(&self) -> Vec<Vec<String>> {
        let measures = self.measures();
        let row = |(name, by): (String, BTreeMap<&'static str, Spread>)| {
            std::iter::once(name).chain(difference_row(&measures, &by)).collect()
        };
        self.differences().into_iter().map(row).collect()
    }

    /// One measure of all methods.
    fn column(&self, measure: Measure) -> Vec<String> {
        let one = |(_, splits): &(String, Vec<Metrics>)| {
            let (mean, se) = mean_and_error(splits);
            cell(measure.of(&mean), measure.of(&se), measure.digits())
        };
        self.0.iter().map(one).collect()
    }
}

fn cell(mean: Option<f64>, error: Option<f64>, digits: usize) -> String {
    match error {
        Some(error) => format!("{} ± {error:.digits$}", output::number(mean, digits)),
        None => output::number(mean, digits),
    }
}

fn difference_row<'a>(
    measures: &'a [Measure],
    by: &'a BTreeMap<&'static str, Spread>,
) -> impl Iterator<Item = String> + 'a {
    measures.iter().map(|measure| {
        let digits = measure.digits();
        match by.get(measure.key()) {
            None => "-".into(),
            Some(Spread { mean, low: Some(low), high: Some(high), .. }) => {
                format!("{mean:+.digits$} [{low:+.digits$}, {high:+.digits$}]")
            }
            Some(spread) => format!("{:+.digits$}", spread.mean),
        }
    })
}
