// sum p (log p + shift), of which the entropy (scale -1, shift 0) and the divergence from the uniform law (shift log K)
// are made: out = scale (v + shift), v = sum p log p; and dx = g p (log p - v).
#pragma once
#include "pass_rows.h"

namespace {

template <class S>
class Entropy {
 public:
  using T = typename S::T;
  explicit Entropy(const Pass& pass) : pass_(pass), x_(pass.in, pass.mask, pass.in_rows, pass.cols) {}

  void skip(int64_t r) { put(r, 0, 0, 0); }

  bool row(int64_t r) {
    x_.place(r);
    T top = kMinusInf<T>;
    double e = 0, ex = 0;  // the sums of exp(x - top) and of exp(x - top) (x - top)
    const bool known = each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.load(block_, first, n);
      const T larger = largest(block_, n);
      if (!(larger < T(__builtin_inf()))) return false;  // +inf or NaN
      if (larger > top) {
        if (e > 0) {
          const double down = (double)top - (double)larger, factor = exp_scalar(down);
          ex = factor * (ex + e * down), e *= factor;
        }
        top = larger;
      }
      if (top > kMinusInf<T>) add(block_, n, top, e, ex);
      return true;
    });
    if (!known || !(e > 0)) return false;
    const double log_e = log_scalar(e), v = ex / e - log_e;
    put(r, pass_.scale * (v + pass_.shift), (double)top + log_e, v);
    return true;
  }

 private:
  NOINLINE void add(const T* block, int64_t n, T top, double& e, double& ex) {
    constexpr int N = kLanes<T>;
    using V = Vec<T, N>;
    using Sum = Vec<double, N>;
    Sum sum{}, weighted{};
    for (int64_t i = 0; i < n; i += N) {
      const V a = load<V>(block + i) - top, p = exp_of<T, N>(a);
      sum += __builtin_convertvector(p, Sum);
      weighted += __builtin_convertvector(p * where_mass(p, a), Sum);
    }
    e += total<double, N>(sum), ex += total<double, N>(weighted);
  }

  void put(int64_t r, double out, double lse, double v) {
    ((T*)pass_.out)[r] = (T)out + T(0);  // never -0
    pass_.saved[2 * r] = lse, pass_.saved[2 * r + 1] = v;
  }

  const Pass& pass_;
  Operand2D<S> x_;
  alignas(64) T block_[kBlock + kSlack];
};

template <class S>
class EntropyBackward {
 public:
  using T = typename S::T;
  using Raw = typename S::Raw;
  explicit EntropyBackward(const Pass& pass) : pass_(pass), x_(pass.in, pass.mask, pass.in_rows, pass.cols) {}

  void skip(int64_t r) { fill<S>((Raw*)pass_.out + r * pass_.cols, pass_.cols, T(0)); }

  bool row(int64_t r) {
    x_.place(r);
    Raw* out = (Raw*)pass_.out + r * pass_.cols;
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.load(block_, first, n);
      turn(block_, n, Normalizer<T>(pass_.saved[2 * r]), (T)pass_.saved[2 * r + 1], arriving<T>(pass_, r));
      write_block<S>(out + first, block_, n);
      return true;
    });
  }

 private:
  // Logits become their gradient.
  NOINLINE void turn(T* block, int64_t n, Normalizer<T> less, T v, T g) {
    constexpr int N = kLanes<T>;
    using V = Vec<T, N>;
    for (int64_t i = 0; i < n; i += N) {
      const V log_p = less(load<V>(block + i)), p = exp_of<T, N>(log_p);
      store(block + i, g * (p * where_mass(p, log_p - v)));
    }
  }

  const Pass& pass_;
  Operand2D<S> x_;
  alignas(64) T block_[kBlock + kSlack];
};

}  // namespace
