// Scores of a row, its maximum, and its softmax: what the operations are made of.
//
// s_j = logit_j + G_j, -inf where forbidden. Buffers of scores are filled with -inf up to a whole vector, which moves
// neither a maximum nor a sum of exponentials.
#pragma once
#include "call.h"
#include "noise.h"
#include "storage.h"

namespace {

template <class S>
struct Row {
  using Raw = typename S::Raw;
  const Raw* in;
  const Raw* grad;
  const uint8_t* mask;
  Raw* out;
  int64_t* index;
  bool noisy;
  Stream stream;
  typename S::T tau;
};

// The largest score, the smallest column that has it (-1 if there is none), and whether NaN or +inf was seen.
template <class T>
struct Top {
  T score = -__builtin_inf();
  int64_t column = -1;
  bool bad = false;
};

template <class S, class T = typename S::T>
INLINE T logit_at(const Row<S>& row, int64_t column) {
  if (row.mask && !row.mask[column]) return -__builtin_inf();
  return row.in ? S::template widen<4>(Vec<typename S::Raw, 4>{row.in[column]})[0] : T(0);
}

// Logits of columns [first, first + n) without noise, and -inf up to the next multiple of 16.
template <class S, class T = typename S::T>
NOINLINE void load_logits(T* scores, const Row<S>& row, int64_t first, int64_t n) {
  constexpr int N = kLanes<T>;
  using V = Vec<T, N>;
  using Int = typename Format<T>::Int;
  using Mask = Vec<Int, N>;
  Mask lane;
  for (int i = 0; i < N; ++i) lane[i] = i;
  const auto forbidden = splat<V>(T(-__builtin_inf()));
  auto take = [&](int64_t i, int64_t m) {
    const bool whole = m == N;
    V x = !row.in ? V{} : whole ? read<S, N>(row.in + first + i) : read_part<S, N>(row.in + first + i, m);
    using Bytes = Vec<uint8_t, N>;
    if (row.mask) {
      const uint8_t* mask = row.mask + first + i;
      auto allowed = __builtin_convertvector(whole ? load<Bytes>(mask) : load_part<Bytes>(mask, m), Mask);
      x = allowed != 0 ? x : forbidden;
    }
    store(scores + i, whole ? x : lane < (Int)m ? x : forbidden);
  };
  int64_t i = 0;
  for (; i + N <= n; i += N) take(i, N);
  for (; i < round_up(n, 16); i += N) take(i, n > i ? n - i : 0);
}

template <class S, class T = typename S::T>
NOINLINE void mend_tails(T* scores, const uint32_t* words, const Row<S>& row, int64_t first, int64_t n) {
  for (int64_t i = first; i < first + n; ++i, ++scores, ++words)
    if (*words < kTail) *scores = tail_score(logit_at(row, i), *words, i, row.stream);
}

// Scores of columns [first, first + n), n <= kBlock; writes up to the next multiple of 16.
template <class S, class T = typename S::T>
INLINE void score_block(T* scores, const Row<S>& row, int64_t first, int64_t n) {
  load_logits(scores, row, first, n);
  if (!row.noisy) return;
  alignas(64) uint32_t words[kBlock + kSlack];
  const uint32_t col = row.stream.col + (uint32_t)first;
  words_of(words, round_up(n, 16) + lead(col), col, row.stream);
  if (add_noise(scores, words + lead(col), round_up(n, 16))) mend_tails(scores, words + lead(col), row, first, n);
}

// Takes columns [first, first + n), whose scores are given, into the maximum.
template <class T>
NOINLINE void take_top(Top<T>& top, const T* scores, int64_t first, int64_t n) {
  constexpr int N = kLanes<T>;
  using Int = typename Format<T>::Int;
  using V = Vec<T, N>;
  using I = Vec<Int, N>;
  V best = splat<V>(T(-__builtin_inf()));
  I at{}, now{}, bad{};
  for (int i = 0; i < N; ++i) now[i] = i;
  for (int64_t i = 0; i < n; i += N, now += N) {
    V s = load<V>(scores + i);
    I better = s > best;
    best = better ? s : best;
    at = better ? now : at;
    bad |= ~(s < T(__builtin_inf()));
  }
  top.bad |= fold<Int, N>(bad, [](auto a, auto b) { return a | b; }) != 0;
  const T score = fold<T, N>(best, [](auto a, auto b) { return a > b ? a : b; });
  if (!(score > top.score)) return;
  at = best == score ? at : splat<I>((Int)n);
  top.score = score;
  top.column = first + fold<Int, N>(at, [](auto a, auto b) { return a < b ? a : b; });
}

// g where y has mass, else 0: an inf or NaN that arrives where nothing was drawn must not spread.
template <class V>
INLINE V where_mass(V y, V g) {
  return y != 0 ? g : V{};
}

template <class S, int N = kLanes<typename S::T>>
NOINLINE void fill(typename S::Raw* out, int64_t n, typename S::T value) {
  auto x = splat<Vec<typename S::T, N>>(value);
  int64_t i = 0;
  for (; i + N <= n; i += N) write<S, N>(out + i, x);
  write_part<S, N>(out + i, n - i, x);
}

template <class S, class T = typename S::T>
NOINLINE void write_scaled(typename S::Raw* out, const T* e, int64_t n, T scale) {
  constexpr int N = kLanes<T>;
  using V = Vec<T, N>;
  int64_t i = 0;
  for (; i + N <= n; i += N) write<S, N>(out + i, load<V>(e + i) * scale);
  if (i < n) write_part<S, N>(out + i, n - i, load<V>(e + i) * scale);
}

}  // namespace
