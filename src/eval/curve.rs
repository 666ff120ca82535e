//! Learning curves: the same test rows, asked of ever more nodes.

use super::split::Nodes;
use crate::distill::Case;
use std::collections::BTreeSet;

/// How many nodes a table has to give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Supply {
    /// Training rows with an outcome.
    pub rows: usize,
    /// Sites of those rows; rows without a site are one.
    pub sites: usize,
}

impl Supply {
    /// Of some training rows, indices into `cases`.
    pub fn of(cases: &[Case], train: &[usize]) -> Supply {
        let told = || train.iter().filter(|&&row| cases[row].has_outcome());
        let sites: BTreeSet<Option<&str>> = told().map(|&row| cases[row].site.as_deref()).collect();
        Supply { rows: told().count(), sites: sites.len() }
    }

    /// The nodes of a point with `count` of them: so many nodes of `rows` rows, or so many sites where
    /// rows are not asked for. `None` where the table has too few.
    pub fn nodes(&self, count: usize, rows: Option<usize>, dirichlet: Option<f64>) -> Option<Nodes> {
        match rows {
            Some(rows) => (rows.saturating_mul(count) <= self.rows).then_some(Nodes::Drawn {
                count,
                rows: Some(rows),
                dirichlet,
            }),
            None => (count <= self.sites).then_some(Nodes::SomeSites { count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rows_do_not_allow_is_left_out() {
        let supply = Supply { rows: 700, sites: 4 };
        assert!(supply.nodes(100, Some(7), None).is_some() && supply.nodes(101, Some(7), None).is_none());
        assert_eq!(supply.nodes(4, None, None), Some(Nodes::SomeSites { count: 4 }));
        assert_eq!(supply.nodes(5, None, None), None);
        assert_eq!(supply.nodes(usize::MAX, Some(2), None), None);
    }
}
