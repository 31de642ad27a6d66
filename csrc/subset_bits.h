// Logits of k of n items as independent bits, tilted so that about k of them are 1 (softdraw/kernels/reference/subset.py).
//
// Items lie in vectors of 64 bytes. Short rows lie side by side, a row in a lane ("Together"); of a long row, neighbouring
// items fill a vector ("Alone"). Which of the two depends on n and k alone, so that a row's numbers do not depend on its
// batch, and vectors have one width everywhere, so that they do not depend on the instruction set.
#pragma once
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "bit.h"
#include "subset.h"

namespace {

template <class T>
constexpr int kAbreast = 64 / sizeof(T);
template <class T>
using Abreast = Vec<T, kAbreast<T>>;

// Terms less likely than this are left out. For rows side by side, where that saves nothing, the bound only avoids
// subnormal numbers; for a row alone it narrows the band.
template <class T, bool kRows>
constexpr T kTiny = sizeof(T) == 4 ? T(0x1p-110) : kRows ? T(0x1p-900) : T(0x1p-200);

template <class T>
constexpr T kInfinite = T(__builtin_inf());

// Of the standard library only what is C is used: its templates would have external linkage (kernels.cpp).
INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t greater(int64_t a, int64_t b) { return a < b ? b : a; }

// Numbers at 64 bytes, or whatever else has no constructor; kept from one group of rows to the next.
template <class T>
struct Memory {
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { free(held); }

  // Room for `count`, all of it zero; false: there is no memory. What was taken once is there the next time.
  bool take(int64_t count) {
    const size_t bytes = count * sizeof(T);
    if (count > room) {
      free(held);
      held = calloc(1, bytes + 64);
      room = held ? count : 0;
      at = held ? (T*)round_up((int64_t)held, 64) : nullptr;
    } else {
      memset((void*)at, 0, bytes);
    }
    return at || count == 0;
  }

  void* held = nullptr;
  int64_t room = 0;
  T* at = nullptr;
};

enum class Kind { kOrdinary, kNan, kTooFew };

// One row's numbers: what is known of it, and the search for its tilt.
struct Row {
  Kind kind = Kind::kTooFew;
  bool infinite = false;
  int64_t k = 0;
  double goal = 0, finite = 0, forced = 0, low = 0, high = 0, tilt = 0;
  bool found = true;
};

template <class T, bool kRows>
struct TiltedBits {
  static constexpr int N = kAbreast<T>;
  static constexpr int kLanesOfRows = kRows ? N : 1;  // rows side by side
  using V = Abreast<T>;

  explicit TiltedBits(int64_t n) : n(n), vectors(kRows ? n : (n + N - 1) / N) {
    has_room = x.take(vectors * N) && on.take(vectors * N) && off.take(vectors * N);
  }

  // Reads `count` rows (one, where they lie alone) and finds their bits.
  void take(const T* logits, int64_t count, const int64_t* each, int64_t most) {
    for (int lane = 0; lane < kLanesOfRows; ++lane) rows[lane] = Row();
    for (int64_t i = 0; i < vectors * N; ++i) x.at[i] = kRows ? T(0) : -kInfinite<T>;
    for (int64_t r = 0; r < count; ++r) read(rows[r], logits + r * n, each ? each[r] : most, r);
    search();
    set();
  }

  T* item(T* at, int64_t i, int64_t lane) const { return at + i * kLanesOfRows + lane; }

  void read(Row& row, const T* logits, int64_t k, int64_t lane) {
    constexpr T inf = kInfinite<T>;
    double least = inf, largest = -inf, total = 0;
    int64_t finite = 0, infinite = 0;
    bool nan = false;
    for (int64_t i = 0; i < n; ++i) {
      const T v = logits[i];
      if (v > -inf && v < inf) {
        ++finite, total += v;
        least = v < least ? v : least, largest = v > largest ? v : largest;
      } else {
        nan |= v != v, infinite += v == inf;
      }
    }
    row.k = k, row.infinite = infinite > 0;
    row.kind = nan ? Kind::kNan : finite + infinite < k ? Kind::kTooFew : Kind::kOrdinary;
    if (row.kind != Kind::kOrdinary) return;
    const bool limit = infinite > 0 && infinite >= k;  // the law is then uniform over the items at +inf
    for (int64_t i = 0; i < n; ++i) *item(x.at, i, lane) = !limit ? logits[i] : logits[i] == inf ? T(0) : -inf;
    if (limit) finite = infinite, infinite = 0, least = largest = total = 0;
    constexpr double margin = 40;  // of logits: a bit is practically certain there
    row.goal = double(k - infinite), row.finite = double(finite), row.forced = double(infinite);
    row.low = (finite ? -largest : 0) - margin, row.high = (finite ? -least : 0) + margin;
    row.found = k <= infinite || k - infinite >= finite;
    if (row.found) {
      row.tilt = k <= infinite ? row.low : row.high;
    } else {
      const double start = log(row.goal / (row.finite - row.goal)) - total / row.finite;
      row.tilt = start < row.low ? row.low : start > row.high ? row.high : start;
    }
  }

  // Newton's steps on the log-odds of the share of ones, in a bracket that is halved where a step leaves it. A row that is
  // found stays as it is, whatever its neighbours do.
  void search() {
    for (int step = 0; step < 60; ++step) {
      bool all = true;
      for (int lane = 0; lane < kLanesOfRows; ++lane) all &= rows[lane].found;
      if (all) return;
      double total[N] = {}, spread[N] = {};
      sums(total, spread);
      for (int lane = 0; lane < kLanesOfRows; ++lane)
        if (!rows[lane].found) improve(rows[lane], total[lane] - rows[lane].forced, spread[lane]);
    }
  }

  static void improve(Row& row, double total, double spread) {
    const double miss = total - row.goal;
    if (miss * miss <= 1e-6 * spread || miss == 0) {
      row.found = true;
      return;
    }
    (miss > 0 ? row.high : row.low) = row.tilt;
    const double share = total / row.finite;
    const double odds = log(row.goal / (row.finite - row.goal)) - log(share / (1 - share));
    const double next = row.tilt + odds * total * (1 - share) / spread;
    row.tilt = next >= row.low && next <= row.high ? next : (row.low + row.high) / 2;
  }

  // How many ones are expected, and their variance, for each row. Summed in blocks, for the digits.
  void sums(double* total, double* spread) const {
    const V tilt = tilts();
    constexpr int64_t block = 64;
    for (int64_t first = 0; first < vectors; first += block) {
      V t{}, s{};
      for (int64_t i = first; i < lesser(first + block, vectors); ++i) {
        const Bit<T, N> bit(load_at(x.at, i) + tilt);
        t += bit.on(), s += bit.variance();
      }
      for (int lane = 0; lane < N; ++lane) total[kRows ? lane : 0] += t[lane], spread[kRows ? lane : 0] += s[lane];
    }
  }

  V tilts() const {
    V tilt{};
    for (int lane = 0; lane < N; ++lane) tilt[lane] = T(rows[kRows ? lane : 0].tilt);
    return tilt;
  }

  void set() {
    using D = Vec<double, N>;
    D tilt{};
    for (int lane = 0; lane < N; ++lane) tilt[lane] = rows[kRows ? lane : 0].tilt;
    for (int64_t i = 0; i < vectors; ++i) {
      const Bit<T, N> bit(__builtin_convertvector(__builtin_convertvector(load_at(x.at, i), D) + tilt, V));
      store(on.at + i * N, bit.on()), store(off.at + i * N, bit.off());
    }
  }

  // sum of softplus(x + c) for each row, in double.
  void softplus(double* total) const {
    using D = Vec<double, N>;
    D tilt{}, sum{};
    for (int lane = 0; lane < N; ++lane) tilt[lane] = rows[kRows ? lane : 0].tilt;
    for (int64_t i = 0; i < vectors; ++i) {
      const D odds = __builtin_convertvector(load_at(x.at, i), D) + tilt;
      sum += Costs<double, N>(Bit<double, N>(odds)).zero;
    }
    for (int lane = 0; lane < N; ++lane) total[kRows ? lane : 0] += sum[lane];
  }

  static V load_at(const T* at, int64_t i) { return load<V>(at + i * N); }

  int64_t n, vectors;
  bool has_room;
  Row rows[kLanesOfRows];
  Memory<T> x, on, off;
};

}  // namespace
