// The C interface: what one call of an operation is told. All fields are 64 bits wide, so that a caller without this
// header can pack them in order. Every change of this file makes another ABI number (csrc/README.md): a caller that was
// written for another version of it refuses the library.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace softdraw {

enum Storage : int64_t { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };

struct Call {
  void* out;
  const void* in;       // logits; y in the soft backward; null in gumbel
  const void* grad;     // the gradient that arrives at the draw; null in a forward pass
  const uint8_t* mask;  // 1 = allowed; null: everything is
  const int64_t* seed;  // null: no noise
  const int64_t* ids;   // the id of every row; null: 0, 1, 2, ...
  const void* tau;      // one for each row, in the dtype of the computation; null: tau_value
  double tau_value;
  int64_t rows, cols;
  int64_t storage;    // of out, in and grad
  int64_t col_start;  // the global index of the first column
  int64_t stream;     // of the first sample
  int64_t samples;    // the index operation makes samples * rows draws; otherwise 1
  int64_t threads;    // at most this many work at once
};

// The caller packs seven pointers, a double and seven integers, one after the other (CALL in softdraw/kernels/native.py).
static_assert(std::is_standard_layout<Call>::value && sizeof(Call) == 15 * 8, "the fields of Call are 15 words of 64 bits");
static_assert(sizeof(void*) == 8 && offsetof(Call, tau) == 6 * 8, "pointers come first, and have 64 bits");
static_assert(sizeof(double) == 8 && offsetof(Call, tau_value) == 7 * 8, "tau_value follows the pointers");
static_assert(offsetof(Call, rows) == 8 * 8 && offsetof(Call, threads) == 14 * 8, "the integers come last");

// Where rows lie in memory when they are not simply one after the other: `layout` points to
//   n, sizes[n], then for out, in, grad, mask, seed, ids, tau: strides[n] over the batch and one over the columns,
// in elements. A null layout stands for contiguous rows, and one seed and one tau for all of them.
enum Operand { kOut, kIn, kGrad, kMask, kSeed, kIds, kTau };

// Does rows [first, last) of a call. Draws are numbered sample * rows + row.
using Operation = void (*)(const Call&, const int64_t* layout, int64_t first, int64_t last);

struct Operations {
  Operation soft, hard, index, gumbel, soft_backward, hard_backward;
};

}  // namespace softdraw
