// The largest scores of a row and their columns, collected while its blocks pass by.
#pragma once
#include "rows.h"

namespace {

// The k best scores so far as a heap whose root is the worst of them. Of equal scores the smaller column is the better.
template <class T>
class Best {
 public:
  explicit Best(int64_t room) : room_(room), at_((Entry*)__builtin_malloc((room + 1) * sizeof(Entry))) {}
  Best(const Best&) = delete;
  ~Best() { __builtin_free(at_); }

  void clear() { count_ = 0, bad_ = false; }
  void spoil() { bad_ = true; }  // nothing is drawn from this row

  // What a score must exceed.
  T bar() const { return count_ < room_ ? T(-__builtin_inf()) : room_ ? at_[0].score : T(__builtin_inf()); }

  // Takes scores of columns [first, first + n). What equals the worst of a full heap stays out: its column is larger.
  __attribute__((noinline)) void take(const T* scores, int64_t first, int64_t n) {
    constexpr int N = kLanes<T>;
    using Int = typename Format<T>::Int;
    using I = Vec<Int, N>;
    const auto any = [](I hit) { return fold<Int, N>(hit, [](auto a, auto b) { return a | b; }) != 0; };
    I bad{};
    for (int64_t i = 0; i < n; i += N) {
      const auto s = load<Vec<T, N>>(scores + i);
      bad |= ~(s < T(__builtin_inf()));
      if (!any(s > bar())) continue;
      for (int64_t j = i; j < i + N; ++j)
        if (scores[j] > bar()) add({scores[j], (uint32_t)(first + j)});
    }
    bad_ |= any(bad);
  }

  // The columns, best first, and -1 where there are no more.
  void give(int64_t* out, int64_t k) {
    if (bad_) count_ = 0;
    for (int64_t i = count_; i < k; ++i) out[i] = -1;
    while (count_) {
      const int64_t last = --count_;
      out[last] = at_[0].column;
      if (last) sink(at_[last]);
    }
  }

 private:
  struct Entry {
    T score;
    uint32_t column;
    bool worse_than(const Entry& other) const {
      return score != other.score ? score < other.score : column > other.column;
    }
  };

  void add(Entry entry) {
    if (count_ == room_) return sink(entry);
    int64_t i = count_++;
    for (; i && entry.worse_than(at_[(i - 1) / 2]); i = (i - 1) / 2) at_[i] = at_[(i - 1) / 2];
    at_[i] = entry;
  }

  // Puts an entry in the place of the root.
  void sink(Entry entry) {
    int64_t i = 0;
    for (int64_t child; (child = 2 * i + 1) < count_; i = child) {
      if (child + 1 < count_ && at_[child + 1].worse_than(at_[child])) ++child;
      if (!at_[child].worse_than(entry)) break;
      at_[i] = at_[child];
    }
    at_[i] = entry;
  }

  int64_t room_, count_ = 0;
  bool bad_ = false;
  Entry* at_;
};

}  // namespace
