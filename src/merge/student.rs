//! Student's t distribution from `libm` alone: its distribution function and the inverse of it.
//!
//! [`super::quantile`] has the quantile that intervals use, an expansion; sampling and chances need
//! the distribution function itself, at any point.

/// P(T <= t) for Student's T of `degrees` >= 1 degrees of freedom (need not be whole):
/// I_x(degrees / 2, 1 / 2) / 2 below 0, with x = degrees / (degrees + t^2) and I the regularised
/// incomplete beta function (Abramowitz and Stegun 26.7.1).
pub fn student_below(t: f64, degrees: f64) -> f64 {
    if degrees > 1e7 {
        return 0.5 * libm::erfc(-t / core::f64::consts::SQRT_2);
    }
    // Both shares are computed from their own side: 1 - x would lose the digits of a small one.
    let square = t * t;
    let (x, rest) = match square.is_finite() {
        true => (degrees / (degrees + square), square / (degrees + square)),
        false => (0.0, 1.0),
    };
    let tail = 0.5 * incomplete_beta(0.5 * degrees, 0.5, x, rest);
    if t < 0.0 { tail } else { 1.0 - tail }
}

/// t with P(T <= t) = p, 0 < p < 1: bisection of z, t = z / (1 - z^2), to its last bit.
pub fn student_at(p: f64, degrees: f64) -> f64 {
    let t = |z: f64| z / ((1.0 - z) * (1.0 + z));
    let (mut low, mut high) = (-1.0, 1.0);
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        if middle <= -1.0 || middle >= 1.0 {
            break;
        }
        if student_below(t(middle), degrees) < p { low = middle } else { high = middle }
    }
    t((0.5 * (low + high)).clamp(-1.0 + 1e-15, 1.0 - 1e-15))
}

/// I_x(a, b), with `rest` = 1 - x: the continued fraction of Abramowitz and Stegun 26.5.8, evaluated by
/// Lentz's method on the side where it converges fast.
fn incomplete_beta(a: f64, b: f64, x: f64, rest: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if rest <= 0.0 {
        return 1.0;
    }
    let front = libm::exp(
        libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * libm::log(x) + b * libm::log(rest),
    );
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(a, b, x) / a
    } else {
        1.0 - front * fraction(b, a, rest) / b
    }
}

fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |y: f64| if y.abs() < TINY { TINY } else { y };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    // Some sqrt(max(a, b)) steps are enough; a is at most half of 1e7.
    for step in 1..10_000 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        value *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        value *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_that_of_the_tables() {
        for (t, degrees, p) in [
            (0.0, 1.0, 0.5),
            (1.0, 1.0, 0.75),
            (6.313_751_5, 1.0, 0.95),
            (2.919_985_6, 2.0, 0.95),
            (-2.570_581_8, 5.0, 0.025),
            (2.749_995_7, 30.0, 0.995),
            (1.644_853_6, 1e9, 0.95),
            (1.645_1, 9e6, 0.950_025),
            (-1e9, 1.0, 3.183_098_9e-10),
        ] {
            let found = student_below(t, degrees);
            assert!((found - p).abs() < 1e-6 && (found - p).abs() < 1e-3 * p, "{t} {degrees}: {found}");
        }
    }

    #[test]
    fn the_inverse_leads_back() {
        for degrees in [1.0, 1.7, 4.0, 63.0, 1e5, 1e9] {
            for p in [1e-6, 0.01, 0.3, 0.5, 0.9, 0.999_99] {
                let t = student_at(p, degrees);
                assert!((student_below(t, degrees) - p).abs() < 1e-9 * p.max(1e-3), "{degrees} {p}: {t}");
            }
        }
    }
}
