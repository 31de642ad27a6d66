// The operations of tiles, compiled once for each instruction set, as the operations of kernels.cpp are and with the same
// rule: nothing here may have external linkage but the table.
#include "tile_take.h"
#include "tile_turn.h"

namespace softdraw {
namespace tiles {

template <template <class> class Body>
static void each(const TileCall& call, int64_t first, int64_t last) {
  switch (call.storage) {
    case kFloat32: return Body<Float32>(call).run(first, last);
    case kFloat64: return Body<Float64>(call).run(first, last);
    case kBFloat16: return Body<BFloat16>(call).run(first, last);
    default: return Body<Float16>(call).run(first, last);
  }
}

extern const TileOperations SOFTDRAW_ISA;
const TileOperations SOFTDRAW_ISA = {each<Take>, each<Turn>};

}  // namespace tiles
}  // namespace softdraw
