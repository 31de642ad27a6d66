// The gradient of what an index draw says about its law (indices.h): log p_k of the drawn categories k, and the entropy.
// With g_s arriving at log p_k of sample s and h at the entropy,
//   dx = sum_s g_s (e_ks - p) - h p (log p - v),   v = sum p log p.
#pragma once
#include "pass_tiles.h"

namespace {

template <class T>
class DrawnBackward {
 public:
  explicit DrawnBackward(const Pass& pass)
      : pass_(pass), x_(logits_of<T>(pass)), dx_(pass.out, pass, pass.storage), samples_(pass.grad_rows / pass.rows - 1) {}

  void skip(int64_t r) { dx_.zero(r); }
  bool tile(const Group& group) {
    if (pass_.cols > kTiled) {
      for (int i = 0; i < group.count; ++i) row(group.at[i]);
      return true;
    }
    take(tile_, x_, group);
    Of of;
    const T* grad = (const T*)pass_.grad;
    for (int i = 0; i < kTile; ++i) {
      const int64_t r = group.row(i);
      of.top[i] = (T)pass_.saved[3 * r], of.log_sum[i] = (T)pass_.saved[3 * r + 1], of.v[i] = (T)pass_.saved[3 * r + 2];
      of.sum[i] = (T)sum_of(r), of.h[i] = grad[samples_ * pass_.rows + r];
    }
    turn_tile(tile_, pass_.cols, of);
    for (int i = 0; i < group.count; ++i)
      for (int64_t s = 0; s < samples_; ++s) {
        const int64_t r = group.at[i], k = category(s, r);
        if (k >= 0) tile_.at[k * kTile + i] += grad[s * pass_.rows + r];
      }
    give(tile_, dx_, group);
    return true;
  }

  bool row(int64_t r) {
    const double top = pass_.saved[3 * r], log_sum = pass_.saved[3 * r + 1], v = pass_.saved[3 * r + 2];
    const T* grad = (const T*)pass_.grad;
    const double sum = sum_of(r);
    x_.place(r);
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n);
      turn(block_, n, Normalizer<T>{(T)top, (T)log_sum}, (T)v, (T)sum, grad[samples_ * pass_.rows + r]);
      for (int64_t s = 0; s < samples_; ++s) {
        const int64_t k = category(s, r) - first;
        if (k >= 0 && k < n) block_[k] += grad[s * pass_.rows + r];
      }
      if (top != top) turn_bad(block_, n);
      dx_.write(r, block_, first, n, T(1));
      return true;
    });
  }

 private:
  int64_t category(int64_t sample, int64_t row) const { return pass_.index[sample * pass_.rows + row]; }

  static constexpr int64_t kTiled = 32;  // with more categories a row by itself is as quick, and has the same bits

  // What arrives at the log-probabilities of a row, in all samples that have a draw.
  double sum_of(int64_t row) const {
    double sum = 0;
    for (int64_t s = 0; s < samples_; ++s)
      if (category(s, row) >= 0) sum += ((const T*)pass_.grad)[s * pass_.rows + row];
    return sum;
  }

  // What the rows of a tile are turned by.
  struct Of {
    Lane<T> top, log_sum, v, sum, h;
  };

  NOINLINE void turn_tile(TileOf<T>& x, int64_t cols, const Of& of) {
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      const auto top = of.top.get(lane), rest = of.log_sum.get(lane), v = of.v.get(lane);
      const auto sum = of.sum.get(lane), h = of.h.get(lane);
      for (int64_t c = 0; c < cols; ++c) {
        const auto log_p = (x.get(c, lane) - top) - rest, p = exp_of<T, kLanes<T>>(log_p);
        x.put(c, lane, top == top ? -p * (sum + h * where_mass(p, log_p - v)) : top);  // exp_of makes 0 of NaN
      }
    });
  }

  NOINLINE void turn(T* block, int64_t n, Normalizer<T> less, T v, T sum, T h) {
    constexpr int N = kLanes<T>;
    for (int64_t i = 0; i < n; i += N) {
      const auto log_p = less(load<Vec<T, N>>(block + i)), p = exp_of<T, N>(log_p);
      store(block + i, -p * (sum + h * where_mass(p, log_p - v)));
    }
  }

  NOINLINE void turn_bad(T* block, int64_t n) {  // exp_of makes 0 of NaN
    for (int64_t i = 0; i < n; ++i) block[i] = T(__builtin_nan(""));
  }

  const Pass& pass_;
  Source<T> x_;
  Sink<T> dx_;
  int64_t samples_;
  union {
    Block<T> block_;
    TileOf<T> tile_;
  };
};

}  // namespace
