// Element types of tensors in memory. Arithmetic is fp32 whatever is stored.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

enum class Element : std::uint8_t { kF32, kBF16, kF16 };

// Bytes of one element.
constexpr std::size_t SizeOf(Element element) { return element == Element::kF32 ? 4 : 2; }

}  // namespace penstock
