// sum p (log p + shift), of which the entropy (scale -1, shift 0) and the divergence from the uniform law (shift log K)
// are made: out = scale (v + shift), v = sum p log p; and dx = g p (log p - v).
#pragma once
#include "pass_rows.h"

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
  double lse() const { return (double)running_.top + log_scalar(e_); }
  double mean_log() const { return ex_ / e_ - log_scalar(e_); }  // sum p log p

 private:
  __attribute__((noinline)) void add(const T* block, int64_t n) {
    constexpr int N = kLanes<T>;
    using Sum = Vec<double, N>;
    const T top = running_.top;
    Sum sum{}, weighted{};
    for (int64_t first = 0; first < n; first += kFew) {
      Vec<T, N> few{}, few_weighted{};  // few enough to lose less than one of their own roundings
      for (int64_t i = first; i < n && i < first + kFew; i += N) {
        const auto a = load<Vec<T, N>>(block + i) - top, p = exp_of<T, N>(a);
        few += p, few_weighted += p * where_mass(p, a);
      }
      sum += __builtin_convertvector(few, Sum);
      weighted += __builtin_convertvector(few_weighted, Sum);
    }
    e_ += total<double, N>(sum), ex_ += total<double, N>(weighted);
  }

  static constexpr int64_t kFew = 4 * kLanes<T>;
  RunningTop<T> running_;
  double e_ = 0, ex_ = 0;
};

template <class T>
class Entropy {
 public:
  explicit Entropy(const Pass& pass) : pass_(pass), x_(logits_of<T>(pass)) {}

  void skip(int64_t r) { put(r, 0, 0, 0); }

  bool row(int64_t r) {
    x_.place(r);
    LawSums<T> law;
    const bool known = each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n);
      return law.take(block_, n);
    });
    if (!known || !law.finite()) return false;
    const double v = law.mean_log();
    put(r, pass_.scale * (v + pass_.shift), law.lse(), v);
    return true;
  }

 private:
  void put(int64_t r, double out, double lse, double v) {
    ((T*)pass_.out)[r] = (T)out + T(0);  // never -0
    pass_.saved[2 * r] = lse, pass_.saved[2 * r + 1] = v;
  }

  const Pass& pass_;
  Source<T> x_;
  Block<T> block_;
};

template <class T>
class EntropyBackward {
 public:
  explicit EntropyBackward(const Pass& pass) : pass_(pass), x_(logits_of<T>(pass)), dx_(pass.out, pass, pass.storage) {}

  void skip(int64_t r) { dx_.zero(r); }

  bool row(int64_t r) {
    x_.place(r);
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n);
      turn(block_, n, Normalizer<T>(pass_.saved[2 * r]), (T)pass_.saved[2 * r + 1]);
      dx_.write(r, block_, first, n, arriving<T>(pass_, r));
      return true;
    });
  }

 private:
  NOINLINE void turn(T* block, int64_t n, Normalizer<T> less, T v) {
    constexpr int N = kLanes<T>;
    for (int64_t i = 0; i < n; i += N) {
      const auto log_p = less(load<Vec<T, N>>(block + i)), p = exp_of<T, N>(log_p);
      store(block + i, p * where_mass(p, log_p - v));
    }
  }

  const Pass& pass_;
  Source<T> x_;
  Sink<T> dx_;
  Block<T> block_;
};

}  // namespace
