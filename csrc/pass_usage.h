// How a batch uses its categories: the sum over its rows of w softmax(x), of which the mean law is made, and where
// asked for the sum of w e_k for the largest logit k of each row. With slopes s_k of the loss for the mean law,
// dx = g w p (s - sum p s). What a pass keeps of a row is its largest logit and 1 / sum exp(x - largest).
#pragma once
#include "pass_tiles.h"

namespace {

using softdraw::UsageSaved;

template <class T>
INLINE T weight_of(const Pass& pass, int64_t row) {
  return pass.weight ? ((const T*)pass.weight)[row] : T(1);
}

template <class T>
class Usage {
 public:
  // Adds to sums: cols of the laws, cols of the choices, and the weights.
  Usage(const Pass& pass, double* sums)
      : pass_(pass),
        top_(UsageSaved(pass).kept<T>(0)),
        inverse_(top_ + pass.rows),
        x_(logits_of<T>(pass)),
        law_(sums), chosen_(sums + pass.cols), weights_(sums + 2 * pass.cols),
        choices_(pass.check == softdraw::kBalance && !pass.other) {
    if (pass.cols <= kNarrow) __builtin_memset(lanes_, 0, pass.cols * kTile * sizeof(double));
  }

  void skip(int64_t) {}

  bool row(int64_t r) {
    x_.place(r);
    Top<T> top;
    double e = 0;
    each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n);
      const T before = top.score;
      if (choices_) take_top<T>(top, block_, first, n);
      else take_score(top, block_, n);
      if (top.score > before && before > kMinusInf<T>) e *= exp_scalar((double)before - (double)top.score);
      if (usable(top)) e += exponentials_of(block_, n, top.score);
      return !top.bad;
    });
    if (!usable(top)) return false;
    count(r, top.score, 1 / e, top.column);
    const T scale = (T)(weight_of<T>(pass_, r) / e);
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      if (pass_.cols > kBlock) x_.read(block_, first, n), exponentials_of(block_, n, top.score);
      add(law_ + first, block_, n, scale);
      return true;
    });
  }

  bool tile(const Group& group) {
    take(tile_, x_, group);
    Lane<T> top, scale;
    if (!tops_of(tile_, pass_.cols, top)) return false;
    Lane<Int> column;
    if (choices_) columns_of(tile_, pass_.cols, top, column);
    Lane<double> e;
    exponentials_of_tile(tile_, pass_.cols, top, e);
    for (int i = 0; i < kTile; ++i) {
      scale[i] = i < group.count ? (T)(weight_of<T>(pass_, group.at[i]) / e[i]) : T(0);
      if (i < group.count) count(group.at[i], top[i], 1 / e[i], choices_ ? column[i] : 0);
    }
    add_tile(lanes_, tile_, pass_.cols, scale);
    return true;
  }

  // The sums of the lanes of tiles, which go to the sums of the pass last.
  void finish() {
    if (pass_.cols > kNarrow) return;
    for (int64_t c = 0; c < pass_.cols; ++c)
      for (int lane = 0; lane < kTile; ++lane) law_[c] += lanes_[c * kTile + lane];
  }

 private:
  using Int = typename Format<T>::Int;
  static constexpr int N = kLanes<T>;
  static constexpr int kPart = kLanes<double>, kParts = N / kPart;
  using V = Vec<T, N>;
  using Part = Vec<double, kPart>;

  static bool usable(const Top<T>& top) { return !top.bad && top.column >= 0; }

  void count(int64_t r, T top, double inverse, int64_t column) {
    const double w = weight_of<T>(pass_, r);
    *weights_ += w;
    if (choices_) chosen_[column] += w;
    top_[r] = top, inverse_[r] = (T)inverse;
  }

  // As take_top, where nobody asks for the column: any will do.
  static void take_score(Top<T>& top, const T* x, int64_t n) {
    const T here = largest<T>(x, n);
    top.bad |= !(here < T(__builtin_inf()));
    if (here > top.score) top.score = here, top.column = 0;
  }

  NOINLINE double exponentials_of(T* x, int64_t n, T top) {
    DoubleSum<T> sum;
    for (int64_t first = 0; first < n; first += kFew<T>) {
      V few{};
      for (int64_t i = first; i < n && i < first + kFew<T>; i += N) {
        const V e = exp_of<T, N>(load<V>(x + i) - top);
        store(x + i, e), few += e;
      }
      sum.add(few);
    }
    return sum.total();
  }

  static INLINE void add_to(double* at, V v) {
    for (int part = 0; part < kParts; ++part) {
      double* sum = at + part * kPart;
      store(sum, load<Part>(sum) + in_double<T, N>(v, part));
    }
  }

  NOINLINE void add(double* law, const T* e, int64_t n, T scale) {
    int64_t i = 0;
    for (; i + N <= n; i += N) add_to(law + i, load<V>(e + i) * scale);
    for (; i < n; ++i) law[i] += (double)(e[i] * scale);
  }

  // The first category that has the largest logit.
  NOINLINE void columns_of(const TileOf<T>& x, int64_t cols, const Lane<T>& top, Lane<Int>& column) {
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      const V highest = top.get(lane);
      Vec<Int, N> first{};
      for (int64_t c = cols - 1; c >= 0; --c) first = x.get(c, lane) == highest ? splat<Vec<Int, N>>((Int)c) : first;
      store(column.at + lane, first);
    });
  }

  NOINLINE void exponentials_of_tile(TileOf<T>& x, int64_t cols, const Lane<T>& top, Lane<double>& e) {
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      const V highest = top.get(lane);
      TileSum<T> sum;
      for (int64_t c = 0; c < cols; ++c) {
        const V p = exp_of<T, N>(x.get(c, lane) - highest);
        x.put(c, lane, p), sum.add(p);
      }
      sum.give(e, lane);
    });
  }

  NOINLINE void add_tile(double* lanes, const TileOf<T>& e, int64_t cols, const Lane<T>& scale) {
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      const V s = scale.get(lane);
      for (int64_t c = 0; c < cols; ++c) add_to(lanes + c * kTile + lane, e.get(c, lane) * s);
    });
  }

  const Pass& pass_;
  T *top_, *inverse_;
  Source<T> x_;
  double *law_, *chosen_, *weights_;
  const bool choices_;
  union {
    Block<T> block_;
    TileOf<T> tile_;
  };
  alignas(64) double lanes_[kNarrow * kTile];
};

template <class T>
class UsageBackward {
 public:
  // Of rows of one group.
  UsageBackward(const Pass& pass, int64_t group)
      : pass_(pass),
        top_(UsageSaved(pass).kept<T>(0)),
        inverse_(top_ + pass.rows),
        slope_(UsageSaved(pass).slope(group)),
        grad_((T)(((const T*)pass.grad)[pass.reduction || pass.grad_rows == 1 ? 0 : group] / *UsageSaved(pass).divisor)),
        x_(logits_of<T>(pass)),
        dx_(pass.out, pass, pass.storage) {
    if (pass.cols <= kBlock) narrow(0, pass.cols);
  }

  void skip(int64_t r) { dx_.zero(r); }

  bool row(int64_t r) {
    x_.place(r);
    const T top = top_[r], inverse = inverse_[r];
    double mean = 0;
    each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n);
      mean += laws_of(block_, slopes(first, n), n, top, inverse);
      return true;
    });
    const T g = grad_ * weight_of<T>(pass_, r);
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      const T* slope = slopes(first, n);
      if (pass_.cols > kBlock) x_.read(block_, first, n), laws_of(block_, slope, n, top, inverse);
      turn(block_, slope, n, (T)mean);
      dx_.write(r, block_, first, n, g);
      return true;
    });
  }

  bool tile(const Group& group) {
    take(tile_, x_, group);
    Lane<T> g;
    for (int i = 0; i < kTile; ++i) g[i] = grad_ * weight_of<T>(pass_, group.row(i));
    turn_tile(tile_, near_, pass_.cols, numbers_of(top_, group), numbers_of(inverse_, group), g);
    give(tile_, dx_, group);
    return true;
  }

 private:
  static constexpr int N = kLanes<T>;
  using V = Vec<T, N>;

  // The slopes of a block in the dtype of the computation. Those of a row of one block are made once.
  const T* slopes(int64_t first, int64_t n) {
    if (pass_.cols > kBlock) narrow(first, n);
    return near_;
  }
  void narrow(int64_t first, int64_t n) {
    for (int64_t i = 0; i < round_up(n, 16); ++i) near_[i] = (T)slope_[first + i];
  }

  // Logits become probabilities; returns their product with the slopes.
  NOINLINE double laws_of(T* x, const T* slope, int64_t n, T top, T inverse) {
    DoubleSum<T> sum;
    for (int64_t first = 0; first < n; first += kFew<T>) {
      V few{};
      for (int64_t i = first; i < n && i < first + kFew<T>; i += N) {
        const V p = exp_of<T, N>(load<V>(x + i) - top) * inverse;
        store(x + i, p), few += p * load<V>(slope + i);
      }
      sum.add(few);
    }
    return sum.total();
  }

  NOINLINE void turn(T* p, const T* slope, int64_t n, T mean) {
    for (int64_t i = 0; i < n; i += N) store(p + i, load<V>(p + i) * (load<V>(slope + i) - mean));
  }

  NOINLINE void turn_tile(TileOf<T>& x, const T* slope, int64_t cols, const Lane<T>& top, const Lane<T>& inverse,
                          const Lane<T>& g) {
    Lane<double> means;
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      const V highest = top.get(lane), scale = inverse.get(lane), grad = g.get(lane);
      TileSum<T> sum;
      for (int64_t c = 0; c < cols; ++c) {
        const V p = exp_of<T, N>(x.get(c, lane) - highest) * scale;
        x.put(c, lane, p), sum.add(p * slope[c]);
      }
      sum.give(means, lane);
      const V mean = __builtin_convertvector(means.template get<Vec<double, N>>(lane), V);
      for (int64_t c = 0; c < cols; ++c) x.put(c, lane, x.get(c, lane) * (slope[c] - mean) * grad);
    });
  }

  const Pass& pass_;
  const T *top_, *inverse_;
  const double* slope_;
  const T grad_;
  Source<T> x_;
  Sink<T> dx_;
  alignas(64) T near_[kBlock + kSlack];
  union {
    Block<T> block_;
    TileOf<T> tile_;
  };
};

}  // namespace
