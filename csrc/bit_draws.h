// Bits: categorical laws of two categories with logits 0 and theta, worked on as one logit each. Their noise is that of
// two categories: b = [theta + G_1 > G_0]. All operands are contiguous; ids and tau may be one for each bit.
//
// Gradients, with p = sigmoid(theta), q = sigmoid(theta / tau), v(y) = y (1 - y) and the gradient g that arrives:
//
//   straight-through   v(q) g / tau
//   ZGR                (b (1 - p) + (1 - b) p) g / 2
//   ReinMax            2 v((q + b) / 2) g - v(p) g / 2
//   gapped             v(sigmoid(d / tau)) g / tau, where d = max(theta, gap) for b = 1, else min(theta - max(theta, 0), -gap)
//   Gumbel-Rao         the mean of v(y_k) g / tau over noise given b; ReinMax-Rao twice that less v(p) g / 2
#pragma once
#include "rao.h"

namespace {

template <class S>
class BitsBlock {
 public:
  using T = typename S::T;
  using Raw = typename S::Raw;
  static constexpr int N = kLanes<T>;
  using V = Vec<T, N>;
  using I = Vec<typename Format<T>::Int, N>;
  explicit BitsBlock(const Call& call) : call_(call) {}

 protected:
  static constexpr int64_t kBits = 256;  // at a time; a multiple of kPair and of the lanes
  static constexpr int64_t kRoom = kBits;

  // Calls work(sample, bit, n) for runs of bits of one sample.
  template <class Work>
  void each_run(int64_t first, int64_t last, Work work) {
    for (int64_t draw = first; draw < last;) {
      const int64_t sample = draw / call_.rows, bit = draw % call_.rows;
      int64_t n = last - draw < call_.rows - bit ? last - draw : call_.rows - bit;
      n = n < kBits ? n : kBits;
      work(sample, bit, n);
      draw += n;
    }
  }

  // theta of a run, -inf where 1 is forbidden; zeros up to a whole vector.
  void take_theta(int64_t bit, int64_t n) {
    const Raw* in = (const Raw*)call_.in + bit;
    for (int64_t i = 0; i < n; i += N) {
      V x = n - i < N ? read_part<S, N>(in + i, n - i) : read<S, N>(in + i);
      if (call_.mask) {
        using Bytes = Vec<uint8_t, N>;
        const uint8_t* mask = call_.mask + bit + i;
        auto allowed = __builtin_convertvector(n - i < N ? load_part<Bytes>(mask, n - i) : load<Bytes>(mask), I);
        x = allowed != 0 ? x : splat<V>(T(-__builtin_inf()));
      }
      store(theta_ + i, x);
    }
  }

  // Words of columns 4 c ... 4 c + 3 of every bit of a run, or the first two of each four.
  template <int kWords>
  void take_words(Key key, int64_t sample, int64_t bit, int64_t n, int64_t c) {
    const Schedule keys(key);
    const uint32_t stream = (uint32_t)(call_.stream + sample);
    uint64_t high = id_of(bit) >> 32;
    SecondWords words(key, (uint32_t)c, (uint32_t)high, stream);
    for (int64_t group = 0; group < n; group += kPair) {
      Lanes id[2];
      if (take_ids(id, bit, group, n, high)) words.template philox<kWords>(&words_[0][0] + group, kRoom, id, keys);
      else any_words(group, id, c, stream, keys);
    }
  }

  // The ids of a group; says whether `high` is the high half of all.
  INLINE bool take_ids(Lanes (&id)[2], int64_t bit, int64_t group, int64_t n, uint64_t high) const {
    if (!call_.ids) {
      const uint64_t first = (uint64_t)(bit + group);
      for (int i = 0; i < kCounters; ++i) id[0][i] = i;
      id[0] += first, id[1] = id[0] + (uint64_t)kCounters;
      return first >> 32 == high && (first + kPair - 1) >> 32 == high;
    }
    uint64_t other = 0;
    for (int i = 0; i < kPair; ++i) {
      const uint64_t own = (uint64_t)call_.ids[bit + (group + i < n ? group + i : 0)];
      id[i / kCounters][i % kCounters] = own;
      other |= own >> 32 ^ high;
    }
    return other == 0;
  }

  // All four words of ids of any size.
  void any_words(int64_t group, const Lanes (&id)[2], int64_t c, uint32_t stream, const Schedule& keys) {
    Counter counter[2];
    for (int half = 0; half < 2; ++half)
      counter[half] = {splat<Lanes>((uint64_t)c), id[half] & 0xFFFFFFFFull, id[half] >> 32, splat<Lanes>((uint64_t)stream)};
    alignas(64) uint32_t made[4 * kPair];
    philox_by_word(made, counter, keys, keys);
    for (int k = 0; k < 4; ++k)
      for (int i = 0; i < kPair; ++i) words_[k][group + i] = made[k * kPair + i];
  }

  uint64_t id_of(int64_t bit) const { return call_.ids ? (uint64_t)call_.ids[bit] : (uint64_t)bit; }

  Key key() const {
    const uint64_t seed = (uint64_t)call_.seed[0];
    return {(uint32_t)seed, (uint32_t)(seed >> 32)};
  }

  Stream stream_of(Key key, int64_t sample, int64_t bit) const {
    const uint64_t id = id_of(bit);
    return {key, (uint32_t)id, (uint32_t)(id >> 32), (uint32_t)(call_.stream + sample), 0};
  }

  // scores_[0] and scores_[1]: those of 0 and 1. A bit that is certain (theta = inf) has -inf for 0.
  void take_scores(int64_t sample, int64_t bit, int64_t n) {
    take_words<2>(key(), sample, bit, n, 0);
    for (int64_t i = 0; i < n; i += N) {
      const V x = load<V>(theta_ + i);
      const I always = x == T(__builtin_inf());
      store(scores_[0] + i, always != 0 ? splat<V>(T(-__builtin_inf())) : V{});
      store(scores_[1] + i, always != 0 ? V{} : x);
    }
    for (int c = 0; c < 2; ++c) {
      T* s = scores_[c];
      if (!add_noise(s, words_[c], round_up(n, kPair))) continue;
      for (int64_t i = 0; i < n; ++i) {
        if (words_[c][i] >= kTail) continue;
        const bool always = theta_[i] == T(__builtin_inf());
        const T logit = c == 0 ? (always ? T(-__builtin_inf()) : T(0)) : (always ? T(0) : theta_[i]);
        s[i] = tail_score(logit, words_[c][i], c, stream_of(key(), sample, bit + i));
      }
    }
  }

  INLINE V tau_of(int64_t bit, int64_t i, int64_t n) const {
    if (!call_.tau) return splat<V>((T)call_.tau_value);
    const T* taus = (const T*)call_.tau + bit + i;
    if (n - i >= N) return load<V>(taus);
    V tau = splat<V>(T(1));
    for (int k = 0; k < n - i; ++k) tau[k] = taus[k];
    return tau;
  }

  static INLINE V magnitude(V x) { return x < 0 ? -x : x; }

  // exp(-|x|), of which sigmoid(x) and its slope are made.
  static INLINE V decay(V x) { return exp_of<T, N>(-magnitude(x)); }
  static INLINE V sigmoid(V x, V e) { return (x < 0 ? e : splat<V>(T(1))) / (T(1) + e); }

  const Call& call_;
  alignas(64) T theta_[kRoom], scores_[2][kRoom];
  alignas(64) uint32_t words_[4][kRoom];
};

template <class S>
class Bits : BitsBlock<S> {
 public:
  using Base = BitsBlock<S>;
  using T = typename Base::T;
  using V = typename Base::V;
  using Raw = typename Base::Raw;
  static constexpr int N = Base::N;
  using Base::Base;

  void run(int64_t first, int64_t last) {
    this->each_run(first, last, [&](int64_t sample, int64_t bit, int64_t n) {
      this->take_theta(bit, n);
      this->take_scores(sample, bit, n);
      Raw* out = (Raw*)this->call_.out + sample * this->call_.rows + bit;
      const V one = splat<V>(T(1)), nan = splat<V>(T(__builtin_nan("")));
      for (int64_t i = 0; i < n; i += N) {
        const V x = load<V>(this->theta_ + i);
        V b = load<V>(this->scores_[1] + i) > load<V>(this->scores_[0] + i) ? one : V{};
        b = x == x ? b : nan;
        if (n - i < N) write_part<S, N>(out + i, n - i, b);
        else write<S, N>(out + i, b);
      }
    });
  }
};

// The bit relaxed, y = sigmoid((theta + G_1 - G_0) / tau), which is above a half where the bit is 1; with a gap c stretched
// from (0, 1) to (-c, 1 + c) and clipped, as hard-concrete gates are.
template <class S>
class SoftBits : BitsBlock<S> {
 public:
  using Base = BitsBlock<S>;
  using T = typename Base::T;
  using V = typename Base::V;
  using Raw = typename Base::Raw;
  static constexpr int N = Base::N;
  using Base::Base;

  void run(int64_t first, int64_t last) {
    this->each_run(first, last, [&](int64_t sample, int64_t bit, int64_t n) {
      this->take_theta(bit, n);
      this->take_scores(sample, bit, n);
      Raw* out = (Raw*)this->call_.out + sample * this->call_.rows + bit;
      const T c = (T)this->call_.gap;
      for (int64_t i = 0; i < n; i += N) {
        const V x = load<V>(this->theta_ + i);
        const V d = (load<V>(this->scores_[1] + i) - load<V>(this->scores_[0] + i)) / this->tau_of(bit, i, n);
        const V y = this->sigmoid(d, this->decay(d)) * (T(1) + T(2) * c) - c;
        const V inside = y < 0 ? V{} : y > T(1) ? splat<V>(T(1)) : y, z = x == x ? inside : x;
        if (n - i < N) write_part<S, N>(out + i, n - i, z);
        else write<S, N>(out + i, z);
      }
    });
  }
};

template <class S>
class BitsBackward : BitsBlock<S> {
 public:
  using Base = BitsBlock<S>;
  using T = typename Base::T;
  using V = typename Base::V;
  using I = typename Base::I;
  using Raw = typename Base::Raw;
  static constexpr int N = Base::N;
  using Base::decay;
  using Base::sigmoid;
  using Base::tau_of;
  explicit BitsBackward(const Call& call)
      : Base(call), rule_(rule_of(call)), own_(rule_ == softdraw::kGumbelRao && !call.given), gap_((T)call.gap) {}

  void run(int64_t first, int64_t last) {
    this->each_run(first, last, [&](int64_t sample, int64_t bit, int64_t n) {
      this->take_theta(bit, n);
      const int64_t at = sample * this->call_.rows + bit;
      for (int64_t i = 0; i < n; i += N) store(b_ + i, some((const Raw*)this->call_.sample + at, i, n));
      if (rule_ >= softdraw::kGumbelRao) take_rao(sample, bit, n);
      Raw* out = (Raw*)this->call_.out + at;
      for (int64_t i = 0; i < n; i += N) {
        const V x = load<V>(this->theta_ + i), g = some((const Raw*)this->call_.grad + at, i, n);
        const I certain = (x == T(__builtin_inf())) | (x == T(-__builtin_inf()));
        V dx = slope(i, x, load<V>(b_ + i), tau_of(bit, i, n)) * g;
        dx = certain != 0 ? V{} : x == x ? dx : x;
        if (n - i < N) write_part<S, N>(out + i, n - i, dx);
        else write<S, N>(out + i, dx);
      }
    });
  }

 private:
  static INLINE V some(const Raw* p, int64_t i, int64_t n) {
    return n - i < N ? read_part<S, N>(p + i, n - i) : read<S, N>(p + i);
  }

  static INLINE V slope_of(V e) { return e / ((T(1) + e) * (T(1) + e)); }

  // What the gradient is multiplied with.
  INLINE V slope(int64_t i, V x, V b, V tau) const {
    const I one = b > T(0);
    switch (rule_) {
      case softdraw::kStraightThrough: return slope_of(decay(x / tau)) / tau;
      case softdraw::kZgr: {
        const V e = decay(x), p = sigmoid(x, e), not_p = sigmoid(-x, e);
        return (one != 0 ? not_p : p) * T(0.5);
      }
      case softdraw::kReinMax: {
        const V q = sigmoid(x / tau, decay(x / tau)), not_q = sigmoid(-x / tau, decay(x / tau));
        const V middle = one != 0 ? (q + T(1)) * not_q : q * (not_q + T(1));  // 4 m (1 - m), m = (q + b) / 2
        return T(0.5) * (middle - slope_of(decay(x)));
      }
      case softdraw::kGapped: {
        const V top = x > 0 ? x : V{}, gap = splat<V>(gap_);
        const V up = top > gap ? top : gap, off = x - top < -gap ? x - top : -gap;
        return slope_of(decay((one != 0 ? up : off) / tau)) / tau;
      }
      case softdraw::kGumbelRao: return load<V>(sum_ + i) / (T)this->call_.count / tau;
      default: return T(2) * (load<V>(sum_ + i) / (T)this->call_.count / tau) - T(0.5) * slope_of(decay(x));
    }
  }

  // sum_ := the sum of v(y) over the noise.
  void take_rao(int64_t sample, int64_t bit, int64_t n) {
    for (int64_t i = 0; i < n; i += N) store(sum_ + i, V{});
    if (own_) {
      this->take_scores(sample, bit, n);
      for (int64_t i = 0; i < n; i += N) {
        const V d = (load<V>(this->scores_[1] + i) - load<V>(this->scores_[0] + i)) / tau_of(bit, i, n);
        store(sum_ + i, slope_of(decay(d)));
      }
    }
    const bool reinmax = rule_ == softdraw::kReinMaxRao;
    const int64_t count = own_ ? this->call_.count - 1 : this->call_.count;
    const Key key = conditional_key(this->key());
    for (int64_t block = 0; block < count; ++block) {
      if (block % 2 == 0) this->template take_words<4>(key, sample, bit, n, block / 2);
      take_block(key, sample, bit, n, block, reinmax);
    }
  }

  // With E of the two categories and w of the one that was not drawn, y of that one is in proportion to
  // (1 + E / (E_drawn w))^(-1 / tau), which is exp(-|.|) of the relaxed bit.
  void take_block(Key key, int64_t sample, int64_t bit, int64_t n, int64_t block, bool reinmax) {
    for (int c = 0; c < 2; ++c) {
      const uint32_t* words = this->words_[2 * (block % 2) + c];
      for (int64_t i = 0; i < n; i += N)
        store(this->scores_[c] + i, exponential_of<T, N>(uniform<T, N>(load<Vec<uint32_t, N>>(words + i), T(0.5))));
      for (int64_t i = 0; i < n; ++i)
        if (words[i] < kTail)
          this->scores_[c][i] = tail_exponential<T>(words[i], 2 * block + c, this->stream_of(key, sample, bit + i));
    }
    for (int64_t i = 0; i < n; i += N) {
      const I one = load<V>(b_ + i) > T(0);
      const V e0 = load<V>(this->scores_[0] + i), e1 = load<V>(this->scores_[1] + i), x = load<V>(this->theta_ + i);
      const V a = one != 0 ? x : -x;  // -log w = log(1 + exp(a)), and log 2 more for ReinMax-Rao
      const V surprise = (a > 0 ? a : V{}) - gumbel_of<T, N>(T(1) + decay(a)) + (reinmax ? T(0.69314718055994531) : T(0));
      const V most = splat<V>(60 * T(0.69314718055994531)), bounded = surprise < most ? surprise : most;
      const V ratio = (one != 0 ? e0 / e1 : e1 / e0) / exp_of<T, N>(-bounded);
      const V y = exp_of<T, N>((gumbel_of<T, N>(ratio + T(1)) - (surprise - bounded)) / tau_of(bit, i, n));
      store(sum_ + i, load<V>(sum_ + i) + slope_of(y));
    }
  }

  Rule rule_;
  bool own_;
  T gap_;
  alignas(64) T b_[Base::kRoom], sum_[Base::kRoom];
};

}  // namespace
