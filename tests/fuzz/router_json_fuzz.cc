// Any bytes as router.json, against a catalogue of two kinds that have every sort of
// hyperparameter.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "routers/package/router_catalogue.h"
#include "routers/package/router_json.h"

namespace {

penstock::RouterKind Kind(const char* name) {
  penstock::RouterKind kind;
  kind.name = name;
  kind.summary = "of the fuzz target";
  kind.tensors = [](const penstock::RouterSpec&) { return std::vector<penstock::TensorRule>(); };
  kind.flops = [](const penstock::RouterSpec&) { return std::int64_t{0}; };
  return kind;
}

const penstock::RouterCatalogue& Catalogue() {
  static const auto* const catalogue = [] {
    auto* made = new penstock::RouterCatalogue;
    penstock::RouterKind network = Kind("mlp");
    network.hyper = {{.name = "hidden_width", .summary = "", .fallback = 8, .least = 1, .most = 64},
                     {.name = "gelu", .summary = "", .words = {"erf", "tanh"}}};
    made->Add(network);
    penstock::RouterKind table = Kind("hash");
    table.hyper = {
        {.name = "vocab_size",
         .summary = "",
         .most = 1 << 20,
         .of_model = [](const penstock::RouterShape& shape) { return shape.vocab_size; }}};
    made->Add(table);
    return made;
  }();
  return *catalogue;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const auto package = penstock::ParseRouterJson("router.json", text, Catalogue());
  // What is accepted stays so when it is written and read again.
  if (package.ok() &&
      !penstock::ParseRouterJson("router.json", penstock::FormatRouterJson(*package), Catalogue())
           .ok()) {
    __builtin_trap();
  }
  return 0;
}
