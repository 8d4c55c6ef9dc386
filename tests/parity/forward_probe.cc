// What the Python oracle's tests drive: a checkpoint under the reference model and the real
// scheduler. One JSON request a line on stdin, one JSON answer a line on stdout.
//   forward_probe FOLDER DTYPE [PREFILL_CHUNK [DEVICE]]
//   DEVICE: cpu, the reference model; cuda, the GPU engine, which has the 64 most probable tokens
//   of a position
//   {"prompts": [[ids]…], "new_tokens": n}                → {"tokens": [[ids]…]}: greedy, all
//   prompts in one batch
//   {"prompt": [ids], "logprobs_file": path}              → {"rows": r}: log-probabilities [r, V]
//   fp32, of every prompt
//                                                           position but the last
//   {"prompt": [ids], "top": n}                           → {"top": [[[id, logprob]…]…]} of those
//   positions, best first, and {"experts": [[ids]…]} of every row, [sparse layers · k]
//   {"prompts": […], "new_tokens": n, "routers": [names]} → the same, each prompt under its own
//   router; "repetition_penalty" may stand beside it
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/base/check.h"
#include "server/model/cuda/cuda_model.h"
#include "tests/server/model/reference/model_runner.h"

namespace penstock {
namespace {

using nlohmann::json;

json Generate(ModelRunner& runner, const json& request) {
  std::vector<SequenceId> ids;
  for (std::size_t i = 0; i < request["prompts"].size(); ++i) {
    SequenceSpec spec =
        GreedySpec(request["prompts"][i].get<std::vector<TokenId>>(), request["new_tokens"]);
    if (request.contains("routers")) spec.router = runner.router(request["routers"][i]);
    spec.sampling.repetition_penalty = request.value("repetition_penalty", 1.0);
    ids.push_back(runner.Add(std::move(spec)));
  }
  runner.Run();
  json tokens = json::array();
  for (const SequenceId id : ids) {
    PENSTOCK_CHECK(runner.answer(id).error.ok()) << runner.answer(id).error.ToString();
    tokens.push_back(runner.answer(id).token_ids());
  }
  return {{"tokens", tokens}};
}

json Score(ModelRunner& runner, const json& request) {
  const int vocab = runner.model().spec().vocab_size;
  SequenceSpec spec = GreedySpec(request["prompt"].get<std::vector<TokenId>>(), 0);
  spec.output.prompt_logprobs = vocab;
  const RunnerAnswer answer = runner.Answer(std::move(spec));
  PENSTOCK_CHECK(answer.error.ok()) << answer.error.ToString();
  std::ofstream file(request["logprobs_file"].get<std::string>(), std::ios::binary);
  std::vector<float> row(static_cast<std::size_t>(vocab));
  for (const ScoredToken& scored : answer.prompt_scores) {
    for (const TokenLogprob& token : scored.top)
      row[static_cast<std::size_t>(token.token)] = token.logprob;
    file.write(reinterpret_cast<const char*>(row.data()),
               static_cast<std::streamsize>(row.size() * sizeof(float)));
  }
  return {{"rows", answer.prompt_scores.size()}};
}

json Top(ModelRunner& runner, const json& request) {
  SequenceSpec spec = GreedySpec(request["prompt"].get<std::vector<TokenId>>(), 0);
  spec.output.prompt_logprobs = request["top"];
  spec.output.prompt_trace = true;
  const RunnerAnswer answer = runner.Answer(std::move(spec));
  PENSTOCK_CHECK(answer.error.ok()) << answer.error.ToString();
  json top = json::array(), experts = json::array();
  for (const ScoredToken& scored : answer.prompt_scores) {
    json& row = top.emplace_back(json::array());
    for (const TokenLogprob& token : scored.top) row.push_back({token.token, token.logprob});
  }
  for (const RowTrace& trace : answer.traces) experts.push_back(trace.experts);
  return {{"top", top}, {"experts", experts}};
}

json Answer(ModelRunner& runner, const json& request) {
  if (request.contains("logprobs_file")) return Score(runner, request);
  return request.contains("top") ? Top(runner, request) : Generate(runner, request);
}

int Main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: forward_probe FOLDER DTYPE [PREFILL_CHUNK [DEVICE]]\n");
    return 2;
  }
  RunnerOptions options;
  options.model.dtype = argv[2];
  options.scheduler.prefix_cache = false;
  if (argc > 3) options.scheduler.prefill_chunk = std::atoi(argv[3]);
  if (argc > 4 && std::string(argv[4]) == "cuda") {
    CudaModelOptions cuda;
    cuda.max_step_rows = options.scheduler.prefill_chunk + cuda.max_batch;
    cuda.kv_bytes = std::int64_t{8} << 30;
    options.scheduler.max_batch = cuda.max_batch;
    options.scheduler.token_budget = cuda.max_step_rows;
    options.device = at::kCUDA;
    options.make_model = [cuda](const Checkpoint& checkpoint) mutable {
      cuda.max_context = static_cast<int>(
          std::min<std::int64_t>(cuda.max_context, checkpoint.config().max_position_embeddings));
      return CreateCudaModel(checkpoint, cuda);
    };
  }
  ModelRunner runner(argv[1], options);
  std::string line;
  while (std::getline(std::cin, line)) {
    const json request = json::parse(line);
    std::cout << Answer(runner, request) << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) { return penstock::Main(argc, argv); }
