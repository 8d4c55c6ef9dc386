// One layer's routers in every form, on the host and on the device, for tests of routing kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "kernels/router_program.h"
#include "tests/kernels/cuda_twins.h"
#include "tests/kernels/device_array.h"

namespace penstock {

struct RoutedShape {
  int d, experts, k;
  bool normalize;
};

inline constexpr int kRoutedVocab = 50;

// Routers of one layer, on the host and on the device. Forms: 0 direct; 1 heads; 2 logits of a
// hidden layer; 3 direct and heads; 4 table; 5 modulated; 6 to 11 the same with odd widths, and
// with fp32 in place of bf16; 12 to 17 with small ones.
class LayerRouters {
 public:
  static constexpr int kForms = 18;

  explicit LayerRouters(const RoutedShape& shape, unsigned seed = 100)
      : shape_(shape), seed_(seed) {
    for (int form = 0; form < kForms; ++form) Add(form);
    programs_ = std::make_unique<DeviceArray<RouterProgram>>(on_device_);
  }

  const RouterProgram* on_host() const { return on_host_.data(); }
  const RouterProgram* on_device() const { return programs_->get(); }
  // Host memory, with the device's pointers.
  const std::vector<RouterProgram>& programs() const { return on_device_; }
  int max_hidden() const { return max_hidden_; }

 private:
  const void* Tensor(const RouterProgram& program, std::int64_t count, double fan_in,
                     const void** device) {
    const auto scale = static_cast<float>(1.5 / std::sqrt(fan_in));
    const auto size = static_cast<std::size_t>(count);
    const unsigned seed = ++seed_;
    if (program.element == Element::kF32) {
      floats_.push_back(RandomFloats(size, seed, scale));
      device_floats_.push_back(std::make_unique<DeviceArray<float>>(floats_.back()));
      *device = device_floats_.back()->get();
      return floats_.back().data();
    }
    words_.push_back(RandomBf16(size, seed, scale));
    device_words_.push_back(std::make_unique<DeviceArray<std::uint16_t>>(words_.back()));
    *device = device_words_.back()->get();
    return words_.back().data();
  }
  const float* Floats(std::int64_t count, float scale, const float** device) {
    floats_.push_back(RandomFloats(static_cast<std::size_t>(count), ++seed_, scale));
    device_floats_.push_back(std::make_unique<DeviceArray<float>>(floats_.back()));
    *device = device_floats_.back()->get();
    return floats_.back().data();
  }

  void Add(int form) {
    const int set = form / 6;
    RouterProgram host;
    host.element = form == 0 ? Element::kBF16 : Element::kF32;
    RouterProgram device = host;
    const int kind = form % 6, d = shape_.d, experts = shape_.experts;
    const auto both = [&](auto member, auto value) { host.*member = device.*member = value; };
    if (kind == 0 || kind == 3) {
      host.direct = Tensor(host, std::int64_t{experts} * d, d, &device.direct);
    }
    if (kind == 1 || kind == 3) {
      constexpr int kHeads[] = {4, 3, 5};
      const int heads = kHeads[set], h = heads * experts;
      both(&RouterProgram::form, HiddenForm::kHeads);
      both(&RouterProgram::hidden, h);
      both(&RouterProgram::heads, heads);
      host.first = Tensor(host, std::int64_t{h} * d, d / 9.0, &device.first);
      if (kind == 3) {
        both(&RouterProgram::direct_scale, 0.3f);
        both(&RouterProgram::hidden_scale, 0.9f);
      }
    }
    if (kind == 2 || kind == 5) {
      constexpr int kWidths[] = {256, 37, 40};
      const int h = kWidths[set];
      both(&RouterProgram::hidden, h);
      both(&RouterProgram::activation,
           set == 0 ? HiddenActivation::kGeluErf : HiddenActivation::kGeluTanh);
      both(&RouterProgram::form, kind == 2 ? HiddenForm::kLogits : HiddenForm::kModulated);
      host.first = Tensor(host, std::int64_t{h} * d, d, &device.first);
      if (kind == 2) {
        host.first_bias = Floats(h, 0.5f, &device.first_bias);
        host.second = Tensor(host, std::int64_t{experts} * h, h / 4.0, &device.second);
        host.second_bias = Floats(experts, 0.5f, &device.second_bias);
      } else {
        host.second = Tensor(host, std::int64_t{d} * h, h, &device.second);
        host.third = Tensor(host, std::int64_t{experts} * d, d, &device.third);
      }
    }
    if (kind == 4) {
      std::vector<std::int32_t> table;
      for (int token = 0; token < kRoutedVocab; ++token) {
        for (int i = 0; i < shape_.k; ++i) table.push_back((token * 7 + i) % experts);
      }
      tables_.push_back(table);
      device_tables_.push_back(std::make_unique<DeviceArray<std::int32_t>>(table));
      both(&RouterProgram::form, HiddenForm::kTable);
      both(&RouterProgram::vocab, kRoutedVocab);
      both(&RouterProgram::mass, 0.6f);
      host.table = tables_.back().data();
      device.table = device_tables_.back()->get();
    }
    max_hidden_ = std::max(max_hidden_, host.hidden);
    on_host_.push_back(host);
    on_device_.push_back(device);
  }

  RoutedShape shape_;
  unsigned seed_;
  int max_hidden_ = 0;
  std::vector<RouterProgram> on_host_, on_device_;
  // Moving a vector keeps its elements where they are.
  std::vector<std::vector<float>> floats_;
  std::vector<std::vector<std::uint16_t>> words_;
  std::vector<std::vector<std::int32_t>> tables_;
  std::vector<std::unique_ptr<DeviceArray<float>>> device_floats_;
  std::vector<std::unique_ptr<DeviceArray<std::uint16_t>>> device_words_;
  std::vector<std::unique_ptr<DeviceArray<std::int32_t>>> device_tables_;
  std::unique_ptr<DeviceArray<RouterProgram>> programs_;
};

}  // namespace penstock
