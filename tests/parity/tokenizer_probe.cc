// The tokenizer of a checkpoint on standard input and output, for tokenizer_test.py: each line is a
// JSON request, each answer one line.
//   {"op": "encode", "text": S, "special": B} -> {"ids": [...]}
//   {"op": "decode", "ids": [...], "skip": B} -> {"text": S, "stream": S}; stream: token by token
//   {"op": "render", "template": S, "messages": [{"role": S, "content": S}], "prompt": B} ->
//   {"text": S}
// or {"error": S}. usage: tokenizer_probe [TOKENIZER_JSON]
#include <iostream>
#include <nlohmann/json.hpp>

#include "server/model/tokenizer/chat_template.h"
#include "server/model/tokenizer/incremental_decoder.h"
#include "server/model/tokenizer/tokenizer.h"

namespace penstock {
namespace {

using Json = nlohmann::json;

Json Failure(const absl::Status& status) { return {{"error", status.ToString()}}; }

Json Encode(const Tokenizer& tokenizer, const Json& request) {
  const auto ids =
      tokenizer.Encode(request.at("text").get<std::string>(), request.at("special").get<bool>());
  if (!ids.ok()) return Failure(ids.status());
  return {{"ids", *ids}};
}

Json Decode(const std::shared_ptr<const Tokenizer>& tokenizer, const Json& request) {
  const auto ids = request.at("ids").get<std::vector<int32_t>>();
  const bool skip = request.at("skip").get<bool>();
  IncrementalDecoder decoder(tokenizer, skip);
  std::string stream;
  for (const int32_t id : ids) stream += decoder.Push(id);
  stream += decoder.Finish();
  return {{"text", tokenizer->Decode(ids, skip)}, {"stream", stream}};
}

Json Render(const Json& request) {
  std::vector<ChatMessage> messages;
  for (const Json& message : request.at("messages")) {
    messages.push_back(
        {message.at("role").get<std::string>(), message.at("content").get<std::string>()});
  }
  const auto chat = ChatTemplate::Parse(request.at("template").get<std::string>());
  const auto text = chat.Render(messages, request.at("prompt").get<bool>());
  if (!text.ok()) return Failure(text.status());
  return {{"text", *text}};
}

int Serve(const char* path) {
  std::shared_ptr<const Tokenizer> tokenizer;
  if (path != nullptr) {
    auto loaded = Tokenizer::Load(path);
    if (!loaded.ok()) {
      std::cerr << loaded.status() << "\n";
      return 1;
    }
    tokenizer = *std::move(loaded);
  }
  std::string line;
  while (std::getline(std::cin, line)) {
    const Json request = Json::parse(line);
    const auto op = request.at("op").get<std::string>();
    Json answer;
    if (op == "render") {
      answer = Render(request);
    } else if (tokenizer == nullptr) {
      answer = {{"error", op + ": no tokenizer.json was given"}};
    } else {
      answer = op == "encode" ? Encode(*tokenizer, request) : Decode(tokenizer, request);
    }
    std::cout << answer.dump() << "\n" << std::flush;
  }
  return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) { return penstock::Serve(argc > 1 ? argv[1] : nullptr); }
