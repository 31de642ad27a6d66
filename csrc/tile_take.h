// A tile of logits taken into what each row carries from tile to tile: the best score with its column and its logit, the
// largest logit, and the sum of exp(logit - largest). The scores are those of indices.h, so the best of all tiles is the draw
// of all logits, bit for bit. What a row carries is also the bar that a span must pass before its noise takes logarithms.
#pragma once
#include "indices.h"

namespace {

using softdraw::TileCall;

// The sum of exp(x - top) over a block that is -inf up to the next multiple of 16.
template <class T>
NOINLINE double sum_of_block(const T* block, int64_t n, T top) {
  constexpr int N = kLanes<T>;
  constexpr int64_t few = 4 * N;  // few enough to lose less than one of their own roundings
  using Sum = Vec<double, N>;
  Sum sum{};
  for (int64_t first = 0; first < n; first += few) {
    Vec<T, N> part{};
    for (int64_t i = first; i < n && i < first + few; i += N) part += exp_of<T, N>(load<Vec<T, N>>(block + i) - top);
    sum += __builtin_convertvector(part, Sum);
  }
  return total<double, N>(sum);
}

template <class S>
class Take {
 public:
  using T = typename S::T;
  explicit Take(const TileCall& call) : call_(call) {}

  void run(int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) take(r);
  }

 private:
  void take(int64_t r) {
    double* const numbers = call_.numbers + 4 * r;
    if (!(numbers[0] == numbers[0])) return;  // no draw, whatever comes
    const Row<S> row = row_of(r);
    const Tempered<S> scores(row);
    Top<T> top;
    top.score = (T)numbers[0];
    RunningTop<T> running;
    running.top = (T)numbers[2];
    double sum = numbers[3];
    for (int64_t at = 0; at < call_.cols; at += kBlock) {
      const int64_t n = call_.cols - at < kBlock ? call_.cols - at : kBlock;
      top.bad |= !scores.read(x_, at, n, [&] { return top.score; },
                              [&](const T* s, int64_t first, int64_t m) { take_top<T>(top, s, first, m); });
      if (top.bad || !running.take(largest<T>(x_, n), [&](double, double f) { sum *= f; })) break;
      if (running.finite()) sum += sum_of_block<T>(x_, n, running.top);
    }
    if (top.bad) numbers[0] = __builtin_nan("");
    if (top.bad || top.column < 0) return put(numbers, running, sum);
    numbers[0] = top.score, numbers[1] = logit_at(row, top.column);
    call_.column[r] = call_.col_start + top.column;
    put(numbers, running, sum);
  }

  static void put(double* numbers, const RunningTop<T>& running, double sum) { numbers[2] = running.top, numbers[3] = sum; }

  Row<S> row_of(int64_t r) const {
    const uint64_t seed = (uint64_t)call_.seed[call_.seeds ? r : 0], id = (uint64_t)call_.ids[r];
    Row<S> row{};
    row.in = (const typename S::Raw*)call_.in + r * call_.cols;
    row.mask = call_.mask ? call_.mask + r * call_.cols : nullptr;
    row.noisy = true, row.tau = 1;
    row.stream = {{(uint32_t)seed, (uint32_t)(seed >> 32)}, (uint32_t)id, (uint32_t)(id >> 32), 0, (uint32_t)call_.col_start};
    return row;
  }

  const TileCall& call_;
  Block<T> x_;
};

}  // namespace
