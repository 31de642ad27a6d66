// Philox4x32-10 (Salmon et al. 2011), several counters at once.
//
// Every 32-bit word lies in the low half of a 64-bit lane, where one instruction multiplies 32 x 32 -> 64 bits. The
// high halves hold leftovers that no later multiplication reads, so a round is two products, two shifts and four xors.
#pragma once
#include "vector.h"
#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
constexpr int kRounds = 10;

#if defined(__AVX512F__)
constexpr int kCounters = 8;
using Lanes = Vec<uint64_t, kCounters>;
INLINE Lanes product(Lanes a, uint32_t m) { return (Lanes)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(m)); }
#elif defined(__AVX2__)
constexpr int kCounters = 4;
using Lanes = Vec<uint64_t, kCounters>;
INLINE Lanes product(Lanes a, uint32_t m) { return (Lanes)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(m)); }
#elif defined(__SSE2__)
constexpr int kCounters = 2;
using Lanes = Vec<uint64_t, kCounters>;
INLINE Lanes product(Lanes a, uint32_t m) { return (Lanes)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(m)); }
#elif defined(__ARM_NEON)
constexpr int kCounters = 2;
using Lanes = Vec<uint64_t, kCounters>;
INLINE Lanes product(Lanes a, uint32_t m) { return (Lanes)vmull_u32(vmovn_u64((uint64x2_t)a), vdup_n_u32(m)); }
#else
constexpr int kCounters = 2;
using Lanes = Vec<uint64_t, kCounters>;
INLINE Lanes product(Lanes a, uint32_t m) { return (a & 0xFFFFFFFFull) * m; }
#endif

struct Key {
  uint32_t low, high;
};

// The key of every round, in all lanes.
struct Schedule {
  explicit Schedule(Key key) : Schedule(splat<Lanes>((uint64_t)key.low), splat<Lanes>((uint64_t)key.high)) {}
  // A sum may carry into the high half of its lane, which holds only leftovers anyway (see above).
  Schedule(Lanes key_low, Lanes key_high) {
    for (int round = 0; round < kRounds; ++round, key_low += (uint64_t)kWeyl0, key_high += (uint64_t)kWeyl1) {
      low[round] = key_low;
      high[round] = key_high;
    }
  }
  Lanes low[kRounds], high[kRounds];
};

struct Counter {
  Lanes c0, c1, c2, c3;
};

constexpr int kPair = 2 * kCounters;

// A round waits for the product of the last one; two chains side by side fill the wait.
INLINE void rounds(Counter (&c)[2], const Schedule& first, const Schedule& second, int done = 0, int last = kRounds) {
  for (int round = done; round < last; ++round)
    for (int i = 0; i < 2; ++i) {
      Counter& x = c[i];
      const Schedule& keys = i == 0 ? first : second;
      Lanes p0 = product(x.c0, kMultiplier0), p1 = product(x.c2, kMultiplier1);
      x.c0 = (p1 >> 32) ^ x.c1 ^ keys.low[round];
      x.c2 = (p0 >> 32) ^ x.c3 ^ keys.high[round];
      x.c1 = p1;
      x.c3 = p0;
    }
}

// Four words for each of two vectors of counters, counter after counter: 4 * kPair words at out.
INLINE void philox(uint32_t* out, Counter first, Counter second, const Schedule& keys) {
  Counter c[2] = {first, second};
  rounds(c, keys, keys);
  for (const Counter& x : c) {
    constexpr uint64_t low = 0xFFFFFFFF;
    Lanes a = (x.c0 & low) | (x.c1 << 32), b = (x.c2 & low) | (x.c3 << 32);
#if defined(__AVX512F__)
    store(out, __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11));
    store(out + 16, __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15));
#elif defined(__AVX2__)
    store(out, __builtin_shufflevector(a, b, 0, 4, 1, 5));
    store(out + 8, __builtin_shufflevector(a, b, 2, 6, 3, 7));
#else
    store(out, __builtin_shufflevector(a, b, 0, 2));
    store(out + 4, __builtin_shufflevector(a, b, 1, 3));
#endif
    out += 4 * kCounters;
  }
}

// The same words, the first ones of all counters before the second ones.
INLINE void philox_by_word(uint32_t* out, const Counter (&counters)[2], const Schedule& first, const Schedule& second) {
  using Half = Vec<uint32_t, kCounters>;
  Counter c[2] = {counters[0], counters[1]};
  rounds(c, first, second);
  for (const Counter& x : c) {
    store(out, __builtin_convertvector(x.c0, Half));
    store(out + kPair, __builtin_convertvector(x.c1, Half));
    store(out + 2 * kPair, __builtin_convertvector(x.c2, Half));
    store(out + 3 * kPair, __builtin_convertvector(x.c3, Half));
    out += kCounters;
  }
}

// Counters that differ in their second word alone, as those of bits of one sample do. What three rounds make of the other
// words are numbers, so of these rounds 2 products, 2 shifts and 4 xors of vectors are left.
class SecondWords {
 public:
  SecondWords(Key key, uint32_t c0, uint32_t c2, uint32_t c3) {
    uint64_t p0 = (uint64_t)c0 * kMultiplier0, p1 = (uint64_t)c2 * kMultiplier1;
    first_ = (p1 >> 32) ^ key.low;
    const uint32_t s1 = (uint32_t)p1, s2 = (uint32_t)(p0 >> 32) ^ c3 ^ key.high, s3 = (uint32_t)p0;
    p1 = (uint64_t)s2 * kMultiplier1;
    second_ = s3 ^ (uint32_t)(key.high + kWeyl1);
    p0 = (uint64_t)((uint32_t)(p1 >> 32) ^ s1 ^ (uint32_t)(key.low + kWeyl0)) * kMultiplier0;
    third_[0] = (uint32_t)p1 ^ (uint32_t)(key.low + 2 * kWeyl0);
    third_[1] = (p0 >> 32) ^ (uint32_t)(key.high + 2 * kWeyl1);
    third_[2] = (uint32_t)p0;
  }

  // Word k of counter i at out[k * stride + i], of the first two words or of all four.
  template <int kWords>
  INLINE void philox(uint32_t* out, int64_t stride, const Lanes (&second)[2], const Schedule& keys) const {
    using Half = Vec<uint32_t, kCounters>;
    Counter c[2];
    for (int i = 0; i < 2; ++i) {
      const Lanes p0 = product(second[i] ^ first_, kMultiplier0), p1 = product((p0 >> 32) ^ second_, kMultiplier1);
      c[i] = {(p1 >> 32) ^ third_[0], p1, p0 ^ third_[1], splat<Lanes>(third_[2])};
    }
    rounds(c, keys, keys, 3, kWords == 2 ? kRounds - 2 : kRounds);
    for (int i = 0; i < 2; ++i, out += kCounters) {
      if constexpr (kWords == 2) {  // the last two rounds as far as they reach these words
        const Lanes p1 = product(c[i].c2, kMultiplier1);
        const Lanes c2 = (product(c[i].c0, kMultiplier0) >> 32) ^ c[i].c3 ^ keys.high[kRounds - 2];
        c[i].c1 = product(c2, kMultiplier1);
        c[i].c0 = (c[i].c1 >> 32) ^ p1 ^ keys.low[kRounds - 1];
      }
      store(out, __builtin_convertvector(c[i].c0, Half));
      store(out + stride, __builtin_convertvector(c[i].c1, Half));
      if constexpr (kWords == 2) continue;
      store(out + 2 * stride, __builtin_convertvector(c[i].c2, Half));
      store(out + 3 * stride, __builtin_convertvector(c[i].c3, Half));
    }
  }

 private:
  uint64_t first_, second_, third_[3];
};

// The first two words of one counter.
inline Key philox_words(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, Key key) {
  uint32_t out[4 * kPair];
  Counter c = {splat<Lanes>((uint64_t)c0), splat<Lanes>((uint64_t)c1), splat<Lanes>((uint64_t)c2),
               splat<Lanes>((uint64_t)c3)};
  philox(out, c, c, Schedule(key));
  return {out[0], out[1]};
}

}  // namespace
