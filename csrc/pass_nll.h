// The negative log-likelihood of a distribution t (a one-hot too), sum t (log sum exp(x) - x), with dx = g (p sum t - t)
// and dt = -g log p. What t does not have, it does not multiply: 0 times inf is 0. A target that the mask forbids is left
// to plain torch: nothing that is masked has a gradient.
#pragma once
#include "pass_index.h"

namespace {

template <class T>
class Nll {
 public:
  explicit Nll(const Pass& pass)
      : pass_(pass),
        top_(softdraw::Saved(pass).kept<T>(0)),
        log_(top_ + pass.rows),
        kept_mass_(log_ + pass.rows),
        x_(logits_of<T>(pass)),
        t_(second_of<T>(pass)),
        results_(pass) {}

  void skip(int64_t r) { put(r, 0, 0, 0, 0); }

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
    if (!known || !running.finite() || illegal_ || !legal(mass_) || (pass_.mask && below_ == __builtin_inf())) return false;
    const double log_e = log_scalar(e);
    put(r, below_ + mass_ * log_e, running.top, log_e, mass_);
    return true;
  }

  bool tile(const Group& group) {
    take(tile_, x_, group), take(target_tile_, t_, group);
    Lane<T> top;
    if (!tops_of(tile_, pass_.cols, top)) return false;
    Lane<double> e, log_e, mass, below;
    sums_of_exponentials(tile_, pass_.cols, top, e);
    if (!add_tile(tile_, target_tile_, pass_.cols, top, pass_.check, mass, below)) return false;
    logs_of(e, log_e);
    for (int i = 0; i < group.count; ++i) {
      if (!legal(mass[i]) || (pass_.mask && below[i] == __builtin_inf())) return false;
      put(group.at[i], below[i] + mass[i] * log_e[i], top[i], log_e[i], mass[i]);
    }
    return true;
  }

 private:
  // below_ += sum t (top - x), mass_ += sum t, and whether an element is none that the check allows.
  NOINLINE void add_to(double& below, double& mass, bool& illegal, const T* x, const T* t, int64_t n, T top, bool bits) {
    constexpr int N = kLanes<T>;
    using V = Vec<T, N>;
    using Int = typename Format<T>::Int;
    DoubleSum<T> sum, weighted;
    Vec<Int, N> bad{};
    for (int64_t i = 0; i < n; i += N) {
      const V target = load<V>(t + i);
      const V down = where_mass(target, top - load<V>(x + i));
      sum.add(target), weighted.add(target * down);
      bad |= none_of<V>(target, bits);
    }
    mass += sum.total(), below += weighted.total();
    illegal |= fold<Int, N>(bad, [](auto a, auto b) { return a | b; }) != 0;
  }
  void add(int64_t n, T top) {
    bool illegal = false;
    add_to(below_, mass_, illegal, block_, target_, n, top, pass_.check == softdraw::kOneHot);
    illegal_ |= illegal && pass_.check != softdraw::kAnything;
  }

  // Lanes that are no element of a one-hot, or of a distribution.
  template <class V>
  static INLINE auto none_of(V target, bool bits) {
    return bits ? (target != T(0)) & (target != T(1)) : ~((target >= T(0)) & (target <= T(1)));
  }

  // The same sums for the rows of a tile. False: an element is none that the check allows.
  NOINLINE bool add_tile(const TileOf<T>& x, const TileOf<T>& t, int64_t cols, const Lane<T>& top, int64_t check,
                         Lane<double>& mass, Lane<double>& below) {
    constexpr int N = kLanes<T>;
    using V = Vec<T, N>;
    using Int = typename Format<T>::Int;
    Vec<Int, N> bad{};
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      TileSum<T> sum, weighted;
      const V highest = top.get(lane);
      for (int64_t c = 0; c < cols; ++c) {
        const V target = t.get(c, lane);
        sum.add(target), weighted.add(target * where_mass(target, highest - x.get(c, lane)));
        bad |= none_of<V>(target, check == softdraw::kOneHot);
      }
      sum.give(mass, lane), weighted.give(below, lane);
    });
    return check == softdraw::kAnything || fold<Int, N>(bad, [](auto a, auto b) { return a | b; }) == 0;
  }

  bool legal(double mass) const {
    const double off = mass < 1 ? 1 - mass : mass - 1;
    return pass_.check == softdraw::kAnything || (pass_.check == softdraw::kOneHot ? off == 0 : off <= pass_.shift);
  }

  void put(int64_t r, double loss, T top, double log_e, double mass) {
    results_.put(r, pass_.scale * loss);
    top_[r] = top, log_[r] = (T)log_e, kept_mass_[r] = (T)mass;
  }

  const Pass& pass_;
  T *top_, *log_, *kept_mass_;
  Source<T> x_, t_;
  Results<T> results_;
  double mass_, below_;
  bool illegal_;
  union {
    Block<T> block_;
    TileOf<T> tile_;
  };
  union {
    Block<T> target_;
    TileOf<T> target_tile_;
  };
};

template <class T>
class NllBackward {
 public:
  explicit NllBackward(const Pass& pass)
      : pass_(pass),
        top_(softdraw::Saved(pass).kept<T>(0)),
        log_(top_ + pass.rows),
        mass_(log_ + pass.rows),
        x_(logits_of<T>(pass)),
        t_(second_of<T>(pass)),
        dx_(pass.out, pass, pass.storage),
        dt_(pass.other_out, pass, pass.other_storage),
        arriving_(pass) {}

  void skip(int64_t r) { dx_.zero(r), dt_.zero(r); }

  bool row(int64_t r) {
    x_.place(r), t_.place(r);
    return each_block(pass_.cols, [&](int64_t first, int64_t n) {
      x_.read(block_, first, n), t_.read(target_, first, n);
      turn(block_, target_, n, Normalizer<T>{top_[r], log_[r]}, mass_[r]);
      const T g = arriving_(r);
      dx_.write(r, block_, first, n, g);
      if (dt_) dt_.write(r, target_, first, n, -g);
      return true;
    });
  }

  bool tile(const Group& group) {
    take(tile_, x_, group), take(target_tile_, t_, group);
    turn_tile(tile_, target_tile_, pass_.cols, TileNormalizer<T>(top_, log_, group), numbers_of(mass_, group),
              arriving_at(arriving_, group));
    give(tile_, dx_, group);
    if (dt_) give(target_tile_, dt_, group);
    return true;
  }

 private:
  NOINLINE void turn_tile(TileOf<T>& x, TileOf<T>& t, int64_t cols, const TileNormalizer<T>& less, const Lane<T>& mass,
                          const Lane<T>& g) {
    constexpr int N = kLanes<T>;
    each_lanes<T>([&](int lane) LAMBDA_INLINE {
      const auto all = mass.get(lane), grad = g.get(lane);
      for (int64_t c = 0; c < cols; ++c) {
        const auto log_p = less(x.get(c, lane), lane), target = t.get(c, lane);
        x.put(c, lane, (exp_of<T, N>(log_p) * all - target) * grad);
        t.put(c, lane, (log_p > kMinusInf<T> ? log_p : where_mass(target, log_p)) * -grad);
      }
    });
  }

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
  const T *top_, *log_, *mass_;
  Source<T> x_, t_;
  Sink<T> dx_, dt_;
  Arriving<T> arriving_;
  union {
    Block<T> block_;
    TileOf<T> tile_;
  };
  union {
    Block<T> target_;
    TileOf<T> target_tile_;
  };
};

}  // namespace
