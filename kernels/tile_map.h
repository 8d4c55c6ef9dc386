// Where the copy engine finds the tiles of a weight tensor.
#pragma once

#include <cstdint>

namespace penstock {

// The driver's description of a bf16 tensor. Made once, when the weights have their final address,
// and read by every launch that streams them.
struct alignas(128) TileMap {
  unsigned char bytes[128] = {};
};

// Of weight [matrices, rows, n], in boxes of 64 rows. False, with `map` untouched, where the copy
// engine cannot read the tensor: n is not a multiple of 8, or weight not aligned to 16 bytes.
bool MakeTileMap(const void* weight, std::int64_t matrices, std::int64_t rows, std::int64_t n,
                 TileMap* map);

// Of weight [matrices, 2, width, n] (gate, then up), in boxes of 32 rows of each, 8 gate rows
// before the 8 up rows that belong to them. False also where width is not a multiple of 8.
bool MakeGatedTileMap(const void* weight, std::int64_t matrices, std::int64_t width, std::int64_t n,
                      TileMap* map);

// The same for grouped_product.cuh: weight [matrices, rows, n] in boxes of 128 rows, and weight
// [matrices, 2, width, n] in boxes of 64 rows of each, 16 gate rows before their 16 up rows. False
// also where width is not a multiple of 16.
bool MakeGroupedMap(const void* weight, std::int64_t matrices, std::int64_t rows, std::int64_t n,
                    TileMap* map);
bool MakeGroupedGatedMap(const void* weight, std::int64_t matrices, std::int64_t width,
                         std::int64_t n, TileMap* map);

// Of x [rows, slices, n], in boxes of 32 rows of one slice.
bool MakeRowMap(const void* x, std::int64_t rows, std::int64_t slices, std::int64_t n,
                TileMap* map);

}  // namespace penstock
