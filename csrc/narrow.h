// Draws of few categories: rows lie side by side in the lanes of a vector and categories follow one another, so that
// maxima and sums take no step across lanes, and no lane is left over by a row's end.
#pragma once
#include "rows.h"

namespace {

constexpr int64_t kNarrow = 64;  // categories that a tile has room for
constexpr int kTile = kPair;     // rows: one call of Philox makes four categories of each

// Whether tiles are quicker than rows in vectors of their own, whose last one has idle lanes.
inline bool narrow(int64_t cols) { return cols < kNarrow && cols % 16 != 0; }

// Rows become columns.
template <class Four>
INLINE void transpose(Four (&x)[4]) {
  const Four a = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5), b = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
  const Four c = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7), d = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
  x[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5), x[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  x[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5), x[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

// Elements of up to kTile rows, turned: row r of category c is at c * kTile + r. They move in squares of 4 x 4, for a
// vector that is read where single elements were just written waits for them.
template <class Element>
struct Turned {
  using Four = Vec<Element, 4>;
  alignas(64) Element at[kNarrow * kTile];

  // Lanes without a row repeat the first one.
  template <class RowOf>
  INLINE void take(int64_t cols, int count, RowOf row_of) {
    for (int r = 0; r < kTile; r += 4) {
      const Element* rows[4];
      for (int i = 0; i < 4; ++i) rows[i] = row_of(r + i < count ? r + i : 0);
      for (int64_t c = 0; c < cols; c += 4) {
        Four x[4];
        const int64_t bytes = (cols - c) * sizeof(Element);
        for (int i = 0; i < 4; ++i) x[i] = cols - c < 4 ? load_part<Four>(rows[i] + c, bytes) : load<Four>(rows[i] + c);
        transpose(x);
        for (int i = 0; i < 4; ++i) store(at + (c + i) * kTile + r, x[i]);
      }
    }
  }

  template <class RowOf>
  INLINE void give(int64_t cols, int count, RowOf row_of) const {
    for (int r = 0; r < count; r += 4)
      for (int64_t c = 0; c < cols; c += 4) {
        Four x[4];
        for (int i = 0; i < 4; ++i) x[i] = load<Four>(at + (c + i) * kTile + r);
        transpose(x);
        const int64_t bytes = (cols - c) * sizeof(Element);
        for (int i = 0; i < 4 && r + i < count; ++i)
          cols - c < 4 ? store_part(row_of(r + i) + c, bytes, x[i]) : store(row_of(r + i) + c, x[i]);
      }
  }
};

template <class S>
class Tile {
 public:
  using T = typename S::T;
  using Raw = typename S::Raw;
  using Int = typename Format<T>::Int;
  static constexpr int N = kLanes<T>;  // divides kTile
  using V = Vec<T, N>;
  using I = Vec<Int, N>;

  Tile(const Row<S>* rows, int count, int64_t cols) : rows_(rows), count_(count), cols_(cols), n_(cols * kTile) {
    for (int r = 0; r < kTile; ++r) tau_[r] = rows[r < count ? r : 0].tau;
  }

  void score() {
    load_scores();
    if (rows_[0].noisy) add(s_);
  }

  // Scores become x + tau G. Where tau is 1 they are those of score(), bit for bit.
  void add_tempered() {
    if (!rows_[0].noisy) return;
    alignas(64) T g[kNarrow * kTile];
    for (int64_t i = 0; i < n_; i += N) store(g + i, V{});
    add(g);
    for (int r = 0; r < kTile; r += N) {
      const V tau = load<V>(tau_ + r);
      for (int64_t i = r; i < n_; i += kTile) store(s_ + i, load<V>(s_ + i) + tau * load<V>(g + i));
    }
  }

  // The sums over categories of exp(x - top) and of exp(x - top) (x - top), and the largest x, before noise is added.
  void sum_law(T* top, double* e, double* ex) const {
    using Sum = Vec<double, N>;
    for (int r = 0; r < kTile; r += N) {
      V highest = splat<V>(T(-__builtin_inf()));
      for (int64_t i = r; i < n_; i += kTile) highest = load<V>(s_ + i) > highest ? load<V>(s_ + i) : highest;
      Sum sum{}, weighted{};
      for (int64_t i = r; i < n_; i += kTile) {
        const V a = load<V>(s_ + i) - highest, p = exp_of<T, N>(a);
        sum += __builtin_convertvector(p, Sum);
        weighted += __builtin_convertvector(p * where_mass(p, a), Sum);
      }
      store(top + r, highest), store(e + r, sum), store(ex + r, weighted);
    }
  }

  // The scores of a row, and -inf up to the next multiple of 16.
  void give_row(T* out, int r) const {
    for (int64_t c = 0; c < cols_; ++c) out[c] = s_[c * kTile + r];
    for (int64_t c = cols_; c % 16; ++c) out[c] = T(-__builtin_inf());
  }
  void forbid(int64_t column, int r) { s_[column * kTile + r] = T(-__builtin_inf()); }
  Top<T> top(int r) const { return {top_[r], (int64_t)best_[r], bad_[r] != 0}; }

  // Logits without noise, -inf where forbidden.
  void load_scores() {
    const auto forbidden = splat<V>(T(-__builtin_inf()));
    raw_.take(cols_, count_, [&](int r) { return rows_[r].in; });
    for (int64_t i = 0; i < n_; i += N) store(s_ + i, read<S, N>(raw_.at + i));
    if (rows_[0].mask) {
      Turned<uint8_t> mask;
      mask.take(cols_, count_, [&](int r) { return rows_[r].mask; });
      for (int64_t i = 0; i < n_; i += N) {
        auto allowed = __builtin_convertvector(load<Vec<uint8_t, N>>(mask.at + i), I);
        store(s_ + i, allowed != 0 ? load<V>(s_ + i) : forbidden);
      }
    }
  }

  // The largest score of each row, the first category that has it (-1: none), and whether NaN or +inf was seen.
  void take_tops() {
    for (int r = 0; r < kTile; r += N) {
      V top = splat<V>(T(-__builtin_inf()));
      I best = splat<I>(Int(-1)), now{}, bad{};
      for (int64_t c = 0; c < cols_; ++c, now += Int(1)) {
        V s = load<V>(s_ + c * kTile + r);
        I better = s > top;
        top = better ? s : top;
        best = better ? now : best;
        bad |= ~(s < T(__builtin_inf()));
      }
      store(top_ + r, top), store(best_ + r, best), store(bad_ + r, bad);
    }
  }

  // Scores become the soft draw: 0 in a row where nothing is allowed, NaN in a bad one. (exp_of makes 0 of NaN.)
  void soften() {
    using Sum = Vec<double, N>;
    for (int r = 0; r < kTile; r += N) {
      const I drawn = (load<I>(best_ + r) >= 0) & ~load<I>(bad_ + r);
      const V top = load<V>(top_ + r), tau = load<V>(tau_ + r);
      Sum sum{};
      for (int64_t i = r; i < n_; i += kTile) {
        V e = exp_of<T, N>((load<V>(s_ + i) - top) / tau);
        store(s_ + i, e);
        sum += __builtin_convertvector(e, Sum);
      }
      V scale = drawn ? __builtin_convertvector(1.0 / sum, V) : V{};
      scale = load<I>(bad_ + r) ? splat<V>(T(__builtin_nan(""))) : scale;
      for (int64_t i = r; i < n_; i += kTile) store(s_ + i, load<V>(s_ + i) * scale);
    }
  }

  void harden() {
    for (int r = 0; r < kTile; r += N) {
      const V one = load<I>(bad_ + r) ? splat<V>(T(__builtin_nan(""))) : splat<V>(T(1));
      const V zero = one - one;
      I now{};
      for (int64_t i = r; i < n_; i += kTile, now += Int(1)) store(s_ + i, now == load<I>(best_ + r) ? one : zero);
    }
  }

  // y (g - <g, y>) / tau, where a category of no mass passes nothing on.
  void take_jacobian_product() {
    using Sum = Vec<double, N>;
    raw_.take(cols_, count_, [&](int r) { return rows_[r].grad; });
    for (int r = 0; r < kTile; r += N) {
      Sum sum{};
      for (int64_t i = r; i < n_; i += kTile) {
        V y = load<V>(s_ + i);
        sum += __builtin_convertvector(y * where_mass(y, read<S, N>(raw_.at + i)), Sum);
      }
      const V mean = __builtin_convertvector(sum, V), tau = load<V>(tau_ + r);
      for (int64_t i = r; i < n_; i += kTile) {
        V y = load<V>(s_ + i);
        store(s_ + i, y * (where_mass(y, read<S, N>(raw_.at + i)) - mean) / tau);
      }
    }
  }

  void give() {
    for (int64_t i = 0; i < n_; i += N) write<S, N>(raw_.at + i, load<V>(s_ + i));
    raw_.give(cols_, count_, [&](int r) { return rows_[r].out; });
  }

  void give_index() const {
    if (!rows_[0].index) return;
    for (int r = 0; r < count_; ++r) *rows_[r].index = bad_[r] ? -1 : best_[r];
  }

  void give_score() const {
    for (int r = 0; r < count_; ++r) *(T*)rows_[r].out = bad_[r] ? T(__builtin_nan("")) : top_[r];
  }

 protected:
  // to += noise. Four categories a counter: words before the first one and after the last are made and not used. ``to``
  // holds the logits or zeros, to which a word of the tail adds its own score.
  void add(T* to) {
    constexpr int half = kCounters;
    alignas(64) uint32_t made[(kNarrow + 4) * kTile];
    const uint32_t col = rows_[0].stream.col;
    Counter counter[2]{};
    Lanes low[2]{}, high[2]{};
    for (int r = 0; r < kTile; ++r) {
      const Stream& s = rows_[r < count_ ? r : 0].stream;
      low[r / half][r % half] = s.key.low;
      high[r / half][r % half] = s.key.high;
      counter[r / half].c1[r % half] = s.row_low;
      counter[r / half].c2[r % half] = s.row_high;
      counter[r / half].c3[r % half] = s.stream;
    }
    const Schedule first(low[0], high[0]), second(low[1], high[1]);
    for (int64_t c = 0; c < cols_ + lead(col); c += 4) {
      counter[0].c0 = counter[1].c0 = splat<Lanes>((uint64_t)(col >> 2) + c / 4);
      philox_by_word(made + c * kTile, counter, first, second);
    }
    const uint32_t* words = made + lead(col) * kTile;
    if (!add_noise(to, words, n_)) return;
    for (int64_t i = 0; i < n_; ++i) {
      const Row<S>& row = rows_[i % kTile < count_ ? i % kTile : 0];
      const int64_t c = i / kTile;
      if (words[i] < kTail) to[i] = tail_score(to == s_ ? logit_at(row, c) : T(0), words[i], c, row.stream);
    }
  }

  const Row<S>* rows_;
  int count_;
  int64_t cols_, n_;
  alignas(64) T s_[kNarrow * kTile];
  alignas(64) T top_[kTile], tau_[kTile];
  alignas(64) Int best_[kTile], bad_[kTile];
  Turned<Raw> raw_;
};

}  // namespace
