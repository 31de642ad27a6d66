// The four element types in memory, widened to the type of the computation on load and rounded to nearest on store.
#pragma once
#include "call.h"
#include "vector.h"

namespace {

template <class Float>
struct Plain {
  using Raw = Float;
  using T = Float;
  template <int N>
  static INLINE Vec<T, N> widen(Vec<Raw, N> x) { return x; }
  template <int N>
  static INLINE Vec<Raw, N> narrow(Vec<T, N> x) { return x; }
};
using Float32 = Plain<float>;
using Float64 = Plain<double>;

struct BFloat16 {
  using Raw = uint16_t;
  using T = float;

  template <int N>
  static INLINE Vec<T, N> widen(Vec<Raw, N> x) {
    return as<Vec<T, N>>(__builtin_convertvector(x, Vec<uint32_t, N>) << 16);
  }

  template <int N>
  static INLINE Vec<Raw, N> narrow(Vec<T, N> x) {
    auto bits = as<Vec<uint32_t, N>>(x);
    auto rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    auto nan = splat<Vec<uint32_t, N>>(0x7FC0u);
    return __builtin_convertvector(x == x ? rounded : nan, Vec<Raw, N>);
  }
};

struct Float16 {
  using Raw = uint16_t;
  using T = float;

  template <int N>
  static INLINE Vec<T, N> widen(Vec<Raw, N> x) {
    auto bits = __builtin_convertvector(x, Vec<uint32_t, N>);
    auto magnitude = (bits & 0x7FFFu) << 13;
    auto finite = as<Vec<uint32_t, N>>(as<Vec<T, N>>(magnitude) * 0x1p112f);  // moves the exponent's bias
    auto special = magnitude | 0x7F800000u;                                     // inf and NaN
    auto value = magnitude < (0x7C00u << 13) ? finite : special;
    return as<Vec<T, N>>(value | ((bits & 0x8000u) << 16));
  }

  template <int N>
  static INLINE Vec<Raw, N> narrow(Vec<T, N> x) {
    using U = Vec<uint32_t, N>;
    auto bits = as<U>(x), magnitude = bits & 0x7FFFFFFFu;
    auto normal = (magnitude - (112u << 23) + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
    auto subnormal = as<U>(as<Vec<T, N>>(magnitude) + 0.5f) - as<U>(splat<Vec<T, N>>(0.5f));  // the sum rounds
    auto half = magnitude < (113u << 23) ? subnormal : normal;
    half = magnitude < 0x477FF000u ? half : splat<U>(0x7C00u);    // 65520 and more round to inf
    half = magnitude <= 0x7F800000u ? half : splat<U>(0x7E00u);  // NaN
    return __builtin_convertvector(half | ((bits >> 16) & 0x8000u), Vec<Raw, N>);
  }
};

template <class S, int N>
INLINE Vec<typename S::T, N> read(const typename S::Raw* p) {
  return S::template widen<N>(load<Vec<typename S::Raw, N>>(p));
}

template <class S, int N>
INLINE void write(typename S::Raw* p, Vec<typename S::T, N> x) {
  store(p, S::template narrow<N>(x));
}

// The first n < N elements at p, and 0 in the other lanes.
template <class S, int N>
INLINE Vec<typename S::T, N> read_part(const typename S::Raw* p, int64_t n) {
  return S::template widen<N>(load_part<Vec<typename S::Raw, N>>(p, n * sizeof(typename S::Raw)));
}

template <class S, int N>
INLINE void write_part(typename S::Raw* p, int64_t n, Vec<typename S::T, N> x) {
  store_part(p, n * sizeof(typename S::Raw), S::template narrow<N>(x));
}

}  // namespace
