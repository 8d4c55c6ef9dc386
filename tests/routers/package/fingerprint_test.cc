#include "routers/package/fingerprint.h"

#include <cstddef>
#include <fstream>
#include <list>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "routers/package/sha256.h"

namespace penstock {
namespace {

using nlohmann::json;

// tests/parity/router_fingerprint_test.py recomputes the same file in Python.
json Vectors() {
  std::ifstream file(PENSTOCK_SOURCE_DIR "/tests/vectors/router_fingerprints.json");
  return json::parse(file);
}

DType DTypeNamed(const std::string& name) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kI32}) {
    if (Name(dtype) == name) return dtype;
  }
  ADD_FAILURE() << name;
  return DType::kF32;
}

// Keeps the bytes of the views that it makes.
class Bytes {
 public:
  TensorView View(const json& tensor) {
    const std::string& raw =
        raw_.emplace_back(absl::HexStringToBytes(tensor["bytes"].get<std::string>()));
    return {.dtype = DTypeNamed(tensor["dtype"]),
            .shape = tensor["shape"].get<std::vector<std::int64_t>>(),
            .bytes = std::as_bytes(std::span(raw))};
  }

 private:
  std::list<std::string> raw_;
};

TEST(FingerprintTest, OfPackagesIsAsPublished) {
  const json packages = Vectors()["packages"];
  ASSERT_GE(packages.size(), 3u);
  for (const json& package : packages) {
    Hyper hyper;
    for (const auto& [key, value] : package["hyper"].items()) {
      if (value.is_string()) {
        hyper[key] = value.get<std::string>();
      } else {
        hyper[key] = value.get<std::int64_t>();
      }
    }
    Bytes bytes;
    std::map<std::string, TensorView, std::less<>> tensors;
    for (const auto& [name, tensor] : package["tensors"].items())
      tensors[name] = bytes.View(tensor);
    EXPECT_EQ(PackageFingerprint(package["kind"].get<std::string>(), hyper, tensors),
              package["fingerprint"].get<std::string>());
  }
}

TEST(FingerprintTest, OfBaseModelsIsAsPublished) {
  const json bases = Vectors()["bases"];
  ASSERT_GE(bases.size(), 2u);
  for (const json& base : bases) {
    const RouterShape shape{.d = base["d"],
                            .experts = base["E"],
                            .top_k = base["k"],
                            .layers = base["layers"].get<std::vector<std::int64_t>>(),
                            .vocab_size = base["vocab_size"]};
    Bytes bytes;
    std::vector<NamedGate> gates;
    for (const json& gate : base["gates"]) gates.push_back({gate["name"], bytes.View(gate)});
    const auto got = BaseFingerprint(shape, base["num_hidden_layers"], gates);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(*got, base["fingerprint"].get<std::string>());
  }
}

TEST(FingerprintTest, RefusesGatesThatDoNotFit) {
  const RouterShape shape{.d = 2, .experts = 1, .top_k = 1, .layers = {0}, .vocab_size = 3};
  const std::vector<float> values = {1, 2};
  const auto refusal = [&](std::vector<NamedGate> gates) {
    return std::string(BaseFingerprint(shape, 1, gates).status().message());
  };
  EXPECT_EQ(refusal({}), "gates: got 0, want 1, one per sparse layer");
  EXPECT_EQ(
      refusal(
          {{"g",
            {.dtype = DType::kF32, .shape = {2, 1}, .bytes = std::as_bytes(std::span(values))}}}),
      "g: got F32[2, 1], want [1, 2] of F32, BF16 or F16");
  EXPECT_EQ(
      refusal(
          {{"g",
            {.dtype = DType::kI32, .shape = {1, 2}, .bytes = std::as_bytes(std::span(values))}}}),
      "g: got I32[1, 2], want [1, 2] of F32, BF16 or F16");
}

TEST(Sha256Test, GivesTheStandardsExample) {
  // FIPS 180-2, appendix B.1.
  Sha256 hash;
  hash.Update(std::string_view("a"));
  hash.Update(std::string_view("bc"));
  EXPECT_EQ(hash.Hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace penstock
