// log, log1p, exp and the Gumbel transform on vectors, in additions and multiplications whose order is fixed: draws are
// compiled without contraction to fused operations, so every instruction set computes the same bits of them.
// tests/test_kernels.py measures the errors that they leave in the noise and in the softmax.
#pragma once
#include "vector.h"

namespace {

template <class T>
struct Format;

template <>
struct Format<float> {
  using Int = int32_t;
  static constexpr int mantissa = 23;
  static constexpr Int bias = 127;
  static constexpr Int half_root = 0x3f3504f3;  // the bits of sqrt(1/2)
  static constexpr float ln2_high = 0.693359375f, ln2_low = -0x1.bd0106p-13f;  // k * ln2_high is exact
  static constexpr float round = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  static constexpr float exp_lowest = -105;  // below it exp is 0, half the smallest subnormal being exp(-103.97)
};

template <>
struct Format<double> {
  using Int = int64_t;
  static constexpr int mantissa = 52;
  static constexpr Int bias = 1023;
  static constexpr Int half_root = 0x3fe6a09e667f3bcd;
  static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double round = 0x1.8p52;
  static constexpr double exp_lowest = -746;
};

// log(1 + f) - f for f in [sqrt(1/2) - 1, sqrt(2) - 1]. Minimax polynomial of (log(1 + f) - f + f^2/2) / f^3, found by
// Lawson's iteration: relative error 6e-9 before rounding. Even and odd halves are summed side by side for latency.
template <int N>
INLINE Vec<float, N> log1p_rest(Vec<float, N> f) {
  auto z = f * f;
  auto odd = ((-0x1.38b558p-4f * z + -0x1.0d8638p-3f) * z + -0x1.547228p-3f) * z + -0x1.000228p-2f;
  auto even = ((0x1.055d6ep-3f * z + 0x1.22d9eap-3f) * z + 0x1.99a00ap-3f) * z + 0x1.555554p-2f;
  return (even + odd * f) * (z * f) - 0.5f * z;
}

// The same from the series of 2 artanh(s), s = f / (2 + f): log(1 + f) = f - (h - s (h + R)), h = f^2 / 2,
// R = sum 2 s^2i / (2i + 1). s^2 < 0.0295, so eleven terms reach 2^-58.
template <int N>
INLINE Vec<double, N> log1p_rest(Vec<double, N> f) {
  auto s = f / (f + 2.0), z = s * s, h = 0.5 * (f * f);
  auto r = z * (2.0 / 23);
  for (int i = 10; i >= 1; --i) r = (r + 2.0 / (2 * i + 1)) * z;
  return s * (h + r) - h;
}

// -(log(1 + f) + k log(2)).
template <class T, int N>
INLINE Vec<T, N> minus_log(Vec<T, N> f, Vec<typename Format<T>::Int, N> k) {
  using F = Format<T>;
  Vec<T, N> n = __builtin_convertvector(k, Vec<T, N>);
  return n * -F::ln2_high - (f + (log1p_rest<N>(f) + n * F::ln2_low));
}

// The k for which v = 2^k m with m in [sqrt(1/2), sqrt(2)), for a normal v > 0.
template <class T, int N>
INLINE Vec<typename Format<T>::Int, N> exponent(Vec<T, N> v) {
  return (as<Vec<typename Format<T>::Int, N>>(v) - Format<T>::half_root) >> Format<T>::mantissa;
}

// E = -log1p(-u) for u in (0, 1 - 2^-24]. With s = 2^-k, f = s (1 - u) - 1 is exact as (s - 1) - s u, which for k = 0
// is -u itself: small u keep their relative precision.
template <class T, int N>
INLINE Vec<T, N> exponential_of(Vec<T, N> u) {
  using F = Format<T>;
  auto k = exponent<T, N>(T(1) - u);
  auto s = as<Vec<T, N>>((F::bias - k) << F::mantissa);
  return minus_log<T, N>((s - T(1)) - s * u, k);
}

// G = -log(E) for a normal E > 0.
template <class T, int N>
INLINE Vec<T, N> gumbel_of(Vec<T, N> e) {
  using F = Format<T>;
  auto k = exponent<T, N>(e);
  auto m = as<Vec<T, N>>(as<Vec<typename F::Int, N>>(e) - (k << F::mantissa));
  return minus_log<T, N>(m - T(1), k);
}

// exp(r) for |r| <= ln(2) / 2: minimax for float (relative error 3e-9 before rounding), Taylor for double.
template <int N>
INLINE Vec<float, N> exp_reduced(Vec<float, N> r) {
  auto z = r * r;
  auto q = (0x1.6a2434p-10f * z + 0x1.5558f2p-5f) * z + 0x1.fffffcp-2f + (0x1.1239e2p-7f * z + 0x1.555492p-3f) * r;
  return (q * z + r) + 1.0f;
}

template <int N>
INLINE Vec<double, N> exp_reduced(Vec<double, N> r) {
  auto q = splat<Vec<double, N>>(1.0 / 6227020800);  // 13!
  double inverse = 1.0 / 6227020800;
  for (int n = 12; n >= 2; --n) {
    inverse *= n + 1;
    q = q * r + inverse;
  }
  return (q * (r * r) + r) + 1.0;
}

// exp(a) for a <= 0, subnormal results included: 2^n is applied in two halves, each a normal number, or in one step that
// rounds once as well.
template <class T, int N>
INLINE Vec<T, N> exp_of(Vec<T, N> a) {
  using F = Format<T>;
  using VI = Vec<typename F::Int, N>;
  a = a > F::exp_lowest ? a : splat<Vec<T, N>>(F::exp_lowest);
  Vec<T, N> t = a * T(1.4426950408889634) + F::round, n = t - F::round;
  Vec<T, N> p = exp_reduced<N>((a - n * F::ln2_high) - n * F::ln2_low);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) * N == 64 && sizeof(T) == 4) return as<Vec<T, N>>(_mm512_scalef_ps(as<__m512>(p), as<__m512>(n)));
  if constexpr (sizeof(T) * N == 64 && sizeof(T) == 8) return as<Vec<T, N>>(_mm512_scalef_pd(as<__m512d>(p), as<__m512d>(n)));
#endif
  VI k = as<VI>(t) - as<typename F::Int>(F::round), half = k >> 1;
  p *= as<Vec<T, N>>((half + F::bias) << F::mantissa);
  return p * as<Vec<T, N>>((k - half + F::bias) << F::mantissa);
}

}  // namespace
