// What a step's kernels read of the step itself, and what they leave for the host. The same arrays
// stand in page-locked memory and on the device; one copy brings all of them.
#pragma once

#include <cstdint>

#include "kernels/sample_rows.h"
#include "server/model/cuda/step/carver.h"

namespace penstock {

// Rows of a step, as launches bound them: what really stands in a step is in its counts.
struct StepBounds {
  std::int64_t rows = 0;
  std::int64_t decode_rows = 0;  // the first rows, one a sequence
  std::int64_t logit_rows = 0;   // rows whose logits are wanted
};

// Logits are computed for so many rows at a time.
inline constexpr std::int64_t kLogitChunk = 256;

// Host to device.
struct StepInputs {
  static constexpr std::int64_t kNumRows = 0, kNumDecodeRows = 1, kNumSequences = 2,
                                kTableWidth = 3, kNumLogitRows = 4;

  std::int32_t* counts = nullptr;  // [4 + chunks of logit rows]
  std::int32_t* tokens =
      nullptr;  // [rows]: ids, or −1 − i for what logit row i of the step before gave
  std::int32_t* positions = nullptr;    // [rows]
  std::int32_t* sequences = nullptr;    // [rows]: index in the plan, and of the row's block table
  std::int32_t* row_routers = nullptr;  // [rows]
  std::uint8_t* counted = nullptr;      // [rows]
  std::int32_t* logit_rows = nullptr;   // [logit rows]: the row of each
  SampleRow* samples = nullptr;         // [logit rows]
  std::int32_t* block_tables =
      nullptr;  // [sequences, table width]: at the end, as long as the step wants it

  static std::int64_t Chunks(std::int64_t logit_rows) {
    return (logit_rows + kLogitChunk - 1) / kLogitChunk;
  }
  static StepInputs Lay(const StepBounds& bounds, Carver& carver) {
    StepInputs arrays;
    arrays.counts = carver.Take<std::int32_t>(kNumLogitRows + Chunks(bounds.logit_rows));
    arrays.tokens = carver.Take<std::int32_t>(bounds.rows);
    arrays.positions = carver.Take<std::int32_t>(bounds.rows);
    arrays.sequences = carver.Take<std::int32_t>(bounds.rows);
    arrays.row_routers = carver.Take<std::int32_t>(bounds.rows);
    arrays.counted = carver.Take<std::uint8_t>(bounds.rows);
    arrays.logit_rows = carver.Take<std::int32_t>(bounds.logit_rows);
    arrays.samples = carver.Take<SampleRow>(bounds.logit_rows);
    arrays.block_tables = carver.Take<std::int32_t>(0);
    return arrays;
  }
};

// Device to host. `sampled` comes first, so that it stands at one address whatever the bounds: the
// next step reads it there.
struct StepOutputs {
  std::int32_t* sampled = nullptr;       // [logit rows]
  float* log_probability = nullptr;      // [logit rows]
  std::uint8_t* finite = nullptr;        // [logit rows]
  std::int32_t* failed_layer = nullptr;  // [rows]: −1: none

  static StepOutputs Lay(const StepBounds& bounds, Carver& carver) {
    StepOutputs arrays;
    arrays.sampled = carver.Take<std::int32_t>(bounds.logit_rows);
    arrays.log_probability = carver.Take<float>(bounds.logit_rows);
    arrays.finite = carver.Take<std::uint8_t>(bounds.logit_rows);
    arrays.failed_layer = carver.Take<std::int32_t>(bounds.rows);
    return arrays;
  }
};

}  // namespace penstock
