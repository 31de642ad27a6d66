// Backward passes of the closed-form rules: given the category x that was drawn, its one-hot D and the gradient g that
// arrives, with p = softmax(logits), q = softmax(logits / tau) and <.,.> the sum over the categories,
//
//   straight-through   q (g - <q, g>) / tau
//   gapped             the same with q = softmax((logits, moved until x wins by the gap) / tau)
//   ZGR                p (g - g_x) / 2                                             + D (g_x - <p, g>) / 2
//   ReinMax            q (g - (<q, g> + g_x) / 2) - p (g - <p, g>) / 2  + D (g_x - <q, g>) / 2
//
// These are the formulas of softdraw/rules/ with what cancels left out; a sample of no category has D = 0 and g_x = 0.
#pragma once
#include "backward.h"
#include "rao.h"

namespace {

// dx = q (g + b) a / t + p (g + d) c, and at the category that was drawn besides e.
template <class V>
struct Form {
  V a, b, t, c, d, e;
};

template <class V, class T>
INLINE Form<V> form_of(Rule rule, V tau, V q_dot, V p_dot, V drawn, T) {
  const V zero = tau - tau, one = zero + T(1), half = zero + T(0.5);
  switch (rule) {
    case softdraw::kZgr: return {half, -drawn, one, zero, zero, (drawn - q_dot) * T(0.5)};
    case softdraw::kReinMax: return {one, (q_dot + drawn) * T(-0.5), one, -half, -p_dot, (drawn - q_dot) * T(0.5)};
    default: return {one, -q_dot, tau, zero, zero, zero};
  }
}

template <class S>
class RuleTile : public Tile<S> {
 public:
  using T = typename S::T;
  using Base = Tile<S>;
  using V = typename Base::V;
  using I = typename Base::I;
  using Int = typename Base::Int;
  static constexpr int N = Base::N;
  using Base::Base;

  void take_rule(Rule rule, T gap) {
    this->raw_.take(this->cols_, this->count_, [&](int r) { return this->rows_[r].grad; });
    for (int r = 0; r < kTile; ++r) {
      const Row<S>& row = this->rows_[r < this->count_ ? r : 0];
      drawn_[r] = (Int)*row.index;
    }
    for (int r = 0; r < kTile; r += N) take_lanes(r, rule, gap);
  }

 private:
  using Sum = Vec<double, N>;

  INLINE V grad_at(int64_t i) const { return read<S, N>(this->raw_.at + i); }

  // The exponent of category c: the score less the largest, or what the gapped rule makes of it.
  INLINE V exponent_at(int64_t i, I is_drawn, V top, Rule rule, T gap, V base) const {
    V d = load<V>(this->s_ + i) - top;
    if (rule != softdraw::kGapped) return d;
    d = d < -gap ? d : splat<V>(-gap);
    return is_drawn != 0 ? V{} : d - base;
  }

  void take_lanes(int r, Rule rule, T gap) {
    const I drawn = load<I>(drawn_ + r), best = load<I>(this->best_ + r), bad = load<I>(this->bad_ + r);
    const V infinite = splat<V>(T(-__builtin_inf())), nan = splat<V>(T(__builtin_nan("")));
    const V top = best >= 0 ? load<V>(this->top_ + r) : V{};
    const V tau = rule == softdraw::kZgr ? splat<V>(T(1)) : load<V>(this->tau_ + r);
    const V base = drawn >= 0 ? V{} : splat<V>(-gap);
    const bool two = rule == softdraw::kReinMax;
    Sum total{}, dot{}, p_total{}, p_dot{};
    V at_drawn{};
    I now{}, counts{};
    for (int64_t i = r; i < this->n_; i += kTile, now += Int(1)) {
      const I is_drawn = now == drawn;
      const V s = load<V>(this->s_ + i);
      const V g = bad != 0 ? nan : s == infinite ? V{} : grad_at(i);
      const I here = is_drawn & (s > infinite);
      at_drawn = here != 0 ? g : at_drawn;
      counts |= here;
      if (two) {
        V p = exp_of<T, N>(s - top);
        store(p_ + i, p);
        p_total += __builtin_convertvector(p, Sum);
        p_dot += __builtin_convertvector(p * where_mass(p, g), Sum);
      }
      V q = exp_of<T, N>(exponent_at(i, is_drawn, top, rule, gap, base) / tau);
      store(this->s_ + i, q);
      total += __builtin_convertvector(q, Sum);
      dot += __builtin_convertvector(q * where_mass(q, g), Sum);
      store(g_ + i, g);
    }
    const V scale = __builtin_convertvector(1.0 / total, V), p_scale = __builtin_convertvector(1.0 / p_total, V);
    const auto form = form_of(rule, tau, __builtin_convertvector(dot / total, V),
                              __builtin_convertvector(p_dot / p_total, V), at_drawn, T(0));
    const I drawable = (best >= 0) & ~bad;
    now = I{};
    for (int64_t i = r; i < this->n_; i += kTile, now += Int(1)) {
      const V q = load<V>(this->s_ + i) * scale, g = load<V>(g_ + i);
      V dx = q * ((where_mass(q, g) + form.b) * form.a) / form.t;
      if (two) {
        const V p = load<V>(p_ + i) * p_scale;
        dx += p * (where_mass(p, g) + form.d) * form.c;
      }
      dx = now == drawn ? (counts != 0 ? dx + form.e : V{}) : dx;
      store(this->s_ + i, drawable != 0 ? dx : g * T(0));  // NaN in a bad row, 0 where nothing is allowed
    }
  }

  alignas(64) Int drawn_[kTile];
  alignas(64) T p_[kNarrow * kTile], g_[kNarrow * kTile];
};

template <class S>
class RuleBackward {
 public:
  static constexpr bool kDense = true;
  static bool tiles(int64_t cols) { return narrow(cols); }
  using T = typename S::T;
  explicit RuleBackward(const Call& call)
      : rule_(rule_of(call)), gap_((T)call.gap), cols_(call.cols), parts_(call), tops_(parts_), sums_(parts_), q_(call.cols),
        p_(rule_ == softdraw::kReinMax ? call.cols : 0),
        single_(rule_ == softdraw::kGumbelRao && call.count == 1 && !call.given), single_backward_(call), rao_(call) {}

  void run(const Row<S>* rows, int64_t count) {
    if (single_) {
      single_backward_.run(rows, count);
    } else if (rule_ >= softdraw::kGumbelRao) {
      for (int64_t r = 0; r < count; ++r) rao_.run(rows[r]);
    } else if (narrow(cols_)) {
      for (int64_t r = 0; r < count; r += kTile) {
        RuleTile<S> tile(rows + r, count - r < kTile ? (int)(count - r) : kTile, cols_);
        tile.load_scores();
        tile.take_tops();
        tile.take_rule(rule_, gap_);
        tile.give();
      }
    } else {
      for (int64_t r = 0; r < count; ++r) alone(rows[r]);
    }
  }

 private:
  static constexpr int N = kLanes<T>;
  using V = Vec<T, N>;

  void alone(const Row<S>& row) {
    T* s = q_.of(row);
    parts_.each([&](int64_t part, int64_t first, int64_t n) {
      Top<T> top;
      load_logits(s + first, row, first, n);
      take_top(top, s + first, first, n);
      tops_[part] = top;
    });
    Top<T> top = top_of(tops_);
    if (no_draw<S>(row, cols_, top)) return;
    const int64_t x = *row.index;
    const bool counts = x >= 0 && s[x] > T(-__builtin_inf());
    const T g = counts ? grad_at(row, x) : T(0), tau = rule_ == softdraw::kZgr ? T(1) : row.tau;
    T* p = rule_ == softdraw::kReinMax ? p_.own() : nullptr;
    if (rule_ == softdraw::kGapped) {
      parts_.each([&](int64_t, int64_t first, int64_t n) { shift(s, top.score, x, first, first + n); });
      if (counts) s[x] = 0;
      top.score = 0;
    }
    Mass<T> p_mass, q_mass;
    if (p) p_mass = softened(p, s, row.grad, top.score, T(1), 0);
    // A forbidden sample, which value= may be, has the exponent 0 in the gapped rule, and takes no gradient.
    q_mass = softened(s, s, row.grad, top.score, tau, rule_ == softdraw::kGapped && x >= 0 && !counts);
    const Form<T> form = form_of(rule_, tau, q_mass.dot, p_mass.dot, g, T(0));
    parts_.each([=, &row](int64_t, int64_t first, int64_t n) {
      write_form(row, s, p, q_mass, p_mass, form, counts ? x : -1, first, first + n);
    });
    if (x >= 0 && !counts) fill<S>(row.out + x, 1, 0);
  }

  static T grad_at(const Row<S>& row, int64_t i) {
    return S::template widen<4>(Vec<typename S::Raw, 4>{row.grad[i]})[0];
  }

  // Exponents of the gapped rule: at most -gap but for the drawn category, which has 0.
  void shift(T* s, T top, int64_t x, int64_t first, int64_t end) const {
    const T base = x >= 0 ? T(0) : -gap_;
    for (int64_t i = first; i < end; i += N) {
      V d = load<V>(s + i) - top;
      store(s + i, (d < -gap_ ? d : splat<V>(-gap_)) - base);
    }
  }

  // e := exp((s - top) / tau); 1 / sum e, and <e, g> / sum e, where the sum has `more` besides.
  Mass<T> softened(T* e, const T* s, const typename S::Raw* grad, T top, T tau, double more) {
    using Sum = Vec<double, N>;
    parts_.each([=](int64_t part, int64_t first, int64_t n) {  // copies: what is written could be anything's memory
      Sum total{}, dot{};
      for (int64_t i = first; i < first + n; i += N) {
        const V y = exp_of<T, N>((load<V>(s + i) - top) / tau);
        const V g = read_some(grad + i, first + n - i);
        store(e + i, y);
        total += __builtin_convertvector(y, Sum);
        dot += __builtin_convertvector(y * where_mass(y, g), Sum);
      }
      sums_[part] = sums_of<N>(total, dot);
    });
    Sums sums = all_of(sums_);
    sums.total += more;
    return mass_of<T>(sums);
  }

  void write_form(const Row<S>& row, const T* q, const T* p, Mass<T> q_mass, Mass<T> p_mass, Form<T> f, int64_t x,
                  int64_t first, int64_t end) const {
    auto dx = [&](int64_t i, V g) {
      const V y = load<V>(q + i) * q_mass.scale;
      V d = y * ((where_mass(y, g) + f.b) * f.a) / f.t;
      if (p) {
        const V z = load<V>(p + i) * p_mass.scale;
        d += z * (where_mass(z, g) + f.d) * f.c;
      }
      return d;
    };
    // The output may stand where q is: its element at x is made before q there is written over.
    const bool here = first <= x && x < end;
    const V near = here ? dx(x / N * N, read_some(row.grad + x / N * N, end - x / N * N)) : V{};
    int64_t i = first;
    for (; i + N <= end; i += N) write<S, N>(row.out + i, dx(i, read<S, N>(row.grad + i)));
    if (i < end) write_part<S, N>(row.out + i, end - i, dx(i, read_part<S, N>(row.grad + i, end - i)));
    if (here) row.out[x] = S::template narrow<4>(Vec<T, 4>{near[x % N] + f.e})[0];
  }

  static INLINE V read_some(const typename S::Raw* p, int64_t left) {
    return left < N ? read_part<S, N>(p, left) : read<S, N>(p);
  }

  Rule rule_;
  T gap_;
  int64_t cols_;
  Parts parts_;
  OfParts<Top<T>> tops_;
  OfParts<Sums> sums_;
  Scores<S> q_, p_;
  bool single_;  // the noise of the draw alone: straight-through Gumbel-softmax
  HardBackward<S> single_backward_;
  Rao<S> rao_;
};

}  // namespace
