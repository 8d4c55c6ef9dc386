#include "tests/e2e/damaged_router.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "nlohmann/json.hpp"
#include "tests/e2e/server_process.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

// One gate: [E, d], each element of `size` bytes, the sign in its last.
struct Gate {
  std::byte* bytes;
  std::size_t experts, row, size;  // row, size: in bytes

  void Copy(std::size_t from, std::size_t to) {
    std::memcpy(bytes + to * row, bytes + from * row, row);
  }
  void Negate(std::size_t expert) {
    for (std::size_t at = expert * row + size - 1; at < (expert + 1) * row; at += size) {
      bytes[at] ^= std::byte{0x80};
    }
  }
  void Fill(std::size_t expert, std::byte value) {
    std::memset(bytes + expert * row, std::to_integer<int>(value), row);
  }
};

// Writes routers/NAME: the checkpoint's own kind of gate, with layer 1 changed. Finite.
void WriteDamaged(const std::string& name, const std::function<void(Gate)>& damage) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(TinyModel::Get().folder()) / "routers" / name;
  fs::remove_all(folder);
  fs::copy(folder.parent_path() / "linear", folder);
  const fs::path file = folder / "router.safetensors";
  std::ifstream stream(file, std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(stream), {}};
  // Eight bytes of length, that many of JSON, the tensors.
  std::uint64_t length = 0;
  std::memcpy(&length, content.data(), sizeof(length));
  const auto tensor = nlohmann::json::parse(content.substr(8, length)).at("layers.1.W");
  const auto begin = tensor.at("data_offsets").at(0).get<std::size_t>();
  const auto bytes = tensor.at("data_offsets").at(1).get<std::size_t>() - begin;
  const auto experts = tensor.at("shape").at(0).get<std::size_t>();
  const auto width = tensor.at("shape").at(1).get<std::size_t>();
  damage({reinterpret_cast<std::byte*>(content.data()) + 8 + length + begin, experts,
          bytes / experts, bytes / experts / width});
  WriteFile(file.string(), content);
}

}  // namespace

// All rows go to the first four experts: two rows and their opposites, of which exactly two have a
// positive logit, and the rest at 0. (k is 2.)
void WriteCollapsedRouter() {
  WriteDamaged("collapsed", [](Gate gate) {
    gate.Copy(0, 1);
    gate.Negate(1);
    gate.Copy(2, 3);
    gate.Negate(3);
    for (std::size_t expert = 4; expert < gate.experts; ++expert) {
      gate.Fill(expert, std::byte{0});
    }
  });
}

// Weights near the largest there are (3.4e38 in bf16 and fp32): finite, and their logits are not.
void WriteOverflowingRouter() {
  WriteDamaged("overflowing", [](Gate gate) {
    for (std::size_t expert = 0; expert < gate.experts; ++expert) {
      gate.Fill(expert, std::byte{0x7f});
    }
  });
}

}  // namespace penstock
