// Any bytes as tokenizer.json; one that loads must decode what it encodes to known ids.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "server/model/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const auto tokenizer = penstock::Tokenizer::Parse({reinterpret_cast<const char*>(bytes), size});
  if (!tokenizer.ok()) return 0;
  const auto ids = (*tokenizer)->Encode("Hello, wörld 12 <|im_end|>\n", /*parse_special=*/true);
  if (!ids.ok()) return 0;
  for (const std::int32_t id : *ids) {
    if (id < 0 || id >= (*tokenizer)->VocabSize()) __builtin_trap();
  }
  (*tokenizer)->Decode(*ids, /*skip_special=*/false);
  return 0;
}
