// The negative log-likelihood of a category, log sum exp(x) - x_k, with dx = g (p - e_k). A category that the mask forbids is
// left to plain torch: nothing that is masked has a gradient.
#pragma once
#include "pass_tiles.h"

namespace {

// The sum of exp(x - top) over a block.
template <class T>
NOINLINE double sum_of_exponentials(const T* block, int64_t n, T top) {
  constexpr int N = kLanes<T>;
  DoubleSum<T> sum;
  for (int64_t first = 0; first < n; first += kFew<T>) {
    Vec<T, N> few{};
    for (int64_t i = first; i < n && i < first + kFew<T>; i += N) few += exp_of<T, N>(load<Vec<T, N>>(block + i) - top);
    sum.add(few);
  }
  return sum.total();
}

template <class T>
NOINLINE void sums_of_exponentials(const TileOf<T>& x, int64_t cols, const Lane<T>& top, Lane<double>& e) {
  each_lanes<T>([&](int lane) LAMBDA_INLINE {
    const auto highest = top.get(lane);
    TileSum<T> sum;
    for (int64_t c = 0; c < cols; ++c) sum.add(exp_of<T, kLanes<T>>(x.get(c, lane) - highest));
    sum.give(e, lane);
  });
}

template <class T>
class IndexNll {
 public:
  explicit IndexNll(const Pass& pass)
      : pass_(pass),
        top_(softdraw::Saved(pass).kept<T>(0)),
        log_(top_ + pass.rows),
        x_(logits_of<T>(pass)),
        results_(pass) {}

  void skip(int64_t r) { put(r, 0, 0, 0); }

  bool row(int64_t r) {
    const int64_t target = pass_.index[r];
    if (target < 0 || target >= pass_.cols) return false;
    x_.place(r);
    RunningTop<T> running;
    double e = 0, at_target = 0;
    const bool known = each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n);
      if (!running.take(largest<T>(block_, n), [&](double, double f) { e *= f; })) return false;
      if (running.finite()) e += sum_of_exponentials<T>(block_, n, running.top);
      if (target >= first && target < first + n) at_target = block_[target - first];
      return true;
    });
    if (!known || !running.finite() || (pass_.mask && !(at_target > kMinusInf<double>))) return false;
    const double log_e = log_scalar(e);
    put(r, ((double)running.top - at_target) + log_e, running.top, log_e);
    return true;
  }

  bool tile(const Group& group) {
    for (int i = 0; i < group.count; ++i)
      if (const int64_t target = pass_.index[group.at[i]]; target < 0 || target >= pass_.cols) return false;
    take(tile_, x_, group);
    Lane<T> top;
    if (!tops_of(tile_, pass_.cols, top)) return false;
    Lane<double> e, log_e;
    sums_of_exponentials(tile_, pass_.cols, top, e);
    logs_of(e, log_e);
    for (int i = 0; i < group.count; ++i) {
      const int64_t r = group.at[i];
      const double at_target = tile_.at[pass_.index[r] * kTile + i];
      if (pass_.mask && !(at_target > kMinusInf<double>)) return false;
      put(r, ((double)top[i] - at_target) + log_e[i], top[i], log_e[i]);
    }
    return true;
  }

 private:
  void put(int64_t r, double loss, T top, double log_e) { results_.put(r, loss), top_[r] = top, log_[r] = (T)log_e; }

  const Pass& pass_;
  T *top_, *log_;
  Source<T> x_;
  Results<T> results_;
  union {
    Block<T> block_;
    TileOf<T> tile_;
  };
};

template <class T>
class IndexNllBackward {
 public:
  explicit IndexNllBackward(const Pass& pass)
      : pass_(pass),
        top_(softdraw::Saved(pass).kept<T>(0)),
        log_(top_ + pass.rows),
        x_(logits_of<T>(pass)),
        dx_(pass.out, pass, pass.storage),
        arriving_(pass) {}

  void skip(int64_t r) { dx_.zero(r); }

  bool row(int64_t r) {
    const int64_t target = pass_.index[r];
    x_.place(r);
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n);
      to_probabilities<T>(block_, n, Normalizer<T>{top_[r], log_[r]});
      if (target >= first && target < first + n) block_[target - first] -= 1;
      dx_.write(r, block_, first, n, arriving_(r));
      return true;
    });
  }

  bool tile(const Group& group) {
    take(tile_, x_, group);
    Lane<Int> target;
    for (int lane = 0; lane < kTile; ++lane) target[lane] = (Int)pass_.index[group.row(lane)];
    turn_tile(tile_, pass_.cols, TileNormalizer<T>(top_, log_, group), target, arriving_at(arriving_, group));
    give(tile_, dx_, group);
    return true;
  }

 private:
  using Int = typename Format<T>::Int;

  NOINLINE void turn_tile(TileOf<T>& x, int64_t cols, const TileNormalizer<T>& less, const Lane<Int>& target,
                          const Lane<T>& g) {
    constexpr int N = kLanes<T>;
    using V = Vec<T, N>;
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      const auto chosen = load<Vec<Int, N>>(target.at + lane);
      const V grad = g.get(lane);
      for (int64_t c = 0; c < cols; ++c) {
        const V p = exp_of<T, N>(less(x.get(c, lane), lane));
        x.put(c, lane, (chosen == (Int)c ? p - T(1) : p) * grad);
      }
    });
  }

  const Pass& pass_;
  const T *top_, *log_;
  Source<T> x_;
  Sink<T> dx_;
  Arriving<T> arriving_;
  union {
    Block<T> block_;
    TileOf<T> tile_;
  };
};

}  // namespace
