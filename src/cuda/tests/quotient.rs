//! The kernels' division against the processor's.
//!
//! The idea: `quotient` in `cuda/activation.cuh` is an exact division of what gates and tanh divide, and of nothing else. Its
//! steps are the same here, and a kernel that runs them is compared with the processor's bits in the other tests.

/// As `quotient` in `cuda/activation.cuh`.
fn quotient(n: f32, d: f32) -> f32 {
    let mut r = d.mul_add(-0.5, 1.5);
    for _ in 0..2 {
        let e = (-d).mul_add(r, 1.0);
        r = r.mul_add(e.mul_add(e, e), r);
    }
    let q = n * r;
    (-d).mul_add(q, n).mul_add(r, q)
}

fn is_exact(n: f32, d: f32) {
    assert_eq!(quotient(n, d).to_bits(), (n / d).to_bits(), "{n:e} / {d:e}");
}

/// All of them have been tried (a minute); these are spread over all exponents, and the densest where a rounding is closest.
#[test]
fn quotients_are_rounded_as_divisions_are() {
    let one = 1.0_f32.to_bits();
    for d in (one..=2.0_f32.to_bits()).step_by(3).chain(2.0_f32.to_bits() - 1000..=2.0_f32.to_bits()) {
        is_exact(1.0, f32::from_bits(d));
    }
    for n in (0..=one).step_by(509).chain(one - 1000..=one).map(f32::from_bits) {
        is_exact(n, 1.0 + n);
        is_exact(n, 2.0 - n);
    }
}
