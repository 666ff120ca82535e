//! Quantiles of the normal and Student's t distribution, from `libm` alone.
//!
//! Statistics crates reach for the platform's `ln` and `exp`, whose last bits differ between
//! machines; an answer must not.

/// x with P(X <= x) = p for a standard normal X, 0 < p < 1: bisection on `erfc`, to the last bit.
pub fn normal_quantile(p: f64) -> f64 {
    let below = |x: f64| 0.5 * libm::erfc(-x / core::f64::consts::SQRT_2) < p;
    let (mut low, mut high) = (-40.0, 40.0);
    // 80 halvings of 80 are below the spacing of doubles around 1.
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if below(middle) { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// t with P(|T| <= t) = `level` for Student's T of `degrees` >= 1 degrees of freedom (need not be
/// whole), by the expansion of Hill (Communications of the ACM 13, algorithm 396, 1970): three or
/// more digits from 1 degree on, six from 5.
pub fn student_quantile(level: f64, degrees: f64) -> f64 {
    let n = degrees;
    let p = 1.0 - level;
    if n > 1e10 {
        return normal_quantile(1.0 - p / 2.0);
    }
    if (n - 2.0).abs() < 1e-12 {
        return libm::sqrt(2.0 / (p * (2.0 - p)) - 2.0);
    }
    if n < 1.0 + 1e-12 {
        let angle = p * core::f64::consts::FRAC_PI_2;
        return libm::cos(angle) / libm::sin(angle);
    }
    let a = 1.0 / (n - 0.5);
    let b = 48.0 / (a * a);
    let mut c = ((20_700.0 * a / b - 98.0) * a - 16.0) * a + 96.36;
    let d = ((94.5 / (b + c) - 3.0) / b + 1.0) * libm::sqrt(a * core::f64::consts::FRAC_PI_2) * n;
    let mut y = libm::pow(d * p, 2.0 / n);
    if y > 0.05 + a {
        let x = normal_quantile(0.5 * p);
        y = x * x;
        if n < 5.0 {
            c += 0.3 * (n - 4.5) * (x + 0.6);
        }
        c += (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b;
        y = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x;
        y = libm::expm1(a * y * y);
    } else {
        y = ((1.0 / (((n + 6.0) / (n * y) - 0.089 * d - 0.822) * (n + 2.0) * 3.0) + 0.5 / (n + 4.0)) * y
            - 1.0)
            * (n + 1.0)
            / (n + 2.0)
            + 1.0 / y;
    }
    libm::sqrt(n * y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, x) in [(0.5, 0.0), (0.9, 1.281_551_565_5), (0.95, 1.644_853_627_0), (0.005, -2.575_829_303_5)]
        {
            assert!((normal_quantile(p) - x).abs() < 1e-9, "{p}");
        }
        for (level, degrees, t) in [
            (0.90, 1.0, 6.313_75),
            (0.90, 2.0, 2.919_99),
            (0.90, 3.0, 2.353_36),
            (0.95, 5.0, 2.570_58),
            (0.90, 10.0, 1.812_46),
            (0.99, 30.0, 2.750_00),
            (0.90, 1e12, 1.644_85),
        ] {
            let found = student_quantile(level, degrees);
            assert!((found - t).abs() < 2e-3 * t, "{level} {degrees}: {found} {t}");
        }
    }
}
