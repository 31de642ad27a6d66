// The kernels as the live page calls them: one row of float32 logits, its draws one after the other in fixed memory.
//
// It fills softdraw::Call here, where the compiler knows the fields. So the layouts that call.h and pass.h assert, for
// callers that pack 64-bit pointers themselves, do not matter, and WebAssembly's pointers of 32 bits are no obstacle.
#include <cstddef>
#include <cstdint>
#include <type_traits>

#define static_assert(...)
#include "call.h"
#include "pass.h"
#undef static_assert
#include "kernels.cpp"

// The page has one thread.
void softdraw::for_each_chunk(int64_t count, int64_t, bool, Chunk chunk, void* context) {
  for (int64_t i = 0; i < count; ++i) chunk(context, i);
}

namespace {

constexpr int kMost = 16, kDraws = 20000;  // categories, draws

float logits[kMost], y[kMost * kDraws], grad[kMost * kDraws], dx[kMost * kDraws];
int64_t drawn[kDraws], seed_word;

softdraw::Call of(int cols, int samples, double tau, uint32_t seed) {
  softdraw::Call call{};
  seed_word = seed;
  call.in = logits, call.out = y, call.seed = &seed_word, call.tau_value = tau;
  call.rows = 1, call.cols = cols, call.samples = samples, call.threads = 1, call.count = 1;
  call.storage = softdraw::kFloat32;
  return call;
}

}  // namespace

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

EXPORT(most_categories) int most_categories() { return kMost; }
EXPORT(most_draws) int most_draws() { return kDraws; }
EXPORT(logits_at) float* logits_at() { return logits; }
EXPORT(y_at) float* y_at() { return y; }
EXPORT(grad_at) float* grad_at() { return grad; }
EXPORT(dx_at) float* dx_at() { return dx; }
EXPORT(drawn_at) int64_t* drawn_at() { return drawn; }

// y := soft draws. Sample i is stream i, as of softdraw.draw(logits, GumbelSoftmax(tau), (samples,), seed=seed).
EXPORT(soft) void soft(int cols, int samples, double tau, uint32_t seed) {
  const auto call = of(cols, samples, tau, seed);
  softdraw::wasm.soft(call, nullptr, 0, samples);
}

// y := one-hots, and drawn their categories.
EXPORT(hard) void hard(int cols, int samples, uint32_t seed) {
  auto call = of(cols, samples, 1, seed);
  call.index = drawn;
  softdraw::wasm.hard(call, nullptr, 0, samples);
}

// y := the noise of one draw.
EXPORT(gumbel) void gumbel(int cols, uint32_t seed) {
  const auto call = of(cols, 1, 1, seed);
  softdraw::wasm.gumbel(call, nullptr, 0, 1);
}

// dx := the gradient for the logits of the soft draws in y, whose own gradients are in grad.
EXPORT(soft_backward) void soft_backward(int cols, int samples, double tau) {
  auto call = of(cols, samples, tau, 0);
  call.rows = samples, call.samples = 1;
  call.seed = nullptr, call.in = y, call.grad = grad, call.out = dx;
  softdraw::wasm.soft_backward(call, nullptr, 0, samples);
}

// dx := the gradient of a rule of call.h at the categories in drawn, the draws of the same seed.
EXPORT(rule_backward) void rule_backward(int rule, int cols, int samples, double tau, double gap, int count, uint32_t seed) {
  auto call = of(cols, samples, tau, seed);
  call.grad = grad, call.out = dx, call.index = drawn;
  call.rule = rule, call.gap = gap, call.count = count;
  softdraw::wasm.rule_backward(call, nullptr, 0, samples);
}
