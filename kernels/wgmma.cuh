// The warpgroup's matrix product (wgmma, PTX ISA 8.0): 64 × kTokens sums of 64 × 16 by 16 × kTokens
// bf16 products, both operands in shared memory, rows of 16-byte units swizzled over 128 bytes.
#pragma once

#include <cstdint>

namespace penstock {

// An operand: 8-row groups of 128-byte rows, so many bytes apart, at an address that is a multiple
// of 1,024. Adding 2 steps 16 columns along the rows.
__device__ __forceinline__ std::uint64_t SwizzledOperand(std::uint32_t shared_address,
                                                         std::uint32_t group_bytes = 1024) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  constexpr std::uint64_t kUnused = std::uint64_t{1} << 16;
  const std::uint64_t group_stride = std::uint64_t{group_bytes >> 4} << 32;
  return kSwizzle128 | group_stride | kUnused | ((shared_address & 0x3ffff) >> 4);
}

// The second operand as it stands in memory, [16 or more rows of columns, kTokens]: panels of 64 of
// its kTokens (128 bytes a row), so many bytes apart, each of 8-row groups one after the other.
// Adding 128 steps 16 rows.
__device__ __forceinline__ std::uint64_t TransposedOperand(std::uint32_t shared_address,
                                                           std::uint32_t panel_bytes) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  constexpr std::uint64_t kGroupStride = std::uint64_t{1024 >> 4} << 32;
  const std::uint64_t panel_stride = std::uint64_t{panel_bytes >> 4} << 16;
  return kSwizzle128 | kGroupStride | panel_stride | ((shared_address & 0x3ffff) >> 4);
}

__device__ __forceinline__ void BeginProducts() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most `kPending` committed groups are unfinished.
template <int kPending>
__device__ __forceinline__ void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// sum = (add ? sum : 0) + weights · tokens. Thread t of the warpgroup, in warp w = t / 32 with
// g = t % 32 / 4 and q = t % 4, holds at sum[4·j + 2·b + c] row 16·w + 8·b + g, token 8·j + 2·q +
// c.
template <int kTokens>
__device__ __forceinline__ void MultiplyAdd(float (&sum)[kTokens / 2], std::uint64_t weights,
                                            std::uint64_t tokens, bool add);

// sum += weights · tokens with a TransposedOperand of tokens, and weights in registers: lane
// 4·g + q of warp w has of rows 16·w + g (weights[0], weights[2]) and 8 further on (weights[1],
// weights[3]) columns 2·q, 2·q + 1 and 8 further on (weights[2], weights[3]).
template <int kTokens>
__device__ __forceinline__ void MultiplyAddTransposed(float (&sum)[kTokens / 2],
                                                      const std::uint32_t (&weights)[4],
                                                      std::uint64_t tokens);

// One specialization for each width. An instruction names all of its sums, so lists of so many
// operands are made by macros, 8 by 8.
// clang-format off
#define PENSTOCK_SUMS_4(s) "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
#define PENSTOCK_MORE_SUMS_4(s, i) "+f"(s[i]), "+f"(s[i + 1]), "+f"(s[i + 2]), "+f"(s[i + 3])
#define PENSTOCK_MORE_SUMS_8(s, i) PENSTOCK_MORE_SUMS_4(s, i), PENSTOCK_MORE_SUMS_4(s, i + 4)
#define PENSTOCK_NAMES_4 "%0, %1, %2, %3"
#define PENSTOCK_SUMS_8(s) PENSTOCK_SUMS_4(s), PENSTOCK_MORE_SUMS_4(s, 4)
#define PENSTOCK_NAMES_8 PENSTOCK_NAMES_4 ", %4, %5, %6, %7"
#define PENSTOCK_SUMS_16(s) PENSTOCK_SUMS_8(s), PENSTOCK_MORE_SUMS_8(s, 8)
#define PENSTOCK_NAMES_16 PENSTOCK_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define PENSTOCK_SUMS_24(s) PENSTOCK_SUMS_16(s), PENSTOCK_MORE_SUMS_8(s, 16)
#define PENSTOCK_NAMES_24 PENSTOCK_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define PENSTOCK_SUMS_32(s) PENSTOCK_SUMS_24(s), PENSTOCK_MORE_SUMS_8(s, 24)
#define PENSTOCK_NAMES_32 PENSTOCK_NAMES_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define PENSTOCK_SUMS_40(s) PENSTOCK_SUMS_32(s), PENSTOCK_MORE_SUMS_8(s, 32)
#define PENSTOCK_NAMES_40 PENSTOCK_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define PENSTOCK_SUMS_48(s) PENSTOCK_SUMS_40(s), PENSTOCK_MORE_SUMS_8(s, 40)
#define PENSTOCK_NAMES_48 PENSTOCK_NAMES_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define PENSTOCK_SUMS_56(s) PENSTOCK_SUMS_48(s), PENSTOCK_MORE_SUMS_8(s, 48)
#define PENSTOCK_NAMES_56 PENSTOCK_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define PENSTOCK_SUMS_64(s) PENSTOCK_SUMS_56(s), PENSTOCK_MORE_SUMS_8(s, 56)
#define PENSTOCK_NAMES_64 PENSTOCK_NAMES_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define PENSTOCK_SUMS_72(s) PENSTOCK_SUMS_64(s), PENSTOCK_MORE_SUMS_8(s, 64)
#define PENSTOCK_NAMES_72 PENSTOCK_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define PENSTOCK_SUMS_80(s) PENSTOCK_SUMS_72(s), PENSTOCK_MORE_SUMS_8(s, 72)
#define PENSTOCK_NAMES_80 PENSTOCK_NAMES_72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define PENSTOCK_SUMS_52(s) PENSTOCK_SUMS_48(s), PENSTOCK_MORE_SUMS_4(s, 48)
#define PENSTOCK_NAMES_52 PENSTOCK_NAMES_48 ", %48, %49, %50, %51"
#define PENSTOCK_SUMS_60(s) PENSTOCK_SUMS_56(s), PENSTOCK_MORE_SUMS_4(s, 56)
#define PENSTOCK_NAMES_60 PENSTOCK_NAMES_56 ", %56, %57, %58, %59"
#define PENSTOCK_SUMS_68(s) PENSTOCK_SUMS_64(s), PENSTOCK_MORE_SUMS_4(s, 64)
#define PENSTOCK_NAMES_68 PENSTOCK_NAMES_64 ", %64, %65, %66, %67"
#define PENSTOCK_SUMS_76(s) PENSTOCK_SUMS_72(s), PENSTOCK_MORE_SUMS_4(s, 72)
#define PENSTOCK_NAMES_76 PENSTOCK_NAMES_72 ", %72, %73, %74, %75"

// `count` = tokens / 2 sums; the numbers of the operands behind them.
#define PENSTOCK_MULTIPLY_ADD(count_tokens, count, w, x, flag)                                  \
  template <>                                                                                   \
  __device__ __forceinline__ void MultiplyAdd<count_tokens>(                                    \
      float (&sum)[count], std::uint64_t weights, std::uint64_t tokens, bool add) {             \
    asm volatile(                                                                               \
        "{\n.reg .pred add;\nsetp.ne.b32 add, %" #flag ", 0;\n"                                \
        "wgmma.mma_async.sync.aligned.m64n" #count_tokens "k16.f32.bf16.bf16 {"                 \
        PENSTOCK_NAMES_##count " }, %" #w ", %" #x ", add, 1, 1, 0, 0;\n}\n"                    \
        : PENSTOCK_SUMS_##count(sum)                                                            \
        : "l"(weights), "l"(tokens), "r"(static_cast<int>(add)));                               \
  }
PENSTOCK_MULTIPLY_ADD(8, 4, 4, 5, 6)
PENSTOCK_MULTIPLY_ADD(16, 8, 8, 9, 10)
PENSTOCK_MULTIPLY_ADD(32, 16, 16, 17, 18)
PENSTOCK_MULTIPLY_ADD(48, 24, 24, 25, 26)
PENSTOCK_MULTIPLY_ADD(64, 32, 32, 33, 34)
PENSTOCK_MULTIPLY_ADD(80, 40, 40, 41, 42)
PENSTOCK_MULTIPLY_ADD(96, 48, 48, 49, 50)
PENSTOCK_MULTIPLY_ADD(104, 52, 52, 53, 54)
PENSTOCK_MULTIPLY_ADD(112, 56, 56, 57, 58)
PENSTOCK_MULTIPLY_ADD(120, 60, 60, 61, 62)
PENSTOCK_MULTIPLY_ADD(128, 64, 64, 65, 66)
PENSTOCK_MULTIPLY_ADD(136, 68, 68, 69, 70)
PENSTOCK_MULTIPLY_ADD(144, 72, 72, 73, 74)
PENSTOCK_MULTIPLY_ADD(152, 76, 76, 77, 78)
PENSTOCK_MULTIPLY_ADD(160, 80, 80, 81, 82)

#define PENSTOCK_MULTIPLY_ADD_TRANSPOSED(count_tokens, count, w0, w1, w2, w3, x)                \
  template <>                                                                                   \
  __device__ __forceinline__ void MultiplyAddTransposed<count_tokens>(                          \
      float (&sum)[count], const std::uint32_t (&weights)[4], std::uint64_t tokens) {           \
    asm volatile(                                                                               \
        "wgmma.mma_async.sync.aligned.m64n" #count_tokens "k16.f32.bf16.bf16 {"                 \
        PENSTOCK_NAMES_##count "}, {%" #w0 ", %" #w1 ", %" #w2 ", %" #w3 "}, %" #x              \
        ", 1, 1, 1, 1;\n"                                                                       \
        : PENSTOCK_SUMS_##count(sum)                                                            \
        : "r"(weights[0]), "r"(weights[1]), "r"(weights[2]), "r"(weights[3]), "l"(tokens));     \
  }
PENSTOCK_MULTIPLY_ADD_TRANSPOSED(64, 32, 32, 33, 34, 35, 36)
PENSTOCK_MULTIPLY_ADD_TRANSPOSED(128, 64, 64, 65, 66, 67, 68)
#undef PENSTOCK_MULTIPLY_ADD_TRANSPOSED
#undef PENSTOCK_MULTIPLY_ADD
#undef PENSTOCK_MORE_SUMS_4
#undef PENSTOCK_MORE_SUMS_8
#undef PENSTOCK_SUMS_4
#undef PENSTOCK_NAMES_4
#undef PENSTOCK_SUMS_8
#undef PENSTOCK_NAMES_8
#undef PENSTOCK_SUMS_16
#undef PENSTOCK_NAMES_16
#undef PENSTOCK_SUMS_24
#undef PENSTOCK_NAMES_24
#undef PENSTOCK_SUMS_32
#undef PENSTOCK_NAMES_32
#undef PENSTOCK_SUMS_40
#undef PENSTOCK_NAMES_40
#undef PENSTOCK_SUMS_48
#undef PENSTOCK_NAMES_48
#undef PENSTOCK_SUMS_56
#undef PENSTOCK_NAMES_56
#undef PENSTOCK_SUMS_64
#undef PENSTOCK_NAMES_64
#undef PENSTOCK_SUMS_72
#undef PENSTOCK_NAMES_72
#undef PENSTOCK_SUMS_52
#undef PENSTOCK_NAMES_52
#undef PENSTOCK_SUMS_60
#undef PENSTOCK_NAMES_60
#undef PENSTOCK_SUMS_68
#undef PENSTOCK_NAMES_68
#undef PENSTOCK_SUMS_76
#undef PENSTOCK_NAMES_76
#undef PENSTOCK_SUMS_80
#undef PENSTOCK_NAMES_80
// clang-format on

}  // namespace penstock
