// Indices that a law gives at a temperature: the category of the largest x + T G, with what the law says about it; and the
// k largest, in order, which are k categories drawn without replacement. T = 0 is the argmax. T = 1 are the scores of
// forward.h, bit for bit, because 1 G is G.
#pragma once
#include "best.h"
#include "forward.h"
#include "pass_entropy.h"

namespace {

// Logits of a row, and the scores of those spans of it that may hold one above a bar: most spans cannot, and their noise
// takes no logarithm. Their words say so: E >= u, hence G = -log E <= -log u, and the least word has the largest G.
template <class S>
class Tempered {
 public:
  using T = typename S::T;
  explicit Tempered(const Row<S>& row) : row_(row), temperature_(row.noisy ? row.tau : T(0)) {}

  // Reads a block of logits and calls use(scores, first, n) for its spans that may have a score above bar(), in their
  // order. False: a logit is NaN or +inf.
  template <class Bar, class Use>
  INLINE bool read(T* x, int64_t first, int64_t n, Bar bar, Use use) const {
    alignas(64) uint32_t made[kBlock + kSlack];
    alignas(64) T scores[kSpan];
    const uint32_t col = row_.stream.col + (uint32_t)first;
    const uint32_t* words = made + lead(col);
    load_logits(x, row_, first, n);
    if (temperature_ > 0) words_of(made, round_up(n, 16) + lead(col), col, row_.stream);
    bool good = true;
    for (int64_t at = 0; at < n; at += kSpan) {
      const int64_t m = n - at < kSpan ? n - at : kSpan;
      T most = largest_finite(x + at, m, good);
      if (temperature_ > 0) most += temperature_ * largest_noise(words + at, m);
      if (!(most > bar())) continue;
      score(scores, x + at, words + at, first + at, m);
      use(scores, first + at, m);
    }
    return good;
  }

 private:
  static constexpr int N = kLanes<T>;
  using V = Vec<T, N>;
  using Words = Vec<uint32_t, N>;

  static INLINE T largest_finite(const T* x, int64_t n, bool& good) {
    using Int = typename Format<T>::Int;
    V best = splat<V>(kMinusInf<T>);
    Vec<Int, N> bad{};
    for (int64_t i = 0; i < n; i += N) {
      const V v = load<V>(x + i);
      best = v > best ? v : best;
      bad |= ~(v < T(__builtin_inf()));
    }
    good &= fold<Int, N>(bad, [](auto a, auto b) { return a | b; }) == 0;
    return fold<T, N>(best, [](auto a, auto b) { return a > b ? a : b; });
  }

  // A bound on the noise of some words. For a word x = 2^k (1 + f), log2 x >= k + f, which the bits of a float spell.
  static INLINE T largest_noise(const uint32_t* words, int64_t n) {
    auto least = splat<Words>(~0u);
    for (int64_t i = 0; i < n; i += N) {
      const auto w = load<Words>(words + i);
      least = w < least ? w : least;
    }
    const uint32_t word = fold<uint32_t, N>(least, [](auto a, auto b) { return a < b ? a : b; });
    if (word < kTail) return T(46);
    const float x = (float)word;
    int32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return T((159 - bits * 0x1p-23) * 0.6931471805599453 + 1e-3);  // 127 + 32; and more than any rounding
  }

  void score(T* scores, const T* x, const uint32_t* words, int64_t first, int64_t n) const {
    const T t = temperature_;
    for (int64_t i = 0; i < n; i += N) store(scores + i, t > 0 ? V{} : load<V>(x + i));
    if (!(t > 0)) return;
    if (add_noise(scores, words, round_up(n, N)))
      for (int64_t i = 0; i < n; ++i)
        if (words[i] < kTail) scores[i] = tail_score(T(0), words[i], first + i, row_.stream);
    for (int64_t i = 0; i < n; i += N) store(scores + i, load<V>(x + i) + t * load<V>(scores + i));
  }

  const Row<S>& row_;
  T temperature_;
};

// The index of every draw; and in out, in double, the logit there, and after those for every row max x, log sum exp of
// x - max x and sum p log p of the law without temperature. Max and logarithm are apart because a large max would round the
// logarithm away. A row that has no draw has NaN or, where nothing is allowed, -inf and zeros.
template <class S>
class TemperedIndex {
 public:
  using T = typename S::T;
  static constexpr bool kDense = false;
  explicit TemperedIndex(const Call& call) : call_(call) {}

  static bool tiles(int64_t cols) { return cols < kNarrow; }

  void run(const Row<S>* rows, int count) {
    if (!tiles(call_.cols)) {
      for (int r = 0; r < count; ++r) draw(rows[r], rows[r].index - call_.index);
      return;
    }
    for (int r = 0; r < count; r += kTile) draw_tile(rows + r, count - r < kTile ? count - r : kTile);
  }

 private:
  // As ``draw``, of rows side by side. A group of rows is of one sample.
  __attribute__((noinline)) void draw_tile(const Row<S>* rows, int count) {
    const int64_t number = rows[0].index - call_.index;
    Tile<S> tile(rows, count, call_.cols);
    tile.load_scores();
    alignas(64) T top[kTile];
    Lane<double> e, ex, log_e;
    if (number < call_.rows) tile.sum_law(top, e.at, ex.at), logs_of(e, log_e);
    tile.add_tempered();
    tile.take_tops();
    tile.give_index();
    for (int r = 0; r < count; ++r)
      say(rows[r], number + r, tile.top(r), [&] { return Numbers{top[r], log_e[r], ex[r] / e[r] - log_e[r]}; });
  }

  void draw(const Row<S>& row, int64_t number) {
    const bool summed = number < call_.rows;  // the law is the same for every sample
    const Tempered<S> scores(row);
    Top<T> top;
    LawSums<T> law;
    for (int64_t first = 0; first < call_.cols; first += kBlock) {
      const int64_t n = call_.cols - first < kBlock ? call_.cols - first : kBlock;
      top.bad |= !scores.read(x_, first, n, [&] { return top.score; },
                              [&](const T* s, int64_t at, int64_t m) { take_top<T>(top, s, at, m); });
      if (summed) law.take(x_, n);
    }
    give_index(row, top);
    say(row, number, top, [&] { return Numbers{law.top(), law.log_sum(), law.mean_log()}; });
  }

  struct Numbers {
    T top;
    double log_sum, mean_log;
  };

  // Writes the logit that was drawn, and for the first sample the numbers of the law.
  template <class Law>
  INLINE void say(const Row<S>& row, int64_t number, const Top<T>& top, Law law) {
    const double nan = __builtin_nan("");
    const bool drawn = !top.bad && top.column >= 0;
    double *chosen = (double*)call_.out + number, *of_row = (double*)call_.out + call_.rows * call_.samples + 3 * number;
    *chosen = top.bad ? nan : drawn ? (double)logit_at(row, top.column) : -__builtin_inf();
    if (number >= call_.rows) return;
    const double none = top.bad ? nan : 0;
    of_row[0] = of_row[1] = of_row[2] = none;
    if (!drawn) return;
    const Numbers numbers = law();
    of_row[0] = (double)numbers.top, of_row[1] = numbers.log_sum, of_row[2] = numbers.mean_log;
  }

  const Call& call_;
  Block<T> x_;
};

template <class S>
class TopK {
 public:
  using T = typename S::T;
  static constexpr bool kDense = false;
  explicit TopK(const Call& call) : call_(call), best_(call.count < call.cols ? call.count : call.cols) {}

  static bool tiles(int64_t cols) { return cols < kNarrow; }

  void run(const Row<S>* rows, int count) {
    if (!tiles(call_.cols)) {
      for (int r = 0; r < count; ++r) take(rows[r]);
      return;
    }
    for (int first = 0; first < count; first += kTile) {
      const int many = count - first < kTile ? count - first : kTile;
      Tile<S> tile(rows + first, many, call_.cols);
      tile.load_scores();
      tile.add_tempered();
      if (call_.count <= kFew) give_one_by_one(tile, rows + first, many);
      else give_by_heap(tile, rows + first, many);
    }
  }

 private:
  static constexpr int64_t kFew = 8;  // categories that are sooner found one after the other, of all rows at once

  int64_t* out_of(const Row<S>& row) const { return call_.index + (row.index - call_.index) * call_.count; }

  void give_one_by_one(Tile<S>& tile, const Row<S>* rows, int count) {
    for (int64_t i = 0; i < call_.count; ++i) {
      tile.take_tops();
      for (int r = 0; r < count; ++r) {
        const Top<T> top = tile.top(r);
        out_of(rows[r])[i] = top.bad ? -1 : top.column;
        if (top.column >= 0 && !top.bad) tile.forbid(top.column, r);
      }
    }
  }

  void give_by_heap(const Tile<S>& tile, const Row<S>* rows, int count) {
    for (int r = 0; r < count; ++r) {
      tile.give_row(x_, r);
      best_.clear();
      best_.take(x_, 0, call_.cols);
      best_.give(out_of(rows[r]), call_.count);
    }
  }

  void take(const Row<S>& row) {
    const Tempered<S> scores(row);
    best_.clear();
    for (int64_t first = 0; first < call_.cols; first += kBlock) {
      const int64_t n = call_.cols - first < kBlock ? call_.cols - first : kBlock;
      const bool good = scores.read(x_, first, n, [&] { return best_.bar(); },
                                    [&](const T* s, int64_t at, int64_t m) { best_.take(s, at, m); });
      if (!good) best_.spoil();
    }
    best_.give(out_of(row), call_.count);
  }

  const Call& call_;
  Best<T> best_;
  Block<T> x_;
};

}  // namespace
