// The draws: soft, hard, index; and the noise itself.
#pragma once
#include "layout.h"
#include "narrow.h"
#include "wide.h"

namespace {

// A row of scores: the output itself where it can hold them, else a buffer of this thread's.
template <class S>
class Scores {
 public:
  using T = typename S::T;
  explicit Scores(int64_t cols) : cols_(cols) {
    if (cols > kBlock) heap_ = (T*)__builtin_malloc((round_up(cols, 16)) * sizeof(T));
  }
  Scores(const Scores&) = delete;
  ~Scores() { __builtin_free(heap_); }

  T* of(const Row<S>& row) {
    if (sizeof(T) == sizeof(typename S::Raw) && cols_ % 16 == 0) return (T*)row.out;
    return own();
  }
  T* own() { return heap_ ? heap_ : near_; }
  T* block() { return near_; }

 private:
  int64_t cols_;
  T* heap_ = nullptr;
  alignas(64) T near_[kBlock + kSlack];
};

// Words for rows of `pitch` (a multiple of 16) columns, one row after the other.
template <class S>
NOINLINE void words_of_rows(uint32_t* out, const Row<S>* rows, int64_t count, int64_t pitch) {
  constexpr int64_t room = kBlock / 4 + kPair;
  alignas(64) uint64_t c0[room], c1[room], c2[room], c3[room];
  Lanes start{};
  for (int i = 0; i < kCounters; ++i) start[i] = i;
  int64_t n = 0;
  for (int64_t r = 0; r < count; ++r, n += pitch / 4) {
    const Stream& s = rows[r].stream;
    Lanes block = start + (uint64_t)(s.col >> 2);
    // The last vector may reach beyond the row; the next row then writes its own counters over that part.
    for (int64_t i = 0; i < pitch / 4; i += kCounters, block += (uint64_t)kCounters) {
      store(c0 + n + i, block);
      store(c1 + n + i, splat<Lanes>((uint64_t)s.row_low));
      store(c2 + n + i, splat<Lanes>((uint64_t)s.row_high));
      store(c3 + n + i, splat<Lanes>((uint64_t)s.stream));
    }
  }
  for (int64_t i = n; i < round_up(n, kPair); ++i) c0[i] = c1[i] = c2[i] = c3[i] = 0;
  const Schedule keys(rows[0].stream.key);
  auto counter = [&](int64_t i) {
    return Counter{load<Lanes>(c0 + i), load<Lanes>(c1 + i), load<Lanes>(c2 + i), load<Lanes>(c3 + i)};
  };
  for (int64_t i = 0; i < n; i += kPair) philox(out + 4 * i, counter(i), counter(i + kCounters), keys);
}

// Scores every row and hands it with its maximum to Finish. Narrow rows are worked on in tiles; short ones share a block
// of noise, long ones take several.
template <class S, class Finish>
class Draw {
 public:
  static constexpr bool kDense = Finish::kDense;
  static bool tiles(int64_t cols) { return narrow(cols); }
  using T = typename S::T;
  explicit Draw(const Call& call)
      : cols_(call.cols), parts_(call), tops_(parts_), scores_(Finish::kKeepsScores ? call.cols : 0) {}

  void run(const Row<S>* rows, int64_t count) {
    if (narrow(cols_)) {  // however few rows there are: a draw's last bit must not depend on its batch
      for (int64_t r = 0; r < count; r += kTile) {
        Tile<S> tile(rows + r, count - r < kTile ? (int)(count - r) : kTile, cols_);
        tile.score();
        tile.take_tops();
        Finish::finish(tile);
      }
    } else if (cols_ <= kShort) {
      const int64_t pitch = round_up(cols_ + lead(rows[0].stream.col), 16), fit = kBlock / pitch;
      for (int64_t r = 0; r < count; r += fit) together(rows + r, count - r < fit ? count - r : fit, pitch);
    } else {
      for (int64_t r = 0; r < count; ++r) alone(rows[r]);
    }
  }

 private:
  static constexpr int64_t kShort = 256;

  void alone(const Row<S>& row) {
    T* s = Finish::kKeepsScores ? scores_.of(row) : nullptr;
    parts_.each([&](int64_t part, int64_t begin, int64_t many) {
      alignas(64) T near[kBlock + kSlack];
      Top<T> top;
      for (int64_t first = begin; first < begin + many; first += kBlock) {
        const int64_t left = begin + many - first, n = left < kBlock ? left : kBlock;
        T* block = s ? s + first : near;
        score_block(block, row, first, n);
        take_top(top, block, first, n);
      }
      tops_[part] = top;
    });
    Finish::finish(row, s, cols_, top_of(tops_), parts_);
  }

  void together(const Row<S>* rows, int64_t count, int64_t pitch) {
    T* s = scores_.block();
    for (int64_t r = 0; r < count; ++r) load_logits(s + r * pitch, rows[r], 0, cols_);
    if (rows[0].noisy) {
      alignas(64) uint32_t made[kBlock + kSlack];
      words_of_rows(made, rows, count, pitch);
      for (int i = 0; i < lead(rows[0].stream.col); ++i) made[count * pitch + i] = ~0u;
      const uint32_t* words = made + lead(rows[0].stream.col);
      if (add_noise(s, words, count * pitch))
        for (int64_t r = 0; r < count; ++r) mend_tails(s + r * pitch, words + r * pitch, rows[r], 0, cols_);
    }
    for (int64_t r = 0; r < count; ++r) {
      Top<T> top;
      take_top(top, s + r * pitch, 0, cols_);
      Finish::finish(rows[r], s + r * pitch, cols_, top, parts_);
    }
  }

  int64_t cols_;
  Parts parts_;
  OfParts<Top<T>> tops_;
  Scores<S> scores_;
};

// A row that has no draw: NaN where the logits say so, zero where nothing is allowed.
template <class S, class T = typename S::T>
INLINE bool no_draw(const Row<S>& row, int64_t n, const Top<T>& top) {
  if (!top.bad && top.column >= 0) return false;
  fill<S>(row.out, n, top.bad ? T(__builtin_nan("")) : T(0));
  return true;
}

template <class S, class T = typename S::T>
INLINE void give_index(const Row<S>& row, const Top<T>& top) {
  if (row.index) *row.index = top.bad ? -1 : top.column;
}

template <class S>
struct SoftFinish {
  using T = typename S::T;
  static constexpr bool kDense = true, kKeepsScores = true;
  static INLINE void finish(Tile<S>& tile) {
    tile.soften();
    tile.give();
  }
  static INLINE void finish(const Row<S>& row, T* s, int64_t n, const Top<T>& top, const Parts& parts) {
    if (no_draw<S>(row, n, top)) return;
    const T scale = (T)(1 / exponentials(s, n, top.score, row.tau, parts));
    parts.each([&](int64_t, int64_t first, int64_t m) { write_scaled<S>(row.out + first, s + first, m, scale); });
  }
};

template <class S>
struct HardFinish {
  using T = typename S::T;
  static constexpr bool kDense = true, kKeepsScores = false;
  static INLINE void finish(Tile<S>& tile) {
    tile.harden();
    tile.give();
    tile.give_index();
  }
  static INLINE void finish(const Row<S>& row, T*, int64_t n, const Top<T>& top, const Parts& parts) {
    give_index(row, top);
    if (no_draw<S>(row, n, top)) return;
    parts.each([&](int64_t, int64_t first, int64_t m) { fill<S>(row.out + first, m, 0); });
    row.out[top.column] = S::template narrow<4>(Vec<T, 4>{1})[0];
  }
};

template <class S>
struct IndexFinish {
  using T = typename S::T;
  static constexpr bool kDense = false, kKeepsScores = false;
  static INLINE void finish(Tile<S>& tile) {
    tile.give_index();
  }
  static INLINE void finish(const Row<S>& row, T*, int64_t, const Top<T>& top, const Parts&) {
    give_index(row, top);
  }
};

// The index and its score: of a row in which nothing is allowed -1 and -inf, of one with NaN or +inf -1 and NaN. Blocks of a
// wider row come together by these: their scores are those of the whole row, bit for bit.
template <class S>
struct LeaderFinish {
  using T = typename S::T;
  static constexpr bool kDense = false, kKeepsScores = false;
  static INLINE void finish(Tile<S>& tile) {
    tile.give_index();
    tile.give_score();
  }
  static INLINE void finish(const Row<S>& row, T*, int64_t, const Top<T>& top, const Parts&) {
    give_index(row, top);
    *(T*)row.out = top.bad ? T(__builtin_nan("")) : top.score;
  }
};

template <class S>
using Soft = Draw<S, SoftFinish<S>>;
template <class S>
using Hard = Draw<S, HardFinish<S>>;
template <class S>
using Index = Draw<S, IndexFinish<S>>;
template <class S>
using Leader = Draw<S, LeaderFinish<S>>;

// Noise alone.
template <class S>
class Gumbel {
 public:
  using T = typename S::T;
  static constexpr bool kDense = true;
  static bool tiles(int64_t cols) { return narrow(cols); }
  explicit Gumbel(const Call& call) : parts_(call) {}

  void run(const Row<S>* rows, int count) {
    for (int r = 0; r < count; ++r)
      parts_.each([&](int64_t, int64_t begin, int64_t many) {
        alignas(64) T block[kBlock + kSlack];
        for (int64_t first = begin; first < begin + many; first += kBlock) {
          const int64_t left = begin + many - first, n = left < kBlock ? left : kBlock;
          score_block(block, rows[r], first, n);
          write_scaled<S>(rows[r].out + first, block, n, T(1));
        }
      });
  }

 private:
  Parts parts_;
};

}  // namespace
