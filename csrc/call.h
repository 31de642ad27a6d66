// The C interface: what one call of an operation is told. All fields are 64 bits wide, so that a caller without this
// header can pack them in order. Every change of this file makes another ABI number (csrc/README.md): a caller that was
// written for another version of it refuses the library.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace softdraw {

enum Storage : int64_t { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };
enum Reduction : int64_t { kNone = 0, kSum = 1, kMean = 2 };

struct Call {
  void* out;            // best: the score of each draw, in the dtype of the computation; tempered: numbers in double, of each
                        // draw and then three of each row
  const void* in;       // logits; y in the soft backward; null in gumbel
  const void* grad;     // the gradient that arrives at the draw; null in a forward pass
  const void* sample;   // the bits that were drawn, in the gradient of bits
  const uint8_t* mask;  // 1 = allowed; null: everything is
  const int64_t* seed;  // null: no noise
  const int64_t* ids;   // the id of every row; null: 0, 1, 2, ...
  const void* tau;      // one for each row, in the dtype of the computation; null: tau_value. tempered, topk: of the law
  int64_t* index;       // the category of every draw: written by index, best, tempered, topk (count of each draw) and, unless it
                        // is null, by hard; read by the rules
  double tau_value;
  double gap;  // of the gapped rule; how far soft_bits stretches its bits
  int64_t rows, cols;
  int64_t storage;    // of out, in and grad
  int64_t col_start;  // the global index of the first column
  int64_t stream;     // of the first sample
  int64_t samples;    // samples * rows draws are made, or have gradients; out, grad and index have one part for each
  int64_t threads;    // at most this many work at once
  int64_t rule;       // which gradient
  int64_t count;      // how often a Rao rule draws its noise; how many categories topk draws
  int64_t given;      // 1: the samples do not come from the noise of the seed
};

// The rules whose backward pass is an operation.
enum Rule : int64_t { kStraightThrough, kZgr, kReinMax, kGapped, kGumbelRao, kReinMaxRao };

// The caller packs nine pointers, two doubles and ten integers, one after the other (CALL in softdraw/kernels/native.py).
static_assert(std::is_standard_layout<Call>::value && sizeof(Call) == 21 * 8, "the fields of Call are 21 words of 64 bits");
static_assert(sizeof(void*) == 8 && offsetof(Call, index) == 8 * 8, "pointers come first, and have 64 bits");
static_assert(sizeof(double) == 8 && offsetof(Call, gap) == 10 * 8, "the two doubles follow the pointers");
static_assert(offsetof(Call, rows) == 11 * 8 && offsetof(Call, given) == 20 * 8, "the integers come last");

// Where rows lie in memory when they are not simply one after the other: `layout` points to
//   n, sizes[n], then for out, in, grad, mask, seed, ids, tau: strides[n] over the batch and one over the columns,
// in elements. A null layout stands for contiguous rows, and one seed and one tau for all of them. What has a part for
// each sample has them one after the other, each with these strides.
enum Operand { kOut, kIn, kGrad, kMask, kSeed, kIds, kTau };

// Does rows [first, last) of a call. Draws are numbered sample * rows + row.
using Operation = void (*)(const Call&, const int64_t* layout, int64_t first, int64_t last);

struct Operations {
  Operation soft, hard, index, gumbel, soft_backward, hard_backward, rule_backward, bits, soft_bits, bits_backward, tempered, topk, best;
};

// A tile of logits of a linear layer, some rows of a block of categories: rows follow one another and so do columns. All
// fields are 64 bits wide.
struct TileCall {
  const void* in;       // logits
  const void* other;    // turn: what arrives at the one-hot; null: nothing
  void* out;            // turn: the gradient for the logits; may be `in` itself
  const uint8_t* mask;  // 1 = allowed; null: everything is
  const int64_t* seed;  // take: one, or one for each row
  const int64_t* ids;   // take: of each row
  double* numbers;      // four for each row. take, read and written: the best score, its logit, the largest logit, the sum of
                        // exp(logit - largest). turn: what is taken off the logits, a factor of their exponentials, what is
                        // taken off the gradient, and, written, the sum of the row
  int64_t* column;      // take, read and written: the column of the best score
  double share;         // turn: the factor of `other`
  int64_t rows, cols;
  int64_t storage;
  int64_t col_start;
  int64_t seeds;  // 1: every row has its own
  int64_t threads;
};

static_assert(std::is_standard_layout<TileCall>::value && sizeof(TileCall) == 15 * 8, "15 words of 64 bits");
static_assert(offsetof(TileCall, share) == 8 * 8 && offsetof(TileCall, rows) == 9 * 8, "pointers, a double, integers");

// Does rows [first, last).
using TileOperation = void (*)(const TileCall&, int64_t first, int64_t last);

struct TileOperations {
  TileOperation take, turn;
};

}  // namespace softdraw
