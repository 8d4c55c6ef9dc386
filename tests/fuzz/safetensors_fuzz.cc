// Any bytes as a safetensors file: an error or tensors whose every byte can be read.
#include <cstddef>
#include <cstdint>
#include <span>

#include "routers/package/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const auto file = penstock::SafetensorsFile::Parse(
      "fuzz", std::as_bytes(std::span<const std::uint8_t>(bytes, size)));
  if (!file.ok()) return 0;
  volatile unsigned sum = 0;  // so that every byte is really read
  for (const auto& [name, tensor] : (*file)->tensors()) {
    for (const std::byte value : tensor.bytes) sum = sum + std::to_integer<unsigned>(value);
    if (tensor.bytes.size() != tensor.NumElements() * penstock::SizeOf(tensor.dtype))
      __builtin_trap();
  }
  return 0;
}
