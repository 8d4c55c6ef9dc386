#include "kernels/tile_map.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstring>

namespace penstock {
namespace {

static_assert(sizeof(TileMap) == sizeof(CUtensorMap) && alignof(TileMap) == alignof(CUtensorMap));

using Encode = decltype(&cuTensorMapEncodeTiled);

// Through the runtime, so that a program starts where no driver is.
Encode DriverEncode() {
  static const Encode encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                               12000, cudaEnableDefault, &found);
    const bool ok = error == cudaSuccess && found == cudaDriverEntryPointSuccess;
    return ok ? reinterpret_cast<Encode>(function) : nullptr;
  }();
  return encode;
}

// Sizes in elements, innermost first; byte strides of the dimensions after it.
bool EncodeMap(const void* base, int dimensions, const cuuint64_t* sizes, const cuuint64_t* strides,
               const cuuint32_t* box, TileMap* map) {
  if (DriverEncode() == nullptr) return false;
  const cuuint32_t every[5] = {1, 1, 1, 1, 1};
  CUtensorMap encoded;
  const CUresult result = DriverEncode()(
      &encoded, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, dimensions, const_cast<void*>(base), sizes,
      strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) return false;
  std::memcpy(map->bytes, &encoded, sizeof encoded);
  return true;
}

// weight [matrices, rows, n]: boxes of box_rows rows.
bool EncodeRows(const void* weight, std::int64_t matrices, std::int64_t rows, std::int64_t n,
                cuuint32_t box_rows, TileMap* map) {
  if (n % 8 != 0) return false;
  const cuuint64_t row = n * 2;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(n), static_cast<cuuint64_t>(rows),
                              static_cast<cuuint64_t>(matrices)};
  const cuuint64_t strides[] = {row, row * rows};
  const cuuint32_t box[] = {64, box_rows, 1};
  return EncodeMap(weight, 3, sizes, strides, box, map);
}

// weight [matrices, 2, width, n]: boxes of four groups, each of `group` rows of either half.
bool EncodeGated(const void* weight, std::int64_t matrices, std::int64_t width, std::int64_t n,
                 cuuint32_t group, TileMap* map) {
  if (n % 8 != 0 || width % group != 0) return false;
  const cuuint64_t row = n * 2;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(n), group, 2,
                              static_cast<cuuint64_t>(width / group),
                              static_cast<cuuint64_t>(matrices)};
  const cuuint64_t strides[] = {row, row * width, row * group, row * width * 2};
  const cuuint32_t box[] = {64, group, 2, 4, 1};
  return EncodeMap(weight, 5, sizes, strides, box, map);
}

}  // namespace

bool MakeTileMap(const void* weight, std::int64_t matrices, std::int64_t rows, std::int64_t n,
                 TileMap* map) {
  return EncodeRows(weight, matrices, rows, n, 64, map);
}

bool MakeGatedTileMap(const void* weight, std::int64_t matrices, std::int64_t width, std::int64_t n,
                      TileMap* map) {
  return EncodeGated(weight, matrices, width, n, 8, map);
}

bool MakeGroupedMap(const void* weight, std::int64_t matrices, std::int64_t rows, std::int64_t n,
                    TileMap* map) {
  return EncodeRows(weight, matrices, rows, n, 128, map);
}

bool MakeGroupedGatedMap(const void* weight, std::int64_t matrices, std::int64_t width,
                         std::int64_t n, TileMap* map) {
  return EncodeGated(weight, matrices, width, n, 16, map);
}

bool MakeRowMap(const void* x, std::int64_t rows, std::int64_t slices, std::int64_t n,
                TileMap* map) {
  if (n % 8 != 0) return false;
  const cuuint64_t slice = n * 2;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(n), static_cast<cuuint64_t>(slices),
                              static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {slice, slice * slices};
  const cuuint32_t box[] = {64, 1, 32};
  return EncodeMap(x, 3, sizes, strides, box, map);
}

}  // namespace penstock
