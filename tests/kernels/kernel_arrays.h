// Random arrays in any element type, and the arithmetic that kernels are held against.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/element.h"
#include "kernels/isa.h"

namespace penstock {

// One value as it is stored.
std::uint16_t Bf16Bits(float value);
std::uint16_t Fp16Bits(float value);

// `value` rounded to what `element` can hold.
float RoundTo(Element element, float value);

// Values in `element`, with their fp32 equals beside them.
class Array {
 public:
  Array(Element element, std::int64_t count);
  // Normal values, from a seed.
  static Array Random(Element element, std::int64_t count, unsigned seed, float scale = 1);

  void Set(std::int64_t i, float value);
  float Get(std::int64_t i) const;
  void* bytes() { return bytes_.data(); }
  const void* at(std::int64_t i) const { return bytes_.data() + i * size_; }
  void* at(std::int64_t i) { return bytes_.data() + i * size_; }
  std::int64_t size() const { return count_; }
  // The stored bits of `count` elements from `first`.
  std::string Bits(std::int64_t first, std::int64_t count) const;

 private:
  Element element_;
  std::int64_t count_, size_;
  std::vector<char> bytes_;
};

// Every build of the kernels that this host can run, one after the other.
class KernelTest : public testing::TestWithParam<std::tuple<Isa, Element>> {
 protected:
  void SetUp() override { SetActiveIsa(std::get<0>(GetParam())); }
  void TearDown() override { SetActiveIsa(HostIsa()); }
  Element element() const { return std::get<1>(GetParam()); }
  // One unit in the last place at 1, and a bit for the order of sums.
  float Tolerance() const;
};

std::vector<Isa> HostIsas();
std::string KernelTestName(const testing::TestParamInfo<std::tuple<Isa, Element>>& info);

#define PENSTOCK_INSTANTIATE_KERNEL_TEST(suite)                                        \
  INSTANTIATE_TEST_SUITE_P(                                                            \
      EveryBuildAndElement, suite,                                                     \
      testing::Combine(testing::ValuesIn(HostIsas()),                                  \
                       testing::Values(Element::kF32, Element::kBF16, Element::kF16)), \
      KernelTestName)

}  // namespace penstock
