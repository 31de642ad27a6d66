// Negative log-likelihoods: of a category, log sum exp(x) - x_k, with dx = g (p - e_k); and of a distribution t (a one-hot
// too), sum t (log sum exp(x) - x), with dx = g (p sum t - t) and dt = -g log p. What t does not have, it does not multiply:
// 0 times inf is 0. A target that the mask forbids is left to plain torch: nothing that is masked has a gradient.
#pragma once
#include "pass_rows.h"

namespace {

// The sum of exp(x - top) over a block.
template <class T>
NOINLINE double sum_of_exponentials(const T* block, int64_t n, T top) {
  constexpr int N = kLanes<T>;
  using Sum = Vec<double, N>;
  Sum sum{};
  for (int64_t i = 0; i < n; i += N) sum += __builtin_convertvector(exp_of<T, N>(load<Vec<T, N>>(block + i) - top), Sum);
  return total<double, N>(sum);
}

template <class T>
class IndexNll {
 public:
  explicit IndexNll(const Pass& pass) : pass_(pass), x_(logits_of<T>(pass)) {}

  void skip(int64_t r) { put(r, 0, 0); }

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
    put(r, ((double)running.top - at_target) + log_e, (double)running.top + log_e);
    return true;
  }

 private:
  void put(int64_t r, double loss, double lse) { ((T*)pass_.out)[r] = (T)loss + T(0), pass_.saved[r] = lse; }

  const Pass& pass_;
  Source<T> x_;
  Block<T> block_;
};

template <class T>
class IndexNllBackward {
 public:
  explicit IndexNllBackward(const Pass& pass)
      : pass_(pass), x_(logits_of<T>(pass)), dx_(pass.out, pass, pass.storage) {}

  void skip(int64_t r) { dx_.zero(r); }

  bool row(int64_t r) {
    const int64_t target = pass_.index[r];
    x_.place(r);
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n);
      to_probabilities<T>(block_, n, Normalizer<T>(pass_.saved[r]));
      if (target >= first && target < first + n) block_[target - first] -= 1;
      dx_.write(r, block_, first, n, arriving<T>(pass_, r));
      return true;
    });
  }

 private:
  const Pass& pass_;
  Source<T> x_;
  Sink<T> dx_;
  Block<T> block_;
};

template <class T>
class Nll {
 public:
  explicit Nll(const Pass& pass) : pass_(pass), x_(logits_of<T>(pass)), t_(second_of<T>(pass)) {}

  void skip(int64_t r) { put(r, 0, 0, 0); }

  bool row(int64_t r) {
    x_.place(r), t_.place(r);
    RunningTop<T> running;
    double e = 0;
    mass_ = below_ = 0, illegal_ = false;
    const bool known = each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n), t_.read(target_, first, n);
      for (int64_t i = n; i < round_up(n, 16); ++i) target_[i] = 0;
      if (!running.take(largest<T>(block_, n), [&](double up, double f) { e *= f, below_ += mass_ * up; })) return false;
      if (running.finite()) e += sum_of_exponentials<T>(block_, n, running.top);
      add(n, running.finite() ? running.top : T(0));  // before the first: only 0 and inf are added
      return true;
    });
    if (!known || !running.finite() || !legal() || (pass_.mask && below_ == __builtin_inf())) return false;
    const double log_e = log_scalar(e);
    put(r, below_ + mass_ * log_e, (double)running.top + log_e, mass_);
    return true;
  }

 private:
  // below_ += sum t (top - x), mass_ += sum t, and whether an element is none that the check allows.
  NOINLINE void add_to(double& below, double& mass, bool& illegal, const T* x, const T* t, int64_t n, T top, bool bits) {
    constexpr int N = kLanes<T>;
    using V = Vec<T, N>;
    using Sum = Vec<double, N>;
    using Int = typename Format<T>::Int;
    Sum sum{}, weighted{};
    Vec<Int, N> bad{};
    for (int64_t i = 0; i < n; i += N) {
      const V target = load<V>(t + i);
      const V down = where_mass(target, top - load<V>(x + i));
      sum += __builtin_convertvector(target, Sum);
      weighted += __builtin_convertvector(target * down, Sum);
      bad |= bits ? (target != T(0)) & (target != T(1)) : ~((target >= T(0)) & (target <= T(1)));
    }
    mass += total<double, N>(sum), below += total<double, N>(weighted);
    illegal |= fold<Int, N>(bad, [](auto a, auto b) { return a | b; }) != 0;
  }
  void add(int64_t n, T top) {
    add_to(below_, mass_, illegal_, block_, target_, n, top, pass_.check == softdraw::kOneHot);
  }

  bool legal() const {
    if (pass_.check == softdraw::kAnything) return true;
    const double off = mass_ < 1 ? 1 - mass_ : mass_ - 1;
    return !illegal_ && (pass_.check == softdraw::kOneHot ? off == 0 : off <= pass_.shift);
  }

  void put(int64_t r, double loss, double lse, double mass) {
    ((T*)pass_.out)[r] = (T)(pass_.scale * loss) + T(0);
    pass_.saved[2 * r] = lse, pass_.saved[2 * r + 1] = mass;
  }

  const Pass& pass_;
  Source<T> x_, t_;
  double mass_, below_;
  bool illegal_;
  Block<T> block_, target_;
};

template <class T>
class NllBackward {
 public:
  explicit NllBackward(const Pass& pass)
      : pass_(pass),
        x_(logits_of<T>(pass)),
        t_(second_of<T>(pass)),
        dx_(pass.out, pass, pass.storage),
        dt_(pass.other_out, pass, pass.other_storage) {}

  void skip(int64_t r) { dx_.zero(r), dt_.zero(r); }

  bool row(int64_t r) {
    x_.place(r), t_.place(r);
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n), t_.read(target_, first, n);
      turn(block_, target_, n, Normalizer<T>(pass_.saved[2 * r]), (T)pass_.saved[2 * r + 1]);
      const T g = arriving<T>(pass_, r);
      dx_.write(r, block_, first, n, g);
      if (dt_) dt_.write(r, target_, first, n, -g);
      return true;
    });
  }

 private:
  // Logits become p mass - t; the target becomes log p, 0 where neither has anything.
  NOINLINE void turn(T* x, T* t, int64_t n, Normalizer<T> less, T mass) {
    constexpr int N = kLanes<T>;
    using V = Vec<T, N>;
    for (int64_t i = 0; i < n; i += N) {
      const V log_p = less(load<V>(x + i)), target = load<V>(t + i);
      store(x + i, exp_of<T, N>(log_p) * mass - target);
      store(t + i, log_p > kMinusInf<T> ? log_p : where_mass(target, log_p));
    }
  }

  const Pass& pass_;
  Source<T> x_, t_;
  Sink<T> dx_, dt_;
  Block<T> block_, target_;
};

}  // namespace
