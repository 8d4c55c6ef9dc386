#include <algorithm>
#include <vector>

#include "kernels/logits.h"
#include "kernels/sample.h"
#include "kernels/sample_rows.h"

namespace penstock {
namespace {

std::int32_t Draw(const SampleRowsArgs& args, const SampleRow& row, std::vector<float> logits) {
  const std::int32_t* history =
      row.history < 0 ? nullptr : args.histories + row.history * args.history_stride;
  return SampleCpu({.logits = logits.data(),
                    .vocab = args.vocab,
                    .bias_tokens = args.bias_tokens + row.bias_first,
                    .biases = args.biases + row.bias_first,
                    .num_biases = row.num_biases,
                    .prompt = history,
                    .num_prompt = history == nullptr ? 0 : row.num_prompt,
                    .output = history == nullptr ? nullptr : history + row.num_prompt,
                    .num_output = history == nullptr ? 0 : row.num_output,
                    .repetition_penalty = row.repetition_penalty,
                    .frequency_penalty = row.frequency_penalty,
                    .presence_penalty = row.presence_penalty,
                    .banned = args.banned + row.banned_first,
                    .num_banned = row.num_banned,
                    .temperature = row.temperature,
                    .min_p = row.min_p,
                    .top_k = row.top_k,
                    .top_p = row.top_p,
                    .seed = row.seed,
                    .choice = row.choice,
                    .position = row.position});
}

}  // namespace

void SampleRowsCpu(const SampleRowsArgs& args) {
  std::vector<float> logits(static_cast<std::size_t>(args.vocab));
  for (std::int64_t i = 0; i < *args.num_rows; ++i) {
    const SampleRow& row = args.rows[i];
    const auto* raw = static_cast<const std::uint16_t*>(args.logits) + i * args.logit_stride;
    args.finite[i] = WidenCpu(Element::kBF16, raw, logits.data(), args.vocab);
    args.sampled[i] = 0;
    args.log_probability[i] = 0;
    if (args.finite[i] == 0) continue;
    const std::int32_t token = row.given_token >= 0 ? row.given_token : Draw(args, row, logits);
    const float total = LogSumExpCpu(logits.data(), args.vocab);
    args.sampled[i] = token;
    args.log_probability[i] = logits[static_cast<std::size_t>(token)] - total;
    const std::int64_t place = std::int64_t{row.num_prompt} + row.num_output;
    if (row.history >= 0 && row.given_token < 0 && place < args.history_stride) {
      args.histories[row.history * args.history_stride + place] = token;
    }
    const std::int64_t top = std::min<std::int64_t>(row.num_top, args.max_top);
    std::int32_t* tokens = args.top_tokens + i * args.max_top;
    TopIdsCpu(logits.data(), args.vocab, top, tokens);
    for (std::int64_t n = 0; n < top; ++n) {
      args.top_log_probabilities[i * args.max_top + n] =
          logits[static_cast<std::size_t>(tokens[n])] - total;
    }
  }
}

}  // namespace penstock
