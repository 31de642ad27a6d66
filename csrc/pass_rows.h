// What passes over rows are made of: blocks of logits, the running maximum and its sums, and how a body walks its rows.
//
// A forward pass reads each row once, in blocks. Its sums are of exp(x - top) for the largest logit so far; where a block
// has a larger one, the sums are brought to it. They are taken in double, so that the order of lanes shows nowhere.
#pragma once
#include "pass.h"
#include "rows.h"

namespace {

using softdraw::Pass;

template <class T>
constexpr T kMinusInf = T(-__builtin_inf());

inline double exp_scalar(double x) { return exp_of<double, 2>(Vec<double, 2>{x, x})[0]; }  // x <= 0
inline double log_scalar(double x) { return -gumbel_of<double, 2>(Vec<double, 2>{x, x})[0]; }

template <class T, int N>
INLINE double total(Vec<T, N> x) {
  return fold<T, N>(x, [](auto a, auto b) { return a + b; });
}

// An operand of a pass, read block by block with what its mask forbids at -inf.
template <class S>
class Operand2D {
 public:
  using T = typename S::T;
  Operand2D(const void* data, const uint8_t* mask, int64_t rows, int64_t cols)
      : data_((const typename S::Raw*)data), mask_(mask), rows_(rows), cols_(cols) {}

  void place(int64_t row) {
    const int64_t at = row % rows_ * cols_;
    row_.in = data_ + at;
    row_.mask = mask_ ? mask_ + at : nullptr;
  }
  // Columns [first, first + n), and -inf up to the next multiple of 16.
  void load(T* block, int64_t first, int64_t n) const { load_logits(block, row_, first, n); }

 private:
  const typename S::Raw* data_;
  const uint8_t* mask_;
  int64_t rows_, cols_;
  Row<S> row_{};
};

// The largest of n elements, up to the next multiple of 16; NaN if one of them is.
template <class T>
NOINLINE T largest(const T* x, int64_t n) {
  constexpr int N = kLanes<T>;
  using V = Vec<T, N>;
  using Int = typename Format<T>::Int;
  V best = splat<V>(kMinusInf<T>);
  Vec<Int, N> nan{};
  for (int64_t i = 0; i < n; i += N) {
    const V v = load<V>(x + i);
    best = v > best ? v : best;
    nan |= v != v;
  }
  if (fold<Int, N>(nan, [](auto a, auto b) { return a | b; })) return T(__builtin_nan(""));
  return fold<T, N>(best, [](auto a, auto b) { return a > b ? a : b; });
}

// The gradient that arrives at a row, times the factor of the operation.
template <class T>
INLINE T arriving(const Pass& pass, int64_t row) {
  return (T)(((const T*)pass.grad)[row % pass.grad_rows] * pass.scale);
}

// x - lse, for an lse of more digits than T has.
template <class T>
struct Normalizer {
  T high, low;
  explicit Normalizer(double lse) : high((T)lse), low((T)(lse - (double)(T)lse)) {}
  template <class V>
  INLINE V operator()(V x) const { return (x - high) - low; }
};

// Calls body(first, n) for the blocks of a row.
template <class Body>
INLINE bool each_block(int64_t cols, Body body) {
  for (int64_t first = 0; first < cols; first += kBlock)
    if (!body(first, cols - first < kBlock ? cols - first : kBlock)) return false;
  return true;
}

// The rows of a pass, one after the other: body.row(r) works, body.skip(r) writes the zeros of a row that does not count.
template <class Body>
bool each_row(const Pass& pass, int64_t first, int64_t last) {
  Body body(pass);
  for (int64_t r = first; r < last; ++r) {
    if (pass.keep && !pass.keep[r]) body.skip(r);
    else if (!body.row(r)) return false;
  }
  return true;
}

template <class S>
INLINE void write_block(typename S::Raw* out, const typename S::T* x, int64_t n) {
  write_scaled<S>(out, x, n, typename S::T(1));
}

}  // namespace
