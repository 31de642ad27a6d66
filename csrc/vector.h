// Vectors of the width of a register, from the compiler's vector extensions.
#pragma once
#include <cstdint>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define LAMBDA_INLINE __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline, unused))  // heavy loops, compiled once for each element type

namespace {

template <class T, int N>
struct VecOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N>
using Vec = typename VecOf<T, N>::type;

template <class V>
INLINE V load(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class V>
INLINE void store(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// The bytes that two types of different size have in common.
template <class To, class V>
INLINE To head(V v) {
  To to{};
  __builtin_memcpy(&to, &v, sizeof to < sizeof v ? sizeof to : sizeof v);
  return to;
}

// The first bytes of a vector, with zeros in the others; and a vector's first bytes put back.
#if defined(__AVX512BW__) && defined(__AVX512VL__)
template <class V>
INLINE V load_part(const void* p, int64_t bytes) {
  const uint64_t mask = _bzhi_u64(~0ull, (unsigned)bytes);
  if constexpr (sizeof(V) == 64) return (V)_mm512_maskz_loadu_epi8(mask, p);
  else if constexpr (sizeof(V) == 32) return (V)_mm256_maskz_loadu_epi8((__mmask32)mask, p);
  else if constexpr (sizeof(V) == 16) return (V)_mm_maskz_loadu_epi8((__mmask16)mask, p);
  else return head<V>(_mm_maskz_loadu_epi8((__mmask16)mask, p));
}

template <class V>
INLINE void store_part(void* p, int64_t bytes, V v) {
  const uint64_t mask = _bzhi_u64(~0ull, (unsigned)bytes);
  if constexpr (sizeof(V) == 64) _mm512_mask_storeu_epi8(p, mask, (__m512i)v);
  else if constexpr (sizeof(V) == 32) _mm256_mask_storeu_epi8(p, (__mmask32)mask, (__m256i)v);
  else _mm_mask_storeu_epi8(p, (__mmask16)mask, head<__m128i>(v));
}
#else
template <class V>
INLINE V load_part(const void* p, int64_t bytes) {
  V v{};
  for (int64_t i = 0; i < bytes; ++i) ((char*)&v)[i] = ((const char*)p)[i];
  return v;
}

template <class V>
INLINE void store_part(void* p, int64_t bytes, V v) {
  for (int64_t i = 0; i < bytes; ++i) ((char*)p)[i] = ((const char*)&v)[i];
}
#endif

template <class V, class T>
INLINE V splat(T x) {
  return x - V{};  // not x + V{}, which loses the sign of -0
}

template <class To, class V>
INLINE To as(V v) {  // the same bits as another type of the same size
  To to;
  __builtin_memcpy(&to, &v, sizeof to);
  return to;
}

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
template <class T>
constexpr int kLanes = kVectorBytes / sizeof(T);  // divides 16

// The lanes combined in pairs, halves first: log2(N) steps.
template <class T, int N, class Combine>
INLINE T fold(Vec<T, N> v, Combine combine) {
  if constexpr (N == 2) {
    return combine(v[0], v[1]);
  } else {
    Vec<T, N / 2> half[2];
    __builtin_memcpy(half, &v, sizeof v);
    return fold<T, N / 2>(combine(half[0], half[1]), combine);
  }
}

// The lanes as doubles, part by part: a vector of N doubles is wider than a register where T is float.
template <class T, int N>
INLINE Vec<double, kLanes<double>> in_double(Vec<T, N> v, int part) {
  if constexpr (sizeof(T) == 8) {
    return v;
  } else {
#if defined(__AVX512F__)
    return (Vec<double, 8>)_mm512_cvtps_pd((__m256)(part ? _mm512_extractf32x8_ps((__m512)v, 1) : _mm512_castps512_ps256((__m512)v)));
#else
    constexpr int M = kLanes<double>;
    Vec<T, M> half[2];
    __builtin_memcpy(half, &v, sizeof v);
    return __builtin_convertvector(half[part], Vec<double, M>);
#endif
  }
}

// A sum of vectors in double that stays in registers.
template <class T, int N = kLanes<T>>
struct DoubleSum {
  static constexpr int kParts = sizeof(double) / sizeof(T);
  INLINE void add(Vec<T, N> v) {
    first += in_double<T, N>(v, 0);
    if (kParts == 2) second += in_double<T, N>(v, 1);
  }
  INLINE double total() const {
    return fold<double, kLanes<double>>(kParts == 2 ? first + second : first, [](auto a, auto b) { return a + b; });
  }
  Vec<double, kLanes<double>> first{}, second{};
};

INLINE int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace
