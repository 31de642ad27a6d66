// Gradients for the logits: dx_j = y_j (g_j - <g, y>) / tau, where a category of no mass passes nothing on.
#pragma once
#include "forward.h"

namespace {

template <class S, int N, class Y, class G>
INLINE void write_jacobian_product(typename S::Raw* out, int64_t n, typename S::T tau, Y y, G g) {
  using T = typename S::T;
  using Sum = Vec<double, N>;
  Sum sum{};
  int64_t i = 0;
  for (; i + N <= n; i += N) sum += __builtin_convertvector(y(i, N) * where_mass(y(i, N), g(i, N)), Sum);
  if (i < n) sum += __builtin_convertvector(y(i, n - i) * where_mass(y(i, n - i), g(i, n - i)), Sum);
  const T mean = (T)fold<double, N>(sum, [](auto a, auto b) { return a + b; });
  auto dx = [&](int64_t i, int64_t m) { return y(i, m) * (where_mass(y(i, m), g(i, m)) - mean) / tau; };
  for (i = 0; i + N <= n; i += N) write<S, N>(out + i, dx(i, N));
  if (i < n) write_part<S, N>(out + i, n - i, dx(i, n - i));
}

// N elements at p + i, of which the first m are there.
template <class S, int N>
struct Reader {
  const typename S::Raw* p;
  INLINE Vec<typename S::T, N> operator()(int64_t i, int64_t m) const {
    return m == N ? read<S, N>(p + i) : read_part<S, N>(p + i, m);
  }
};

template <class S>
class SoftBackward {
 public:
  static constexpr bool kDense = true;
  explicit SoftBackward(const Call& call) : cols_(call.cols) {}

  void run(const Row<S>* rows, int count) {
    constexpr int N = kLanes<typename S::T>;
    for (int r = 0; r < count; ++r) {
      const Row<S>& row = rows[r];
      write_jacobian_product<S, N>(row.out, cols_, row.tau, Reader<S, N>{row.in}, Reader<S, N>{row.grad});
    }
  }

 private:
  int64_t cols_;
};

// The soft draw with the same noise is made again, rounded nowhere but in the result, and takes the gradient.
template <class S>
struct HardBackwardFinish {
  using T = typename S::T;
  static constexpr bool kDense = true, kKeepsScores = true;
  static constexpr int N = kLanes<T>;

  static INLINE void finish(Tile<S>& tile) {
    tile.soften();
    tile.take_jacobian_product();
    tile.give();
  }

  static INLINE void finish(const Row<S>& row, T* s, int64_t n, const Top<T>& top) {
    if (no_draw<S>(row, n, top)) return;
    const T scale = (T)(1 / exponentials(s, n, top.score, row.tau));
    auto y = [=](int64_t i, int64_t) { return load<Vec<T, N>>(s + i) * scale; };
    write_jacobian_product<S, N>(row.out, n, row.tau, y, Reader<S, N>{row.grad});
  }
};

template <class S>
using HardBackward = Draw<S, HardBackwardFinish<S>>;

}  // namespace
