// Passes over rows of few categories: as in narrow.h, rows lie side by side in the lanes of vectors, and categories follow
// one another. Maxima and sums take no step across lanes, and the logarithms of all rows are taken together.
#pragma once
#include "narrow.h"
#include "pass_rows.h"

namespace {

// The rows of a tile. Lanes without a row repeat the first one.
struct Group {
  int64_t at[kTile];
  int count = 0;
  int64_t row(int lane) const { return at[lane < count ? lane : 0]; }
};

// A number for each row of a tile.
template <class T>
struct Lane {
  alignas(64) T at[kTile];
  T& operator[](int64_t lane) { return at[lane]; }
  template <class V = Vec<T, kLanes<T>>>
  INLINE V get(int lane) const {
    return load<V>(at + lane);
  }
  template <class V>
  INLINE void put(int lane, V v) {
    store(at + lane, v);
  }
};

// Categories of a tile: row r of category c is at c * kTile + r.
template <class T>
struct TileOf : Turned<T> {
  static constexpr int N = kLanes<T>;
  INLINE Vec<T, N> get(int64_t category, int lane) const { return load<Vec<T, N>>(this->at + category * kTile + lane); }
  INLINE void put(int64_t category, int lane, Vec<T, N> v) { store(this->at + category * kTile + lane, v); }
};

// Calls body(lane) for each vector of a tile's rows.
template <class T, class Body>
INLINE void each_lanes(Body body) {
  for (int lane = 0; lane < kTile; lane += kLanes<T>) body(lane);
}

template <class T, class S>
NOINLINE void take_tile(TileOf<T>& tile, const Source<T>& source, const Group& group) {
  using Raw = typename S::Raw;
  constexpr int N = kLanes<T>;
  const int64_t cols = source.cols();
  const auto* data = (const Raw*)source.data();
  auto row_of = [&](int r) LAMBDA_INLINE { return data + source.start(group.row(r)); };
  if constexpr (sizeof(Raw) == sizeof(T)) {
    tile.take(cols, group.count, row_of);
  } else {
    Turned<Raw> raw;
    raw.take(cols, group.count, row_of);
    for (int64_t i = 0; i < cols * kTile; i += N) store(tile.at + i, read<S, N>(raw.at + i));
  }
  if (!source.mask()) return;
  Turned<uint8_t> mask;
  mask.take(cols, group.count, [&](int r) LAMBDA_INLINE { return source.mask() + source.start(group.row(r)); });
  using I = Vec<typename Format<T>::Int, N>;
  for (int64_t i = 0; i < cols * kTile; i += N) {
    const auto allowed = __builtin_convertvector(load<Vec<uint8_t, N>>(mask.at + i), I);
    store(tile.at + i, allowed != 0 ? load<Vec<T, N>>(tile.at + i) : splat<Vec<T, N>>(kMinusInf<T>));
  }
}

template <class T, class S>
NOINLINE void give_tile(const TileOf<T>& tile, const Sink<T>& sink, const Group& group) {
  using Raw = typename S::Raw;
  constexpr int N = kLanes<T>;
  auto* data = (Raw*)sink.data();
  auto row_of = [&](int r) LAMBDA_INLINE { return data + group.row(r) * sink.cols(); };
  if constexpr (sizeof(Raw) == sizeof(T)) {
    tile.give(sink.cols(), group.count, row_of);
  } else {
    Turned<Raw> raw;
    for (int64_t i = 0; i < sink.cols() * kTile; i += N) write<S, N>(raw.at + i, load<Vec<T, N>>(tile.at + i));
    raw.give(sink.cols(), group.count, row_of);
  }
}

// The operand's rows, in the dtype of the computation.
template <class T>
INLINE void take(TileOf<T>& tile, const Source<T>& source, const Group& group) {
  if constexpr (sizeof(T) == 8) take_tile<T, Float64>(tile, source, group);
  else if (source.storage() == softdraw::kFloat32) take_tile<T, Float32>(tile, source, group);
  else if (source.storage() == softdraw::kBFloat16) take_tile<T, BFloat16>(tile, source, group);
  else take_tile<T, Float16>(tile, source, group);
}

template <class T>
INLINE void give(const TileOf<T>& tile, const Sink<T>& sink, const Group& group) {
  if constexpr (sizeof(T) == 8) give_tile<T, Float64>(tile, sink, group);
  else if (sink.storage() == softdraw::kFloat32) give_tile<T, Float32>(tile, sink, group);
  else if (sink.storage() == softdraw::kBFloat16) give_tile<T, BFloat16>(tile, sink, group);
  else give_tile<T, Float16>(tile, sink, group);
}

// The largest element of each row. False: one is +inf or NaN, or a row has none that is finite.
template <class T>
NOINLINE bool tops_of(const TileOf<T>& tile, int64_t cols, Lane<T>& top) {
  using V = Vec<T, kLanes<T>>;
  using Int = typename Format<T>::Int;
  Vec<Int, kLanes<T>> bad{};
  each_lanes<T>([&](int lane) LAMBDA_INLINE {
    V best = splat<V>(kMinusInf<T>);
    for (int64_t c = 0; c < cols; ++c) {
      const V v = tile.get(c, lane);
      best = v > best ? v : best;
      bad |= ~(v < T(__builtin_inf()));
    }
    bad |= ~(best > kMinusInf<T>);
    top.put(lane, best);
  });
  return fold<Int, kLanes<T>>(bad, [](auto a, auto b) { return a | b; }) == 0;
}

// Sums over categories in double: those of the vectors of rows that begin with `lane`.
template <class T>
struct TileSum : DoubleSum<T> {
  INLINE void give(Lane<double>& out, int lane) const {
    constexpr int M = kLanes<double>;
    store(out.at + lane, this->first);
    if (this->kParts == 2) store(out.at + lane + M, this->second);
  }
};

// log of each lane.
NOINLINE void logs_of(const Lane<double>& x, Lane<double>& log) {
  constexpr int N = kLanes<double>;
  each_lanes<double>([&](int lane) LAMBDA_INLINE { log.put(lane, -gumbel_of<double, N>(x.get(lane))); });
}

template <class T>
INLINE Lane<T> numbers_of(const T* kept, const Group& group) {
  Lane<T> made;
  for (int lane = 0; lane < kTile; ++lane) made[lane] = kept[group.row(lane)];
  return made;
}

// The same for the rows of a tile.
template <class T>
struct TileNormalizer {
  Lane<T> top, rest;
  TileNormalizer(const T* top, const T* rest, const Group& group)
      : top(numbers_of(top, group)), rest(numbers_of(rest, group)) {}
  INLINE Vec<T, kLanes<T>> operator()(Vec<T, kLanes<T>> x, int lane) const { return (x - top.get(lane)) - rest.get(lane); }
};

// The gradients that arrive at the rows of a tile.
template <class T>
INLINE Lane<T> arriving_at(const Arriving<T>& arriving, const Group& group) {
  Lane<T> made;
  for (int lane = 0; lane < kTile; ++lane) made[lane] = arriving(group.row(lane));
  return made;
}

// The rows of a pass in tiles, or by themselves: body.tile(group) and body.row(r) work, body.skip(r) writes the zeros of
// a row that does not count. What a tile gives does not depend on which rows are in it.
template <class Body>
bool each_row(const Pass& pass, Body& body, int64_t first, int64_t last) {
  const bool tiles = pass.cols <= kNarrow;
  Group group;
  for (int64_t r = first; r < last; ++r) {
    if (pass.keep && !pass.keep[r]) {
      body.skip(r);
    } else if (!tiles) {
      if (!body.row(r)) return false;
    } else {
      group.at[group.count++] = r;
      if (group.count < kTile) continue;
      if (!body.tile(group)) return false;
      group.count = 0;
    }
  }
  return group.count == 0 || body.tile(group);
}

}  // namespace
