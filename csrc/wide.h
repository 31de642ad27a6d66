// Rows of many columns, in parts that several threads may work on.
//
// A row has the same parts whatever the number of threads is, and its result is combined from them in their order, so
// no bit of it depends on the threads or on other rows.
#pragma once
#include "pool.h"
#include "rows.h"

namespace {

constexpr int64_t kPart = 1 << 14;  // columns; a multiple of kBlock and of kSpan

class Parts {
 public:
  explicit Parts(const Call& call) : cols_(call.cols), threads_(call.threads), count_((cols_ + kPart - 1) / kPart) {}

  int64_t count() const { return count_; }

  // Calls work(part, first, n): columns [first, first + n) are those of the part.
  template <class Work>
  INLINE void each(Work work) const {
    if (count_ > 1) return each_of_many(work);
    work(int64_t(0), int64_t(0), cols_);
  }

 private:
  template <class Work>
  void each_of_many(Work& work) const {
    struct All {
      Work& work;
      int64_t cols;
    } all{work, cols_};
    const softdraw::Chunk chunk = [](void* context, int64_t part) {
      const All& all = *(const All*)context;
      const int64_t first = part * kPart, left = all.cols - first;
      all.work(part, first, left < kPart ? left : kPart);
    };
    if (threads_ > 1) return softdraw::for_each_chunk(count_, threads_, cols_ >= softdraw::kWakeRow, chunk, &all);
    for (int64_t part = 0; part < count_; ++part) chunk(&all, part);
  }

  int64_t cols_, threads_, count_;
};

// A value of each part.
template <class Value>
class OfParts {
 public:
  explicit OfParts(const Parts& parts) : count_(parts.count()) {
    if (count_ > 1) heap_ = (Value*)__builtin_malloc(count_ * sizeof(Value));
  }
  OfParts(const OfParts&) = delete;
  ~OfParts() { __builtin_free(heap_); }

  Value& operator[](int64_t part) { return heap_ ? heap_[part] : near_; }

  // The values of all parts, the first one taking in the others.
  template <class Take>
  INLINE Value all(Take take) {
    Value value = (*this)[0];
    for (int64_t part = 1; part < count_; ++part) take(value, heap_[part]);
    return value;
  }

 private:
  int64_t count_;
  Value near_, *heap_ = nullptr;
};

// The largest score of a row, from those of its parts.
template <class T>
INLINE Top<T> top_of(OfParts<Top<T>>& tops) {
  return tops.all([](Top<T>& top, const Top<T>& next) {
    top.bad |= next.bad;
    if (next.score > top.score) top.score = next.score, top.column = next.column;
  });
}

// exp((s - top) / tau) takes the place of scores [first, end); returns their sum.
template <class T>
INLINE Vec<double, kLanes<T>> span_of(T* scores, int64_t first, int64_t end, T top, T tau) {
  constexpr int N = kLanes<T>;
  Vec<double, N> sum{};
  for (int64_t i = first; i < end; i += N) {
    const Vec<T, N> e = exp_of<T, N>((load<Vec<T, N>>(scores + i) - top) / tau);
    store(scores + i, e);
    sum += __builtin_convertvector(e, Vec<double, N>);
  }
  return sum;
}

constexpr int64_t kSpan = 128;  // columns that are summed by themselves: sums of sums lose less

// scores := exp((scores - top) / tau); returns their sum, taken in double.
template <class T>
NOINLINE double exponentials(T* scores, int64_t n, T top, T tau, const Parts& parts) {
  constexpr int N = kLanes<T>;
  using Sum = Vec<double, N>;
  Sum sum{};
  auto end_of = [](int64_t first, int64_t end) { return end - first < kSpan ? end : first + kSpan; };
  if (parts.count() == 1) {
    for (int64_t i = 0; i < n; i += kSpan) sum += span_of(scores, i, end_of(i, n), top, tau);
  } else {
    auto* spans = (double*)__builtin_malloc(round_up(n, kSpan) / kSpan * sizeof(Sum));
    parts.each([=](int64_t, int64_t first, int64_t many) {
      for (int64_t i = first; i < first + many; i += kSpan)
        store(spans + i / kSpan * N, span_of(scores, i, end_of(i, first + many), top, tau));
    });
    for (int64_t i = 0; i < n; i += kSpan) sum += load<Sum>(spans + i / kSpan * N);
    __builtin_free(spans);
  }
  return fold<double, N>(sum, [](auto a, auto b) { return a + b; });
}

}  // namespace
