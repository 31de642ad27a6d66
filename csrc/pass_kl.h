// The divergence of two laws from their logits x and y: v = sum p (log p - log q), with dx = g p (log p - log q - v) and
// dy = g (q - p). A category that p has and q forbids is left to plain torch, as rows without a finite logsumexp are.
#pragma once
#include "pass_tiles.h"

namespace {

template <class T>
class Kl {
 public:
  explicit Kl(const Pass& pass)
      : pass_(pass), kept_(softdraw::Saved(pass).kept<T>(0)), x_(logits_of<T>(pass)), y_(second_of<T>(pass)), results_(pass) {}

  void skip(int64_t r) { put(r, 0, 0, 0, 0, 0); }

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
    put(r, s.ratio / s.p - log_p + log_q, p.top, log_p, q.top, log_q);
    return true;
  }

  bool tile(const Group& group) {
    take(tile_, x_, group), take(other_tile_, y_, group);
    Lane<T> top_p, top_q;
    if (!tops_of(tile_, pass_.cols, top_p) || !tops_of(other_tile_, pass_.cols, top_q)) return false;
    Lane<double> p, q, ratio, log_p, log_q;
    if (!add_tile(tile_, other_tile_, pass_.cols, top_p, top_q, p, q, ratio)) return false;
    logs_of(p, log_p), logs_of(q, log_q);
    for (int i = 0; i < group.count; ++i)
      put(group.at[i], ratio[i] / p[i] - log_p[i] + log_q[i], top_p[i], log_p[i], top_q[i], log_q[i]);
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
    using Int = typename Format<T>::Int;
    const T a0 = top_x.finite() ? top_x.top : T(0), b0 = top_y.finite() ? top_y.top : T(0);
    DoubleSum<T> p, q, ratio;
    Vec<Int, N> impossible{};
    for (int64_t i = 0; i < n; i += N) {
      const V a = load<V>(x + i) - a0, b = load<V>(y + i) - b0, e = exp_of<T, N>(a);
      p.add(e), q.add(exp_of<T, N>(b)), ratio.add(e * where_mass(e, a - b));
      impossible |= (a > kMinusInf<T>) & ~(b > kMinusInf<T>);
    }
    s.p += p.total(), s.q += q.total(), s.ratio += ratio.total();
    return fold<Int, N>(impossible, [](auto a, auto b) { return a | b; }) == 0;
  }

  NOINLINE bool add_tile(const TileOf<T>& x, const TileOf<T>& y, int64_t cols, const Lane<T>& top_x, const Lane<T>& top_y,
                         Lane<double>& p, Lane<double>& q, Lane<double>& ratio) {
    constexpr int N = kLanes<T>;
    using Int = typename Format<T>::Int;
    Vec<Int, N> impossible{};
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      TileSum<T> sum_p, sum_q, sum_ratio;
      const auto highest_x = top_x.get(lane), highest_y = top_y.get(lane);
      for (int64_t c = 0; c < cols; ++c) {
        const auto a = x.get(c, lane) - highest_x, b = y.get(c, lane) - highest_y, e = exp_of<T, N>(a);
        sum_p.add(e), sum_q.add(exp_of<T, N>(b)), sum_ratio.add(e * where_mass(e, a - b));
        impossible |= (a > kMinusInf<T>) & ~(b > kMinusInf<T>);
      }
      sum_p.give(p, lane), sum_q.give(q, lane), sum_ratio.give(ratio, lane);
    });
    return fold<Int, N>(impossible, [](auto a, auto b) { return a | b; }) == 0;
  }

  void put(int64_t r, double v, T top_p, double log_p, T top_q, double log_q) {
    results_.put(r, v);
    const int64_t n = pass_.rows;
    kept_[r] = top_p, kept_[n + r] = (T)log_p, kept_[2 * n + r] = top_q, kept_[3 * n + r] = (T)log_q, kept_[4 * n + r] = (T)v;
  }

  const Pass& pass_;
  T* kept_;
  Source<T> x_, y_;
  Results<T> results_;
  union {
    Block<T> block_;
    TileOf<T> tile_;
  };
  union {
    Block<T> other_;
    TileOf<T> other_tile_;
  };
};

template <class T>
class KlBackward {
 public:
  explicit KlBackward(const Pass& pass)
      : pass_(pass),
        top_p_(softdraw::Saved(pass).kept<T>(0)),
        log_p_(top_p_ + pass.rows),
        top_q_(log_p_ + pass.rows),
        log_q_(top_q_ + pass.rows),
        v_(log_q_ + pass.rows),
        x_(logits_of<T>(pass)),
        y_(second_of<T>(pass)),
        dx_(pass.out, pass, pass.storage),
        dy_(pass.other_out, pass, pass.other_storage),
        arriving_(pass) {}

  void skip(int64_t r) { dx_.zero(r), dy_.zero(r); }

  bool row(int64_t r) {
    x_.place(r), y_.place(r);
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n), y_.read(other_, first, n);
      turn(block_, other_, n, {top_p_[r], log_p_[r]}, {top_q_[r], log_q_[r]}, v_[r], (bool)dy_);
      const T g = arriving_(r);
      dx_.write(r, block_, first, n, g);
      if (dy_) dy_.write(r, other_, first, n, g);
      return true;
    });
  }

  bool tile(const Group& group) {
    take(tile_, x_, group), take(other_tile_, y_, group);
    turn_tile(tile_, other_tile_, pass_.cols, TileNormalizer<T>(top_p_, log_p_, group),
              TileNormalizer<T>(top_q_, log_q_, group), numbers_of(v_, group), arriving_at(arriving_, group), (bool)dy_);
    give(tile_, dx_, group);
    if (dy_) give(other_tile_, dy_, group);
    return true;
  }

 private:
  NOINLINE void turn_tile(TileOf<T>& x, TileOf<T>& y, int64_t cols, const TileNormalizer<T>& less_p,
                          const TileNormalizer<T>& less_q, const Lane<T>& v, const Lane<T>& g, bool both) {
    constexpr int N = kLanes<T>;
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      const auto mean = v.get(lane), grad = g.get(lane);
      for (int64_t c = 0; c < cols; ++c) {
        const auto log_p = less_p(x.get(c, lane), lane), log_q = less_q(y.get(c, lane), lane), p = exp_of<T, N>(log_p);
        x.put(c, lane, p * where_mass(p, (log_p - log_q) - mean) * grad);
        if (both) y.put(c, lane, (exp_of<T, N>(log_q) - p) * grad);
      }
    });
  }

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
  const T *top_p_, *log_p_, *top_q_, *log_q_, *v_;
  Source<T> x_, y_;
  Sink<T> dx_, dy_;
  Arriving<T> arriving_;
  union {
    Block<T> block_;
    TileOf<T> tile_;
  };
  union {
    Block<T> other_;
    TileOf<T> other_tile_;
  };
};

}  // namespace
