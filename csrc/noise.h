// The noise contract: Gumbel values for runs of columns, equal in words (and to a few ulp in value) to softdraw/noise.py.
#pragma once
#include "math.h"
#include "philox.h"

namespace {

constexpr uint32_t kTail = 1 << 8;             // words below it take low bits from a second word
constexpr uint32_t kTailStream = 1u << 31;     // the stream of second words
constexpr uint32_t kKeyStream = ~0u;           // the stream of keys made from keys
constexpr uint64_t kConditional = 0xB6A31CD6FA9F5F26;  // "conditional" as an id (softdraw/noise.py)
constexpr int64_t kBlock = 1024;               // columns at a time: words and scores stay in the first cache
constexpr int64_t kSlack = 4 * kPair;           // what whole vectors may run over the end of a block

struct Stream {
  Key key;
  uint32_t row_low, row_high, stream;
  uint32_t col;  // the global index of the row's first column
};

// The key of a use of its own, named by an id.
inline Key fold_in(Key seed, uint64_t id) { return philox_words((uint32_t)id, (uint32_t)(id >> 32), 0, kKeyStream, seed); }

// The key of the noise that rules use besides the draw's own.
inline Key conditional_key(Key seed) { return fold_in(seed, kConditional); }

// A counter makes the words of four columns: those before `col` that come with it are left out.
inline int lead(uint32_t col) { return col & 3; }

// Words of n columns from the multiple of 4 at or below `col`.
NOINLINE void words_of(uint32_t* out, int64_t n, uint32_t col, const Stream& s) {
  const Schedule keys(s.key);
  Counter first = {splat<Lanes>((uint64_t)(col >> 2)), splat<Lanes>((uint64_t)s.row_low),
                   splat<Lanes>((uint64_t)s.row_high), splat<Lanes>((uint64_t)s.stream)};
  for (int i = 0; i < kCounters; ++i) first.c0[i] += i;
  Counter second = first;
  second.c0 += (uint64_t)kCounters;
  for (int64_t i = 0; i < n; i += 4 * kPair) {
    philox(out + i, first, second, keys);
    first.c0 += (uint64_t)kPair;
    second.c0 += (uint64_t)kPair;
  }
}

// float(x), rounded to nearest: the two halves are exact, so only their sum rounds.
template <class T, int N>
INLINE Vec<T, N> number(Vec<uint32_t, N> x) {
#if defined(__AVX512F__)
  return __builtin_convertvector(x, Vec<T, N>);
#else
  using I = Vec<int32_t, N>;
  Vec<T, N> high = __builtin_convertvector((I)(x >> 16), Vec<T, N>);
  return high * T(65536) + __builtin_convertvector((I)(x & 0xFFFFu), Vec<T, N>);
#endif
}

// u = (x + low) / 2^32, at most 1 - 2^-24. In float no word near 2^32 is moved by low, so the words can be clamped.
template <class T, int N>
INLINE Vec<T, N> uniform(Vec<uint32_t, N> x, T low) {
  constexpr uint32_t largest = 0xFFFFFF00u;
  constexpr T below_one = T(1) - T(0x1p-24);
  if constexpr (sizeof(T) == 4) x = x < largest ? x : splat<Vec<uint32_t, N>>(largest);
  Vec<T, N> u = (number<T, N>(x) + low) * T(0x1p-32);
  if constexpr (sizeof(T) == 8) u = u < below_one ? u : splat<Vec<T, N>>(below_one);
  return u;
}

// scores += noise, for the n (a multiple of the lanes) columns whose words are given; says if any word needs its second one.
// Two short loops, not one: more iterations are then in flight at once.
template <class T>
NOINLINE bool add_noise(T* scores, const uint32_t* words, int64_t n) {
  constexpr int N = kLanes<T>;
  using V = Vec<T, N>;
  alignas(64) T e[kBlock + kSlack];
  auto least = splat<Vec<uint32_t, N>>(~0u);
  for (int64_t i = 0; i < n; i += N) {
    auto x = load<Vec<uint32_t, N>>(words + i);
    least = x < least ? x : least;
    store(e + i, exponential_of<T, N>(uniform<T, N>(x, T(0.5))));
  }
  for (int64_t i = 0; i < n; i += N) store(scores + i, load<V>(scores + i) + gumbel_of<T, N>(load<V>(e + i)));
  uint32_t smallest = least[0];
  for (int i = 1; i < N; ++i) smallest = least[i] < smallest ? least[i] : smallest;
  return smallest < kTail;
}

// The exponential noise of column i, whose word is below kTail: about one in sixteen million.
template <class T>
NOINLINE T tail_exponential(uint32_t word, int64_t i, const Stream& s) {
  constexpr int N = kLanes<T>;
  using Words = Vec<uint32_t, N>;
  uint32_t second = philox_words(s.col + (uint32_t)i, s.row_low, s.row_high, s.stream + kTailStream, s.key).low;
  T low = (number<T, N>(splat<Words>(second))[0] + T(0.5)) * T(0x1p-32);
  return exponential_of<T, N>(uniform<T, N>(splat<Words>(word), low))[0];
}

template <class T>
T tail_score(T logit, uint32_t word, int64_t i, const Stream& s) {
  constexpr int N = kLanes<T>;
  return logit + gumbel_of<T, N>(splat<Vec<T, N>>(tail_exponential<T>(word, i, s)))[0];
}

}  // namespace
