// Rao-Blackwellised rules: the mean of J(y) g / tau over noise given that x is the argmax of the scores, made, used and
// dropped here. With E_j iid Exp(1) and w the probabilities of the law that is conditioned,
//
//   y_j  proportional to  (1 + E_j / (E_x w_j))^(-1 / tau),  y_x to 1
//
// which is softmax(s / tau) of the conditional scores of softdraw/rules/conditional_noise.py less the largest one, s_x.
// The noise has a key of its own (conditional_key); block k of it, for a row of C columns, lies at k C ... (k + 1) C - 1.
#pragma once
#include "forward.h"

namespace {

using softdraw::Rule;

// ReinMax at tau = 1 is ZGR. It is asked of the call, because a row's last bit must not depend on its neighbours' tau.
inline Rule rule_of(const Call& call) {
  const bool plain = call.rule == softdraw::kReinMax && !call.tau && call.tau_value == 1;
  return plain ? softdraw::kZgr : (Rule)call.rule;
}

// Of a row of exponentials: 1 / sum, and the mean of g under it.
template <class T>
struct Mass {
  T scale = 0, dot = 0;
};

struct Sums {
  double total, dot;
};

template <int N>
INLINE Sums sums_of(Vec<double, N> total, Vec<double, N> dot) {
  auto plus = [](auto a, auto b) { return a + b; };
  return {fold<double, N>(total, plus), fold<double, N>(dot, plus)};
}

INLINE Sums all_of(OfParts<Sums>& parts) {
  return parts.all([](Sums& sums, const Sums& next) { sums.total += next.total, sums.dot += next.dot; });
}

template <class T>
INLINE Mass<T> mass_of(Sums all) {
  return {(T)(1 / all.total), (T)(all.dot / all.total)};
}

// Exponential noise of columns [first, first + n) of a row, n <= kBlock; writes up to the next multiple of 16.
template <class S, class T = typename S::T>
NOINLINE void exponential_block(T* e, const Stream& stream, int64_t first, int64_t n) {
  constexpr int N = kLanes<T>;
  alignas(64) uint32_t made[kBlock + kSlack];
  const uint32_t col = stream.col + (uint32_t)first;
  words_of(made, round_up(n, 16) + lead(col), col, stream);
  const uint32_t* words = made + lead(col);
  auto least = splat<Vec<uint32_t, N>>(~0u);
  for (int64_t i = 0; i < n; i += N) {
    auto x = load<Vec<uint32_t, N>>(words + i);
    least = x < least ? x : least;
    store(e + i, exponential_of<T, N>(uniform<T, N>(x, T(0.5))));
  }
  if (fold<uint32_t, N>(least, [](auto a, auto b) { return a < b ? a : b; }) >= kTail) return;
  for (int64_t i = 0; i < n; ++i)
    if (words[i] < kTail) e[i] = tail_exponential<T>(words[i], first + i, stream);
}

template <class S>
class Rao {
 public:
  using T = typename S::T;
  explicit Rao(const Call& call)
      : reinmax_(call.rule == softdraw::kReinMaxRao), given_(call.given != 0), count_(call.count), cols_(call.cols),
        pitch_(round_up(call.cols, 16)), together_(call.cols < kBlock ? kBlock / call.cols : 1), parts_(call),
        tops_(parts_), sums_(parts_) {
    if (call.rule < softdraw::kGumbelRao) return;
    memory_ = (T*)__builtin_malloc((6 * pitch_ + round_up(together_ * cols_, 16) + 16) * sizeof(T));
    s_ = memory_, sum_ = s_ + pitch_, g_ = sum_ + pitch_, inverse_ = g_ + pitch_, rest_ = inverse_ + pitch_;
    y_ = rest_ + pitch_, noise_ = y_ + pitch_;
  }
  Rao(const Rao&) = delete;
  ~Rao() { __builtin_free(memory_); }

  void run(const Row<S>& row) {
    parts_.each([&](int64_t part, int64_t first, int64_t n) {
      Top<T> top;
      load_logits(s_ + first, row, first, n);
      take_top(top, s_ + first, first, n);
      tops_[part] = top;
    });
    const Top<T> top = top_of(tops_);
    if (no_draw<S>(row, cols_, top)) return;
    take_grad(row);
    const int64_t x = *row.index;
    const bool forbidden = x >= 0 && s_[x] == T(-__builtin_inf());
    const bool own = !reinmax_ && !given_;
    if (own) take_own(row);
    if (x >= 0 && (!own || count_ > 1)) {
      condition(top.score, x);
      take_conditional(row, x, own ? count_ - 1 : count_);
    }
    give(row);
    if (forbidden) fill<S>(row.out + x, 1, 0);
  }

 private:
  static constexpr int N = kLanes<T>;
  using V = Vec<T, N>;
  using Sum = Vec<double, N>;

  INLINE int64_t left(int64_t i) const { return cols_ - i < N ? (cols_ > i ? cols_ - i : 0) : N; }

  // Calls work(i) for vectors of a part of a row; the last part ends where whole vectors do.
  template <class Work>
  INLINE void each_vector(int64_t first, int64_t n, Work work) const {
    for (int64_t i = first; i < first + round_up(n, 16); i += N) work(i);
  }
  template <class Work>
  INLINE void each_vector(Work work) const {
    parts_.each([&](int64_t, int64_t first, int64_t n) { each_vector(first, n, work); });
  }

  void take_grad(const Row<S>& row) {
    each_vector([&](int64_t i) {
      const V g = left(i) == N ? read<S, N>(row.grad + i) : read_part<S, N>(row.grad + (left(i) ? i : 0), left(i));
      store(g_ + i, load<V>(s_ + i) > T(-__builtin_inf()) ? g : V{});
      store(sum_ + i, V{});
    });
  }

  // 1 / w in two parts, since it may be too large: at most 2^60, and the logarithm of the rest. The sample's is 0, so
  // that its y is 1. ReinMax-Rao conditions on w = (p + D) / 2, and s becomes p.
  void condition(T top, int64_t x) {
    parts_.each([&](int64_t part, int64_t first, int64_t n) {
      Sum total{};
      each_vector(first, n, [&](int64_t i) {
        const V d = load<V>(s_ + i) - top;
        store(rest_ + i, d);
        total += __builtin_convertvector(exp_of<T, N>(d), Sum);
      });
      sums_[part] = sums_of<N>(total, Sum{});
    });
    const double sum = all_of(sums_).total;
    const T log_2 = T(0.69314718055994531), most = 60 * log_2, scale = (T)(1 / sum);
    const T log_sum = (reinmax_ ? log_2 : T(0)) - gumbel_of<T, N>(splat<V>((T)sum))[0];
    const auto infinite = splat<V>(T(__builtin_inf()));
    each_vector([&](int64_t i) {
      const V d = load<V>(rest_ + i), surprise = log_sum - d;
      const V bounded = surprise < most ? surprise : splat<V>(most);
      if (reinmax_) store(s_ + i, exp_of<T, N>(d) * scale);
      store(inverse_ + i, T(1) / exp_of<T, N>(-bounded));
      store(rest_ + i, surprise < infinite ? surprise - bounded : infinite);
    });
    inverse_[x] = rest_[x] = 0;
  }

  // The soft draw of the noise that made the sample.
  void take_own(const Row<S>& row) {
    parts_.each([&](int64_t part, int64_t begin, int64_t many) {
      Top<T> top;
      for (int64_t first = begin; first < begin + many; first += kBlock) {
        const int64_t left = begin + many - first, n = left < kBlock ? left : kBlock;
        score_block(y_ + first, row, first, n);
        take_top(top, y_ + first, first, n);
      }
      tops_[part] = top;
    });
    const Top<T> top = top_of(tops_);
    take_jacobian([&](int64_t i) { return (load<V>(y_ + i) - top.score) / row.tau; });
  }

  // Soft draws of the noise of so many blocks, given that x is the argmax.
  void take_conditional(const Row<S>& row, int64_t x, int64_t count) {
    const T faster = T(1) / row.tau;
    const Stream stream = conditional_stream(row.stream);
    for (int64_t block = 0; block < count; block += together_) {
      const int64_t blocks = count - block < together_ ? count - block : together_, n = blocks * cols_;
      if (together_ > 1) exponential_block<S>(noise_, stream, block * cols_, n);
      else take_noise(stream, block);
      for (int64_t b = 0; b < blocks; ++b) {
        const T* e = noise_ + b * cols_;
        const T over = T(1) / e[x];
        take_jacobian([&](int64_t i) {
          const V ratio = load<V>(e + i) * over * load<V>(inverse_ + i);
          return (gumbel_of<T, N>(ratio + T(1)) - load<V>(rest_ + i)) * faster;
        });
      }
    }
  }

  // One block of noise, that of a row by itself.
  void take_noise(const Stream& stream, int64_t block) {
    parts_.each([&](int64_t, int64_t begin, int64_t many) {
      for (int64_t at = begin; at < begin + many; at += kBlock) {
        const int64_t left = begin + many - at;
        exponential_block<S>(noise_ + at, stream, block * cols_ + at, left < kBlock ? left : kBlock);
      }
    });
  }

  // All rows of a call share their key, as a rule: it is made again where another one comes.
  Stream conditional_stream(Stream stream) {
    if (stream.key.low != seed_.low || stream.key.high != seed_.high || !made_) {
      seed_ = stream.key;
      key_ = conditional_key(seed_);
      made_ = true;
    }
    stream.key = key_;
    return stream;
  }

  // sum += J(y) g, for y proportional to exp(exponent).
  template <class Exponent>
  INLINE void take_jacobian(Exponent exponent) {
    parts_.each([&](int64_t part, int64_t first, int64_t n) {
      Sum total{}, dot{};
      each_vector(first, n, [&](int64_t i) {
        const V y = exp_of<T, N>(exponent(i));
        store(y_ + i, y);
        total += __builtin_convertvector(y, Sum);
        dot += __builtin_convertvector(y * load<V>(g_ + i), Sum);
      });
      sums_[part] = sums_of<N>(total, dot);
    });
    const Mass<T> mass = mass_of<T>(all_of(sums_));
    each_vector([&](int64_t i) {
      store(sum_ + i, load<V>(sum_ + i) + load<V>(y_ + i) * mass.scale * (load<V>(g_ + i) - mass.dot));
    });
  }

  // The mean of the sum over tau; for ReinMax-Rao twice that, less J(p) g / 2.
  void give(const Row<S>& row) {
    const T count = (T)count_;
    const T mean = reinmax_ ? mean_of_grad() : T(0);
    each_vector([&](int64_t i) {
      if (i >= cols_) return;
      V dx = load<V>(sum_ + i) / count / row.tau;
      if (reinmax_) dx = T(2) * dx - T(0.5) * load<V>(s_ + i) * (load<V>(g_ + i) - mean);
      if (left(i) == N) write<S, N>(row.out + i, dx);
      else write_part<S, N>(row.out + i, left(i), dx);
    });
  }

  // <p, g>, where s is p.
  T mean_of_grad() {
    parts_.each([&](int64_t part, int64_t first, int64_t n) {
      Sum dot{};
      each_vector(first, n, [&](int64_t i) { dot += __builtin_convertvector(load<V>(s_ + i) * load<V>(g_ + i), Sum); });
      sums_[part] = sums_of<N>(Sum{}, dot);
    });
    return (T)all_of(sums_).dot;
  }

  bool reinmax_, given_, made_ = false;
  Key seed_{}, key_{};
  int64_t count_, cols_, pitch_, together_;
  Parts parts_;
  OfParts<Top<T>> tops_;
  OfParts<Sums> sums_;
  // Of a row: scores, the sum, the gradient, 1 / w in two parts, a draw; and the noise of the blocks made together.
  T *memory_ = nullptr, *s_, *sum_, *g_, *inverse_, *rest_, *y_, *noise_;
};

}  // namespace
