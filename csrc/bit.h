// One bit with logit x: its probabilities, what it costs in nats, and what laws make of them, on vectors.
//
// All of it comes from e = exp(-|x|) and log(1 + e), in which nothing overflows and small values keep their relative
// precision. At infinite x every function is its limit; 0 * inf is 0: what has no weight is not there.
#pragma once
#include "math.h"

namespace {

// log(1 + e) for e in [0, 1]: log(1 + f) + k log(2) with 1 + f = (1 + e) / 2^k, where k is 1 from 1 + e = sqrt(2) on.
template <class T, int N>
INLINE Vec<T, N> log1p_of(Vec<T, N> e) {
  using F = Format<T>;
  using V = Vec<T, N>;
  const auto halved = T(1) + e >= T(1.4142135623730951);
  const V f = halved ? T(0.5) * e - T(0.5) : e;
  const V high = halved ? splat<V>(F::ln2_high) : V{}, low = halved ? splat<V>(F::ln2_low) : V{};
  return high + (f + (log1p_rest<N>(f) + low));
}

template <class T, int N>
struct Bit {
  using V = Vec<T, N>;
  using I = Vec<typename Format<T>::Int, N>;
  static constexpr T kInf = __builtin_inf();

  explicit INLINE Bit(V logit) : x(logit) {
    const V known = exp_of<T, N>(x < 0 ? x : -x);
    e = x == x ? known : x;  // exp_of makes 0 of NaN
    const V sum = T(1) + e;
    large = T(1) / sum, small = e * large;  // a division takes as long as all of the rest
  }

  INLINE V on() const { return x < 0 ? small : large; }   // sigmoid(x)
  INLINE V off() const { return x < 0 ? large : small; }  // sigmoid(-x)
  INLINE V variance() const { return large * small; }
  INLINE I certain() const { return infinite(x); }

  static INLINE I infinite(V v) { return (v == kInf) | (v == -kInf); }
  // coefficient * v, where 0 * inf is 0
  static INLINE V times(V coefficient, V v) { return coefficient * ((coefficient == 0) & infinite(v) ? V{} : v); }
  // The same for v > -inf.
  static INLINE V times_cost(V coefficient, V v) { return coefficient * ((coefficient == 0) & (v == kInf) ? V{} : v); }

  V x, e, large, small;
};

// What a bit costs: -log sigmoid(x) where it is 1 and -log sigmoid(-x) where it is 0.
template <class T, int N>
struct Costs {
  using V = Vec<T, N>;
  using B = Bit<T, N>;

  explicit INLINE Costs(const B& bit) {
    rest = log1p_of<T, N>(bit.e);
    one = (bit.x > 0 ? V{} : -bit.x) + rest;
    zero = (bit.x < 0 ? V{} : bit.x) + rest;
  }

  V rest, one, zero;
};

// -sum p log p = log(1 + e) + |x| sigmoid(-|x|), and its slope -x p (1 - p).
template <class T, int N>
INLINE Vec<T, N> entropy_of(const Bit<T, N>& bit) {
  return log1p_of<T, N>(bit.e) + Bit<T, N>::times(bit.small, bit.x < 0 ? -bit.x : bit.x);
}
template <class T, int N>
INLINE Vec<T, N> entropy_slope(const Bit<T, N>& bit) {
  return Bit<T, N>::times(bit.variance(), -bit.x);
}

// sum p (log p - log q) of the bits p and q: a value that p forbids counts nothing, one that q alone forbids makes it inf.
template <class T, int N>
INLINE Vec<T, N> divergence_of(const Bit<T, N>& p, const Bit<T, N>& q) {
  using V = Vec<T, N>;
  constexpr T inf = Bit<T, N>::kInf;
  const Costs<T, N> cp(p), cq(q);
  const V one = q.x == -inf ? splat<V>(inf) : p.on() * (cq.one - cp.one);
  const V zero = q.x == inf ? splat<V>(inf) : p.off() * (cq.zero - cp.zero);
  return (p.x == -inf ? V{} : one) + (p.x == inf ? V{} : zero);
}

// Its slope for the logit of p: p (1 - p) (x - z). Where q forbids a value, that of the other value's term.
template <class T, int N>
INLINE Vec<T, N> divergence_slope(const Bit<T, N>& p, const Bit<T, N>& q) {
  using V = Vec<T, N>;
  using B = Bit<T, N>;
  const Costs<T, N> cost(p);
  V slope = B::times(p.variance(), p.x - q.x);
  slope = q.x == B::kInf ? p.variance() * (T(1) - cost.one) : slope;
  slope = q.x == -B::kInf ? -p.variance() * (T(1) - cost.zero) : slope;
  return p.certain() ? V{} : slope;
}

// Its slope for the logit of q: sigmoid(z) - sigmoid(x), as a difference that keeps small values.
template <class T, int N>
INLINE Vec<T, N> divergence_other_slope(const Bit<T, N>& p, const Bit<T, N>& q) {
  // Of two equal laws it is 0 to the last bit, also where a fused operation rounds one of the products only.
  return q.certain() | (p.x == q.x) ? Vec<T, N>{} : p.off() * q.on() - p.on() * q.off();
}

}  // namespace
