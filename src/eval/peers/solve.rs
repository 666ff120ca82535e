//! Symmetric positive definite systems of a few hundred unknowns.

/// x of A x = b by Cholesky decomposition; A is n x n, row-major, of which the lower triangle is read.
/// `None` where A is not positive definite.
pub fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    assert_eq!(a.len(), n * n, "a square matrix");
    for column in 0..n {
        for row in column..n {
            let (done, known) = (row * n, column * n);
            let inner: f64 = (0..column).map(|k| a[done + k] * a[known + k]).sum();
            let rest = a[done + column] - inner;
            a[done + column] = match row == column {
                true if rest > 0.0 => libm::sqrt(rest),
                true => return None,
                false => rest / a[known + column],
            };
        }
    }
    for row in 0..n {
        let inner: f64 = (0..row).map(|k| a[row * n + k] * b[k]).sum();
        b[row] = (b[row] - inner) / a[row * n + row];
    }
    for row in (0..n).rev() {
        let inner: f64 = (row + 1..n).map(|k| a[k * n + row] * b[k]).sum();
        b[row] = (b[row] - inner) / a[row * n + row];
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_solved() {
        let found = solve(vec![4.0, 0.0, 0.0, 2.0, 5.0, 0.0, 1.0, 3.0, 6.0], vec![9.0, 21.0, 25.0]).unwrap();
        // 4 2 1 | 2 5 3 | 1 3 6 times 1 2 3 is 11 21 25; the first equation is off by -2.
        let residual = |row: [f64; 3], b: f64| row.iter().zip(&found).map(|(a, x)| a * x).sum::<f64>() - b;
        for (row, b) in [([4.0, 2.0, 1.0], 9.0), ([2.0, 5.0, 3.0], 21.0), ([1.0, 3.0, 6.0], 25.0)] {
            assert!(residual(row, b).abs() < 1e-12, "{found:?}");
        }
        assert_eq!(solve(vec![1.0, 0.0, 2.0, 1.0], vec![0.0, 0.0]), None, "not positive definite");
        assert_eq!(solve(vec![], vec![]), Some(vec![]));
    }
}
