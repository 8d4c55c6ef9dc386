// Any bytes as the server's YAML, and the first line of them as an override.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "server/config/config.h"
#include "server/config/yaml_writer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const penstock::ConfigOptions options{.overrides = {}, .built_in_routers = {"own"}};
  const auto config = penstock::ParseConfig(text, options);
  // What is valid stays so when it is written and read again.
  if (config.ok() && !penstock::ParseConfig(penstock::ToYaml(*config), options).ok())
    __builtin_trap();
  const std::string_view line = text.substr(0, text.find('\n'));
  (void)penstock::ParseConfig("model: {path: m}",
                              {.overrides = {std::string(line)}, .built_in_routers = {"own"}});
  return 0;
}
