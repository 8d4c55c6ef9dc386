// What gRPC adds to a streamed token: one client reads streams of a tiny model first from the
// frontend itself, then over a loopback connection, in turn, in one process.
//   stream_bench FOLDER [STREAMS] [TOKENS]
// Writes the tiny model to FOLDER, which must be new (serving.py serves it afterwards). Prints one
// JSON object: medians in seconds, over all streams, of the time to the first token and between
// tokens, either way.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cpp/client.h"
#include "nlohmann/json.hpp"
#include "server/backend.h"
#include "server/base/check.h"
#include "server/base/log.h"
#include "server/engine/engine.h"
#include "server/rpc/rpc_server.h"
#include "server/telemetry/prometheus_telemetry.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"
#include "tests/support/tiny_tokenizer.h"

namespace penstock {
namespace {

constexpr int kPromptTokens = 16;
constexpr int kMaxTokens = 400;  // of an answer

void WriteTinyModel(const std::string& folder) {
  std::filesystem::create_directories(folder);
  TinyCheckpointOptions options;
  options.vocab_size = 272;
  options.max_position_embeddings = 512;
  options.dtype = DType::kBF16;
  TinyCheckpoint checkpoint(options);
  checkpoint.generation_config = R"({"eos_token_id": [256, 258]})";
  checkpoint.Write(folder);
  WriteFile(folder + "/tokenizer.json", TinyTokenizerJson());
}

template <typename T>
T Value(absl::StatusOr<T> result) {
  PENSTOCK_CHECK(result.ok()) << result.status().ToString();
  return *std::move(result);
}

// When each token of one stream came to its reader.
struct Arrivals {
  absl::Time sent;
  std::vector<absl::Time> tokens;

  void Add(int count) { tokens.insert(tokens.end(), static_cast<std::size_t>(count), absl::Now()); }
};

// The medians of many streams.
class StreamTimes {
 public:
  void Add(const Arrivals& stream, int tokens) {
    PENSTOCK_CHECK(static_cast<int>(stream.tokens.size()) == tokens) << stream.tokens.size();
    first_.push_back(stream.tokens.front() - stream.sent);
    // A stream's mean, not its gaps: several tokens in one message would count as gaps of nothing.
    per_token_.push_back((stream.tokens.back() - stream.tokens.front()) / (tokens - 1));
  }

  nlohmann::json ToJson() const {
    return {{"first_token", Median(first_)}, {"per_token", Median(per_token_)}};
  }

 private:
  static double Median(std::vector<absl::Duration> times) {
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2),
                     times.end());
    return absl::ToDoubleSeconds(times[times.size() / 2]);
  }

  std::vector<absl::Duration> first_, per_token_;
};

class DirectReader final : public ResponseObserver {
 public:
  void OnAdmitted(const Admission&) override {}
  bool OnDelta(Delta delta) override {
    for (const ChoiceDelta& choice : delta.choices)
      arrivals_.Add(static_cast<int>(choice.tokens.size()));
    return true;
  }
  void OnFinished(const absl::Status& status, const Summary&) override { done_.set_value(status); }

  Arrivals arrivals_;
  std::promise<absl::Status> done_;
};

std::vector<TokenId> PromptOf(int stream) {
  std::vector<TokenId> prompt;
  for (int i = 0; i < kPromptTokens; ++i) prompt.push_back((stream * 31 + i * 7) % 256);
  return prompt;
}

Arrivals StreamDirectly(Frontend& frontend, int stream, int tokens) {
  auto reader = std::make_shared<DirectReader>();
  GenerateCall call;
  call.prompt = PromptOf(stream);
  call.sampling.temperature = 0;
  call.stopping.max_new_tokens = tokens;
  call.stopping.ignore_eos = true;
  call.bypass_cache = true;
  reader->arrivals_.sent = absl::Now();
  Value(frontend.Generate(std::move(call), reader));
  const absl::Status status = reader->done_.get_future().get();
  PENSTOCK_CHECK(status.ok()) << status.ToString();
  return reader->arrivals_;
}

Arrivals StreamOverGrpc(client::Client& client, int stream, int tokens) {
  v1::GenerateRequest request;
  for (const TokenId token : PromptOf(stream)) request.mutable_token_ids()->add_ids(token);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_new_tokens(tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_cache()->set_bypass(true);
  request.mutable_response()->set_token_ids(true);
  Arrivals arrivals;
  client::GenerateCallbacks callbacks;
  callbacks.on_message = [&arrivals](const v1::GenerateStreamResponse& message) {
    for (const v1::Choice& choice : message.deltas()) arrivals.Add(choice.token_ids_size());
  };
  callbacks.on_done = [](const absl::Status&) {};
  arrivals.sent = absl::Now();
  const absl::Status status =
      client.StartGenerate(std::move(request), std::move(callbacks))->Wait();
  PENSTOCK_CHECK(status.ok()) << status.ToString();
  return arrivals;
}

int Main(int argc, char** argv) {
  const int streams = argc > 2 ? std::atoi(argv[2]) : 100,
            tokens = argc > 3 ? std::atoi(argv[3]) : 200;
  if (argc < 2 || streams < 1 || tokens < 2 || tokens > kMaxTokens) {
    std::cerr << "usage: stream_bench FOLDER [STREAMS] [TOKENS]; TOKENS in 2.." << kMaxTokens
              << "\n";
    return 2;
  }
  SetLogSink([](std::string_view) {});  // a line a request
  WriteTinyModel(argv[1]);
  BackendOptions options;
  options.model_path = argv[1];
  options.max_batch = 8;
  options.max_context = 512;
  Backend backend = Value(LoadBackend(options));
  const ModelSpec spec = backend.model->spec();
  RouterSet::Options router_options;
  router_options.loader = backend.load_router;
  RouterSet routers(std::move(router_options), backend.own_router);
  PrometheusTelemetry::Options telemetry_options;
  telemetry_options.num_experts = spec.num_experts;
  telemetry_options.top_k = spec.top_k;
  telemetry_options.layers = spec.sparse_layers;
  const auto telemetry = Value(PrometheusTelemetry::Create(std::move(telemetry_options)));
  Engine::Options engine_options;
  engine_options.scheduler.max_batch = options.max_batch;
  const auto engine =
      Value(Engine::Create(std::move(backend.model), std::move(engine_options), telemetry.get()));
  Policy policy;
  policy.default_router = backend.own_router->name;
  policy.tenants["default"];
  policy.model_name = spec.name;
  const auto frontend = Frontend::Create(engine.get(), &routers, std::move(backend.text),
                                         std::move(policy), telemetry.get());
  RpcServer::Dependencies dependencies;
  dependencies.frontend = frontend.get();
  dependencies.routers = &routers;
  dependencies.telemetry = telemetry.get();
  dependencies.model = spec;
  dependencies.load = [&engine] { return engine->Load(); };
  RpcServer::Options rpc_options;
  rpc_options.address = "127.0.0.1:0";
  const auto rpc = Value(RpcServer::Start(rpc_options, std::move(dependencies)));
  engine->Start();
  rpc->SetReady(true);
  client::Client::Options client_options;
  client_options.address = absl::StrCat("127.0.0.1:", rpc->port());
  const auto client = Value(client::Client::Connect(std::move(client_options)));

  StreamTimes direct, grpc;
  for (int i = -5; i < streams; ++i) {  // the first ones warm up
    const Arrivals a = StreamDirectly(*frontend, i + 5, tokens),
                   b = StreamOverGrpc(*client, i + 5, tokens);
    if (i < 0) continue;
    direct.Add(a, tokens);
    grpc.Add(b, tokens);
  }
  std::cout << nlohmann::json{{"streams", streams},
                              {"tokens", tokens},
                              {"direct", direct.ToJson()},
                              {"grpc", grpc.ToJson()}}
            << std::endl;
  return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) { return penstock::Main(argc, argv); }
