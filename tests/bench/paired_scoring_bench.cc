// How many requests show a difference of 1 % in mean log-probability: between arms, and by paired
// scoring of the arms' texts.
//   paired_scoring_bench SERVER CONTROL TREATMENT REQUESTS [NEW_TOKENS] [SEED]
// REQUESTS prompts an arm (questions made of templates, each asked once) are answered under the
// arm's router; every answer is then scored under the other one, which gives to the bit what live
// paired scoring computes. From the variances that came of it: requests needed at 5 %, two-sided,
// for 80 % power, by the usual formula, and the power that resampling the measured requests finds
// at that number. Prints one JSON object.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cpp/client.h"

namespace penstock {
namespace {

using client::Client;

constexpr int kConcurrency = 8;
constexpr int kResamples = 4000;
constexpr double kEffect = 0.01;  // of the mean log-probability
// Normal quantiles of 0.975 and 0.80.
constexpr double kTwoSided = 1.959964, kPower = 0.841621;

const std::vector<std::string>& Topics() {
  static const auto* const topics = new std::vector<std::string>{"the tides",
                                                                 "a bicycle",
                                                                 "photosynthesis",
                                                                 "inflation",
                                                                 "the Roman army",
                                                                 "a good essay",
                                                                 "black holes",
                                                                 "sourdough bread",
                                                                 "the water cycle",
                                                                 "chess openings",
                                                                 "a job interview",
                                                                 "vaccines",
                                                                 "the alphabet",
                                                                 "solar panels",
                                                                 "jazz music",
                                                                 "earthquakes",
                                                                 "a budget",
                                                                 "the moon",
                                                                 "honey bees",
                                                                 "the internet",
                                                                 "coral reefs",
                                                                 "public speaking",
                                                                 "steam engines",
                                                                 "sleep",
                                                                 "the Silk Road",
                                                                 "volcanoes",
                                                                 "a vegetable garden",
                                                                 "gravity",
                                                                 "a library",
                                                                 "glaciers",
                                                                 "tea",
                                                                 "the stock market",
                                                                 "owls",
                                                                 "a marathon",
                                                                 "paper",
                                                                 "thunderstorms",
                                                                 "the human heart",
                                                                 "a telescope",
                                                                 "rivers",
                                                                 "democracy"};
  return *topics;
}

const std::vector<std::string>& Questions() {
  static const auto* const questions =
      new std::vector<std::string>{"What should everybody know about $?",
                                   "Explain $ to a child.",
                                   "Write a short poem about $.",
                                   "List three facts about $.",
                                   "Why does $ matter?",
                                   "What is a common mistake about $?",
                                   "Tell me a story in which $ plays a part.",
                                   "How would you describe $ in one sentence?",
                                   "What is the history of $?",
                                   "Give me advice about $.",
                                   "What would a sceptic say about $?",
                                   "Compare $ with something similar.",
                                   "Write the first lines of a lecture on $.",
                                   "What is surprising about $?",
                                   "How does one learn more about $?",
                                   "Write a headline about $.",
                                   "What will people think about $ in a hundred years?",
                                   "Ask me three questions about $.",
                                   "Summarize what is known about $.",
                                   "What does $ have to do with mathematics?",
                                   "Write an e-mail to a friend about $.",
                                   "What is beautiful about $?",
                                   "Which words belong to $?",
                                   "What is dangerous about $?",
                                   "Describe $ for a dictionary."};
  return *questions;
}

struct Measured {
  bool ok = false;
  double own = 0;         // mean log-probability a token, under the arm that wrote the answer
  double difference = 0;  // treatment − control, mean a token of the same answer
};

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
  std::exit(1);
}

Measured Measure(Client& server, const std::string& prompt, const std::string& router,
                 const std::string& other, bool is_treatment, int new_tokens, int seed) {
  v1::TokenizeRequest tokenize;
  v1::ChatMessage& message = *tokenize.mutable_chat()->add_messages();
  message.set_role("user");
  message.set_content(prompt);
  const v1::TokenizeResponse tokens = Must(server.Tokenize(tokenize));
  v1::GenerateRequest generate;
  *generate.mutable_token_ids()->mutable_ids() = tokens.ids();
  generate.set_router(router);
  generate.mutable_sampling()->set_seed(static_cast<std::uint64_t>(seed));
  generate.mutable_stopping()->set_max_new_tokens(new_tokens);
  generate.mutable_response()->set_token_ids(true);
  generate.mutable_response()->set_logprobs(0);
  const v1::GenerateResponse answer = Must(server.Generate(generate));
  const v1::Choice& choice = answer.choices(0);
  if (choice.scores_size() == 0) return {};  // it stopped at once
  v1::ScoreRequest score;
  *score.mutable_token_ids()->mutable_ids() = tokens.ids();
  double own = 0;
  for (const v1::TokenScore& token : choice.scores()) {
    score.mutable_token_ids()->add_ids(token.token_id());
    own += token.logprob();
  }
  score.set_router(other);
  score.set_skip_tokens(tokens.ids_size());
  const double theirs = Must(server.Score(score)).total_logprob();
  const double count = choice.scores_size();
  return {true, own / count, (is_treatment ? own - theirs : theirs - own) / count};
}

struct Moments {
  double mean = 0, variance = 0;
};

Moments MomentsOf(const std::vector<double>& values) {
  Moments moments;
  for (const double value : values) moments.mean += value / static_cast<double>(values.size());
  for (const double value : values) {
    moments.variance +=
        (value - moments.mean) * (value - moments.mean) / static_cast<double>(values.size() - 1);
  }
  return moments;
}

std::vector<double> Centred(std::vector<double> values) {
  const double mean = MomentsOf(values).mean;
  for (double& value : values) value -= mean;
  return values;
}

std::vector<double> Draw(const std::vector<double>& from, int count, std::mt19937_64& generator) {
  std::uniform_int_distribution<std::size_t> index(0, from.size() - 1);
  std::vector<double> drawn;
  for (int i = 0; i < count; ++i) drawn.push_back(from[index(generator)]);
  return drawn;
}

// The share of resamples of n requests an arm that a two-sample test finds different.
double BetweenDetections(const std::vector<double>& a, const std::vector<double>& b, double shift,
                         int n, std::mt19937_64& generator) {
  int found = 0;
  for (int i = 0; i < kResamples; ++i) {
    const Moments x = MomentsOf(Draw(a, n, generator)), y = MomentsOf(Draw(b, n, generator));
    const double error = std::sqrt((x.variance + y.variance) / n);
    found += std::abs(y.mean + shift - x.mean) > kTwoSided * error;
  }
  return static_cast<double>(found) / kResamples;
}

// Of n texts, half of them from each arm.
double PairedDetections(const std::vector<double>& a, const std::vector<double>& b, double shift,
                        int n, std::mt19937_64& generator) {
  int found = 0;
  for (int i = 0; i < kResamples; ++i) {
    std::vector<double> texts = Draw(a, n / 2, generator);
    const std::vector<double> others = Draw(b, n - n / 2, generator);
    texts.insert(texts.end(), others.begin(), others.end());
    const Moments moments = MomentsOf(texts);
    found += std::abs(moments.mean + shift) > kTwoSided * std::sqrt(moments.variance / n);
  }
  return static_cast<double>(found) / kResamples;
}

// At least a sample that its own variance says something about.
int Needed(double variance, double effect) {
  const double z = (kTwoSided + kPower) / effect;
  return std::max(20, static_cast<int>(std::ceil(z * z * variance)));
}

int Main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr,
                 "usage: paired_scoring_bench SERVER CONTROL TREATMENT REQUESTS [NEW_TOKENS] "
                 "[SEED]\n");
    return 2;
  }
  const std::string routers[] = {argv[2], argv[3]};
  const int requests = std::atoi(argv[4]), new_tokens = argc > 5 ? std::atoi(argv[5]) : 24;
  const int seed = argc > 6 ? std::atoi(argv[6]) : 1;
  std::vector<std::string> prompts;
  for (const std::string& topic : Topics()) {
    for (const std::string& question : Questions()) {
      const std::size_t place = question.find('$');
      prompts.push_back(absl::StrCat(question.substr(0, place), topic, question.substr(place + 1)));
    }
  }
  if (requests < 2 || 2 * requests > static_cast<int>(prompts.size())) {
    std::fprintf(stderr, "REQUESTS: got %d, want 2 to %zu\n", requests, prompts.size() / 2);
    return 2;
  }
  std::mt19937_64 generator(static_cast<std::uint64_t>(seed));
  std::shuffle(prompts.begin(), prompts.end(), generator);
  Client::Options options;
  options.address = argv[1];
  const auto server = Must(Client::Connect(options));
  std::vector<Measured> measured(static_cast<std::size_t>(2 * requests));
  std::atomic<int> next = 0;
  std::vector<std::thread> workers;
  for (int worker = 0; worker < kConcurrency; ++worker) {
    workers.emplace_back([&] {
      for (int i = next++; i < 2 * requests; i = next++) {
        const int arm = i % 2;
        measured[static_cast<std::size_t>(i)] =
            Measure(*server, prompts[static_cast<std::size_t>(i)], routers[arm], routers[1 - arm],
                    arm == 1, new_tokens, seed + i);
        if (i % 50 == 0) std::fprintf(stderr, "%d of %d\n", i, 2 * requests);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();

  std::vector<double> own[2], difference[2];
  for (std::size_t i = 0; i < measured.size(); ++i) {
    if (!measured[i].ok) continue;
    own[i % 2].push_back(measured[i].own);
    difference[i % 2].push_back(measured[i].difference);
  }
  const Moments control = MomentsOf(own[0]), treatment = MomentsOf(own[1]);
  const double effect = kEffect * std::abs(control.mean);
  // Texts of both arms together: their variance, with half of the weight each.
  std::vector<double> both = difference[0];
  both.insert(both.end(), difference[1].begin(), difference[1].end());
  const Moments paired = MomentsOf(both);
  const int between = Needed(control.variance + treatment.variance, effect);
  const int texts = Needed(paired.variance, effect);
  const std::vector<double> a = Centred(own[0]), b = Centred(own[1]);
  std::vector<double> d0 = difference[0], d1 = difference[1];
  for (std::vector<double>* values : {&d0, &d1}) {
    for (double& value : *values) value -= paired.mean;
  }
  const nlohmann::json result = {
      {"requests", {own[0].size(), own[1].size()}},
      {"mean_logprob", {control.mean, treatment.mean}},
      {"deviation_between", {std::sqrt(control.variance), std::sqrt(treatment.variance)}},
      {"paired_difference", paired.mean},
      {"deviation_paired", std::sqrt(paired.variance)},
      {"difference_by_writer", {MomentsOf(difference[0]).mean, MomentsOf(difference[1]).mean}},
      {"effect", effect},
      {"needed_between", 2 * between},
      {"needed_paired", texts},
      {"power_between", BetweenDetections(a, b, effect, between, generator)},
      {"power_paired", PairedDetections(d0, d1, effect, texts, generator)},
      {"false_alarms_between", BetweenDetections(a, b, 0, between, generator)},
      {"false_alarms_paired", PairedDetections(d0, d1, 0, texts, generator)}};
  std::cout << result.dump(1) << std::endl;
  return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) { return penstock::Main(argc, argv); }
