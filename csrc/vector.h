// Vectors of the width of a register, from the compiler's vector extensions.
#pragma once
#include <cstdint>

#define INLINE inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))  // heavy loops, compiled once for each element type

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

INLINE int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace
