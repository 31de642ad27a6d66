// sum p (log p + shift), of which the entropy (scale -1, shift 0) and the divergence from the uniform law (shift log K)
// are made: out = scale (v + shift), v = sum p log p; and dx = g p (log p - v).
#pragma once
#include "pass_tiles.h"

namespace {

// The sums of exp(x - top) and of exp(x - top) (x - top) over the blocks of a row.
template <class T>
class LawSums {
 public:
  // False: the block has NaN or +inf.
  bool take(const T* block, int64_t n) {
    const auto grow = [&](double up, double f) { ex_ = f * (ex_ - e_ * up), e_ *= f; };
    if (!running_.take(largest<T>(block, n), grow)) return false;
    if (running_.finite()) add(block, n);
    return true;
  }
  bool finite() const { return running_.finite(); }
  T top() const { return running_.top; }
  double log_sum() const { return log_scalar(e_); }  // log sum exp(x - top)
  double mean_log() const { return ex_ / e_ - log_sum(); }  // sum p log p

 private:
  __attribute__((noinline)) void add(const T* block, int64_t n) {
    constexpr int N = kLanes<T>;
    const T top = running_.top;
    DoubleSum<T> sum, weighted;
    for (int64_t first = 0; first < n; first += kFew<T>) {
      Vec<T, N> few{}, few_weighted{};
      for (int64_t i = first; i < n && i < first + kFew<T>; i += N) {
        const auto a = load<Vec<T, N>>(block + i) - top, p = exp_of<T, N>(a);
        few += p, few_weighted += p * where_mass(p, a);
      }
      sum.add(few), weighted.add(few_weighted);
    }
    e_ += sum.total(), ex_ += weighted.total();
  }

  RunningTop<T> running_;
  double e_ = 0, ex_ = 0;
};

template <class T>
class Entropy {
 public:
  explicit Entropy(const Pass& pass)
      : pass_(pass),
        top_(softdraw::Saved(pass).kept<T>(0)),
        log_(top_ + pass.rows),
        v_(log_ + pass.rows),
        x_(logits_of<T>(pass)),
        results_(pass) {}

  void skip(int64_t r) { put(r, 0, 0, 0, 0); }

  bool row(int64_t r) {
    x_.place(r);
    LawSums<T> law;
    const bool known = each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n);
      return law.take(block_, n);
    });
    if (!known || !law.finite()) return false;
    const double log_e = law.log_sum(), v = law.mean_log();
    put(r, pass_.scale * (v + pass_.shift), law.top(), log_e, v);
    return true;
  }

  bool tile(const Group& group) {
    take(tile_, x_, group);
    Lane<T> top;
    if (!tops_of(tile_, pass_.cols, top)) return false;
    Lane<double> e, ex, log_e;
    add_tile(tile_, pass_.cols, top, e, ex);
    logs_of(e, log_e);
    for (int i = 0; i < group.count; ++i) {
      const double v = ex[i] / e[i] - log_e[i];
      put(group.at[i], pass_.scale * (v + pass_.shift), top[i], log_e[i], v);
    }
    return true;
  }

 private:
  NOINLINE void add_tile(const TileOf<T>& x, int64_t cols, const Lane<T>& top, Lane<double>& e, Lane<double>& ex) {
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      const auto highest = top.get(lane);
      TileSum<T> sum, weighted;
      for (int64_t c = 0; c < cols; ++c) {
        const auto a = x.get(c, lane) - highest, p = exp_of<T, kLanes<T>>(a);
        sum.add(p), weighted.add(p * where_mass(p, a));
      }
      sum.give(e, lane), weighted.give(ex, lane);
    });
  }

  void put(int64_t r, double out, T top, double log_e, double v) {
    results_.put(r, out);
    top_[r] = top, log_[r] = (T)log_e, v_[r] = (T)v;
  }

  const Pass& pass_;
  T *top_, *log_, *v_;
  Source<T> x_;
  Results<T> results_;
  union {
    Block<T> block_;
    TileOf<T> tile_;
  };
};

template <class T>
class EntropyBackward {
 public:
  explicit EntropyBackward(const Pass& pass)
      : pass_(pass),
        top_(softdraw::Saved(pass).kept<T>(0)),
        log_(top_ + pass.rows),
        v_(log_ + pass.rows),
        x_(logits_of<T>(pass)),
        dx_(pass.out, pass, pass.storage),
        arriving_(pass) {}

  void skip(int64_t r) { dx_.zero(r); }

  bool row(int64_t r) {
    x_.place(r);
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n);
      turn(block_, n, Normalizer<T>{top_[r], log_[r]}, v_[r]);
      dx_.write(r, block_, first, n, arriving_(r));
      return true;
    });
  }

  bool tile(const Group& group) {
    take(tile_, x_, group);
    turn_tile(tile_, pass_.cols, TileNormalizer<T>(top_, log_, group), numbers_of(v_, group), arriving_at(arriving_, group));
    give(tile_, dx_, group);
    return true;
  }

 private:
  NOINLINE void turn_tile(TileOf<T>& x, int64_t cols, const TileNormalizer<T>& less, const Lane<T>& v, const Lane<T>& g) {
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      const auto mean = v.get(lane), grad = g.get(lane);
      for (int64_t c = 0; c < cols; ++c) {
        const auto log_p = less(x.get(c, lane), lane), p = exp_of<T, kLanes<T>>(log_p);
        x.put(c, lane, p * where_mass(p, log_p - mean) * grad);
      }
    });
  }

  NOINLINE void turn(T* block, int64_t n, Normalizer<T> less, T v) {
    constexpr int N = kLanes<T>;
    for (int64_t i = 0; i < n; i += N) {
      const auto log_p = less(load<Vec<T, N>>(block + i)), p = exp_of<T, N>(log_p);
      store(block + i, p * where_mass(p, log_p - v));
    }
  }

  const Pass& pass_;
  const T *top_, *log_, *v_;
  Source<T> x_;
  Sink<T> dx_;
  Arriving<T> arriving_;
  union {
    Block<T> block_;
    TileOf<T> tile_;
  };
};

}  // namespace
