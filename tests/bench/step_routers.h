// Router programs with random weights, in the sizes that `routers init` gives them.
#pragma once

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/router_program.h"
#include "server/base/check.h"
#include "server/model/checkpoint/model_config.h"
#include "server/model/cuda/device_memory.h"

namespace penstock {

class StepRouters {
 public:
  static constexpr int kPrograms = 6;

  // [layers, kPrograms]: bf16 gates, heads, gates with heads, logits of a hidden layer, a table,
  // a modulated product.
  std::vector<RouterProgram> Make(const ModelConfig& config) {
    const std::int64_t d = config.hidden_size, experts = config.experts;
    std::vector<RouterProgram> programs;
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
      RouterProgram gates;
      gates.element = Element::kBF16;
      gates.direct = Halves(experts * d, d);
      RouterProgram heads;
      heads.form = HiddenForm::kHeads;
      heads.hidden = static_cast<std::int32_t>(kHeads * experts);
      heads.heads = kHeads;
      heads.first = Floats(kHeads * experts * d, d);
      RouterProgram both = heads;
      both.direct = Floats(experts * d, d);
      both.direct_scale = both.hidden_scale = 0.5f;
      RouterProgram logits;
      logits.form = HiddenForm::kLogits;
      logits.activation = HiddenActivation::kGeluErf;
      logits.hidden = kHiddenWidth;
      logits.first = Floats(kHiddenWidth * d, d);
      logits.first_bias = Floats(kHiddenWidth, 1);
      logits.second = Floats(experts * kHiddenWidth, kHiddenWidth);
      logits.second_bias = Floats(experts, 1);
      RouterProgram table;
      table.form = HiddenForm::kTable;
      table.vocab = static_cast<std::int32_t>(config.vocab_size);
      table.table = Table(config);
      table.mass = 0.5f;
      RouterProgram modulated;
      modulated.form = HiddenForm::kModulated;
      modulated.activation = HiddenActivation::kGeluErf;
      modulated.hidden = kHiddenWidth;
      modulated.first = Floats(kHiddenWidth * d, d);
      modulated.second = Floats(d * kHiddenWidth, kHiddenWidth);
      modulated.third = Floats(experts * d, d);
      programs.insert(programs.end(), {gates, heads, both, logits, table, modulated});
    }
    return programs;
  }

 private:
  static constexpr int kHeads = 4, kHiddenWidth = 256;

  const void* Upload(const void* values, std::size_t bytes) {
    absl::StatusOr<DeviceBuffer> buffer =
        DeviceBuffer::Create(static_cast<std::int64_t>(bytes), "a router", "nothing");
    PENSTOCK_CHECK(buffer.ok()) << buffer.status().ToString();
    PENSTOCK_CHECK(cudaMemcpy(buffer->start(), values, bytes, cudaMemcpyHostToDevice) ==
                   cudaSuccess);
    kept_.push_back(*std::move(buffer));
    return kept_.back().start();
  }

  std::vector<float> Normals(std::int64_t count, std::int64_t fan_in) {
    std::vector<float> values(static_cast<std::size_t>(count));
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(fan_in)));
    for (float& value : values) value = normal(random_);
    return values;
  }

  const float* Floats(std::int64_t count, std::int64_t fan_in) {
    const std::vector<float> values = Normals(count, fan_in);
    return static_cast<const float*>(Upload(values.data(), values.size() * sizeof(float)));
  }

  const void* Halves(std::int64_t count, std::int64_t fan_in) {
    std::vector<std::uint16_t> bits;
    for (const float value : Normals(count, fan_in)) bits.push_back(Bf16OfFloat(value));
    return Upload(bits.data(), bits.size() * sizeof(std::uint16_t));
  }

  const std::int32_t* Table(const ModelConfig& config) {
    std::vector<std::int32_t> ids;
    for (std::int64_t token = 0; token < config.vocab_size; ++token) {
      const auto first =
          static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(config.experts));
      for (std::int64_t i = 0; i < config.top_k; ++i)
        ids.push_back(static_cast<std::int32_t>((first + 7 * i) % config.experts));
    }
    return static_cast<const std::int32_t*>(Upload(ids.data(), ids.size() * sizeof(std::int32_t)));
  }

  std::mt19937_64 random_{3};
  std::vector<DeviceBuffer> kept_;
};

}  // namespace penstock
