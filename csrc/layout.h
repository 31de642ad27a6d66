// Where each row of each operand lies in memory, and the copies that bring strided rows together.
#pragma once
#include "call.h"
#include "rows.h"

namespace {

using softdraw::Call;
using softdraw::Operand;

class Layout {
 public:
  Layout(const Call& call, const int64_t* packed) : cols_(call.cols), packed_(packed), n_(packed ? packed[0] : 0) {}

  // In elements, from the start of the operand to the row's first element.
  int64_t offset(Operand operand, int64_t row) const {
    if (!packed_) return operand == softdraw::kIds ? row : operand >= softdraw::kSeed ? 0 : row * cols_;
    const int64_t *sizes = packed_ + 1, *strides = strides_of(operand);
    int64_t at = 0;
    for (int64_t d = n_ - 1; d >= 0; --d) {
      at += row % sizes[d] * strides[d];
      row /= sizes[d];
    }
    return at;
  }

  // Between one column and the next.
  int64_t step(Operand operand) const { return packed_ ? strides_of(operand)[n_] : 1; }
  bool one_seed() const {
    if (!packed_) return true;
    for (int64_t d = 0; d < n_; ++d)
      if (strides_of(softdraw::kSeed)[d] != 0) return false;
    return true;
  }

 private:
  const int64_t* strides_of(Operand operand) const { return packed_ + 1 + n_ + operand * (n_ + 1); }

  int64_t cols_;
  const int64_t* packed_;
  int64_t n_;
};

constexpr int kMaxRows = 64;  // in a group of rows that are worked on together

// Gathers rows of an operand whose columns are not next to each other into a contiguous copy, and scatters the copy back.
// The inner loop runs over whichever has the smaller stride, columns or rows: so each cache line is loaded once.
template <class Raw>
class Stage {
 public:
  Stage(const Layout& layout, Operand operand, const void* data, int64_t cols, int rows)
      : layout_(layout), operand_(operand), data_((Raw*)data), cols_(cols), pitch_(round_up(cols, 16) + 16) {
    if (data && layout.step(operand) != 1) copy_ = (Raw*)__builtin_malloc(rows * pitch_ * sizeof(Raw));
  }
  Stage(const Stage&) = delete;
  ~Stage() { __builtin_free(copy_); }

  void place(int64_t first_row, int count, int64_t part = 0) {
    count_ = count;
    if (!data_) return;
    for (int r = 0; r < count; ++r) offsets_[r] = part + layout_.offset(operand_, first_row + r);
  }
  Raw* row(int r) const { return copy_ ? copy_ + r * pitch_ : data_ ? data_ + offsets_[r] : nullptr; }
  void gather() const {
    each([](Raw& copy, Raw& original) { copy = original; });
  }
  void scatter() const {
    each([](Raw& copy, Raw& original) { original = copy; });
  }

 private:
  template <class Move>
  void each(Move move) const {
    if (!copy_) return;
    const int64_t step = layout_.step(operand_);
    const bool columns_first = count_ == 1 || magnitude(step) < magnitude(offsets_[1] - offsets_[0]);
    for (int64_t i = 0; i < (columns_first ? count_ : cols_); ++i)
      for (int64_t j = 0; j < (columns_first ? cols_ : count_); ++j) {
        int64_t r = columns_first ? i : j, k = columns_first ? j : i;
        move(copy_[r * pitch_ + k], data_[offsets_[r] + k * step]);
      }
  }
  static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

  const Layout& layout_;
  Operand operand_;
  Raw *data_, *copy_ = nullptr;
  int64_t cols_, pitch_, offsets_[kMaxRows];
  int count_ = 0;
};

}  // namespace
