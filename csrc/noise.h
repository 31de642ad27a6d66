// The noise contract: Gumbel values for runs of columns, equal in words (and to a few ulp in value) to softdraw/noise.py.
#pragma once
#include "math.h"
#include "philox.h"

namespace {

constexpr uint32_t kTail = 1 << 8;             // words below it take low bits from a second word
constexpr uint32_t kTailStream = 1u << 31;     // the stream of second words
constexpr int64_t kBlock = 1024;               // columns at a time: words and scores stay in the first cache
constexpr int64_t kSlack = 4 * 16;             // what whole vectors may run over the end of a block

struct Stream {
  Key key;
  uint32_t row_low, row_high, stream;
};

// Words of n columns from `col`, a multiple of 4.
NOINLINE void words_of(uint32_t* out, int64_t n, uint32_t col, const Stream& s) {
  Lanes counter = splat<Lanes>((uint64_t)(col >> 2));
  for (int i = 0; i < kCounters; ++i) counter[i] += i;
  for (int64_t i = 0; i < n; i += 4 * kCounters, counter += (uint64_t)kCounters)
    philox(out + i, counter, splat<Lanes>((uint64_t)s.row_low), splat<Lanes>((uint64_t)s.row_high),
           splat<Lanes>((uint64_t)s.stream), s.key);
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

template <class T, int N>
INLINE Vec<T, N> uniform(Vec<T, N> x, T low) {
  return (x + low) * T(0x1p-32);
}

// scores += noise, for the n (a multiple of 16) columns whose words are given; says if any word needs its second one.
template <class T>
NOINLINE bool add_noise(T* scores, const uint32_t* words, int64_t n) {
  using V = Vec<T, 16>;
  Vec<int32_t, 16> tail{};
  for (int64_t i = 0; i < n; i += 16) {
    auto x = load<Vec<uint32_t, 16>>(words + i);
    tail |= (x < kTail);
    store(scores + i, load<V>(scores + i) + gumbel_of<T, 16>(uniform<T, 16>(number<T, 16>(x), T(0.5))));
  }
  int32_t any = 0;
  for (int i = 0; i < 16; ++i) any |= tail[i];
  return any != 0;
}

// The score of one column whose word is below kTail: about one in sixteen million.
template <class T>
NOINLINE T tail_score(T logit, uint32_t word, uint32_t col, const Stream& s) {
  uint32_t second = philox_word(col, s.row_low, s.row_high, s.stream + kTailStream, s.key);
  T low = (number<T, 16>(splat<Vec<uint32_t, 16>>(second))[0] + T(0.5)) * T(0x1p-32);
  auto x = number<T, 16>(splat<Vec<uint32_t, 16>>(word));
  return logit + gumbel_of<T, 16>(uniform<T, 16>(x, low))[0];
}

}  // namespace
