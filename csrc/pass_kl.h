// The divergence of two laws from their logits x and y: v = sum p (log p - log q), with dx = g p (log p - log q - v) and
// dy = g (q - p). A category that p has and q forbids is left to plain torch, as rows without a finite logsumexp are.
#pragma once
#include "pass_rows.h"

namespace {

template <class T>
class Kl {
 public:
  explicit Kl(const Pass& pass) : pass_(pass), x_(logits_of<T>(pass)), y_(second_of<T>(pass)) {}

  void skip(int64_t r) { put(r, 0, 0, 0); }

  bool row(int64_t r) {
    x_.place(r), y_.place(r);
    RunningTop<T> p, q;
    Sums s;
    const bool known = each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n), y_.read(other_, first, n);
      if (!p.take(largest<T>(block_, n), [&](double up, double f) { s.ratio = f * (s.ratio - s.p * up), s.p *= f; }) ||
          !q.take(largest<T>(other_, n), [&](double up, double f) { s.ratio += s.p * up, s.q *= f; }))
        return false;
      return add(block_, other_, n, p, q, s);
    });
    if (!known || !p.finite() || !q.finite()) return false;
    const double log_p = log_scalar(s.p), log_q = log_scalar(s.q);
    put(r, s.ratio / s.p - log_p + log_q, (double)p.top + log_p, (double)q.top + log_q);
    return true;
  }

 private:
  // Of exp(x - its top), exp(y - its top), and exp(x - its top) ((x - its top) - (y - its top)).
  struct Sums {
    double p = 0, q = 0, ratio = 0;
  };

  NOINLINE bool add(const T* x, const T* y, int64_t n, RunningTop<T> top_x, RunningTop<T> top_y, Sums& s) {
    constexpr int N = kLanes<T>;
    using V = Vec<T, N>;
    using Sum = Vec<double, N>;
    using Int = typename Format<T>::Int;
    const T a0 = top_x.finite() ? top_x.top : T(0), b0 = top_y.finite() ? top_y.top : T(0);
    Sum p{}, q{}, ratio{};
    Vec<Int, N> impossible{};
    for (int64_t i = 0; i < n; i += N) {
      const V a = load<V>(x + i) - a0, b = load<V>(y + i) - b0, e = exp_of<T, N>(a);
      p += __builtin_convertvector(e, Sum);
      q += __builtin_convertvector(exp_of<T, N>(b), Sum);
      ratio += __builtin_convertvector(e * where_mass(e, a - b), Sum);
      impossible |= (a > kMinusInf<T>) & ~(b > kMinusInf<T>);
    }
    s.p += total<double, N>(p), s.q += total<double, N>(q), s.ratio += total<double, N>(ratio);
    return fold<Int, N>(impossible, [](auto a, auto b) { return a | b; }) == 0;
  }

  void put(int64_t r, double v, double lse_p, double lse_q) {
    ((T*)pass_.out)[r] = (T)v + T(0);
    pass_.saved[3 * r] = lse_p, pass_.saved[3 * r + 1] = lse_q, pass_.saved[3 * r + 2] = v;
  }

  const Pass& pass_;
  Source<T> x_, y_;
  Block<T> block_, other_;
};

template <class T>
class KlBackward {
 public:
  explicit KlBackward(const Pass& pass)
      : pass_(pass),
        x_(logits_of<T>(pass)),
        y_(second_of<T>(pass)),
        dx_(pass.out, pass, pass.storage),
        dy_(pass.other_out, pass, pass.other_storage) {}

  void skip(int64_t r) { dx_.zero(r), dy_.zero(r); }

  bool row(int64_t r) {
    x_.place(r), y_.place(r);
    const double* saved = pass_.saved + 3 * r;
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n), y_.read(other_, first, n);
      turn(block_, other_, n, Normalizer<T>(saved[0]), Normalizer<T>(saved[1]), (T)saved[2], (bool)dy_);
      const T g = arriving<T>(pass_, r);
      dx_.write(r, block_, first, n, g);
      if (dy_) dy_.write(r, other_, first, n, g);
      return true;
    });
  }

 private:
  NOINLINE void turn(T* x, T* y, int64_t n, Normalizer<T> less_p, Normalizer<T> less_q, T v, bool both) {
    constexpr int N = kLanes<T>;
    using V = Vec<T, N>;
    for (int64_t i = 0; i < n; i += N) {
      const V log_p = less_p(load<V>(x + i)), log_q = less_q(load<V>(y + i)), p = exp_of<T, N>(log_p);
      store(x + i, p * where_mass(p, (log_p - log_q) - v));
      if (both) store(y + i, exp_of<T, N>(log_q) - p);
    }
  }

  const Pass& pass_;
  Source<T> x_, y_;
  Sink<T> dx_, dy_;
  Block<T> block_, other_;
};

}  // namespace
