// Thousands of random schedules: whatever comes in whatever order, every sequence gets the answer
// it would get alone, once, and every block is where it should be.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/harness.h"
#include "tests/server/scheduler/simulated_device.h"

namespace penstock {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSchedules = 1'000;
#else
constexpr int kSchedules = 10'000;
#endif

constexpr int kVocabulary = 40;

// How often what the schedules are meant to meet was met.
struct Coverage {
  int stops = 0, lengths = 0, cancels = 0, deadlines = 0, errors = 0;
  int refused_full = 0, refused_late = 0, refused_size = 0, refused_twice = 0;
  int background = 0;
  std::int64_t steps = 0, preemptions = 0, reused = 0, recomputed = 0, dropped_tokens = 0;
};

class RandomSchedule {
 public:
  RandomSchedule(std::uint64_t seed, Coverage* coverage)
      : random_(seed),
        coverage_(coverage),
        options_(RandomOptions()),
        scheduler_(Scheduler::Create(options_).value()),
        device_(options_, kVocabulary) {
    for (int i = 0; i < 2; ++i) {
      routers_.push_back(MakeRouter(absl::StrCat("router", i)));
      stems_.push_back(RandomTokens(24));
    }
    arrivals_left_ = Uniform(1, 30);
  }

  // The first thing that went wrong; empty: nothing.
  std::string Run() {
    std::int64_t quiet_steps = 0;
    while (arrivals_left_ > 0 || !scheduler_->Idle() || !in_flight_.empty()) {
      now_ += absl::Milliseconds(Uniform(0, 400));
      while (arrivals_left_ > 0 && (scheduler_->Idle() || Chance(0.4))) {
        --arrivals_left_;
        Arrive();
      }
      if (Chance(0.02)) CancelOne();
      PlanOne();
      if (!in_flight_.empty() &&
          (!planned_ || static_cast<int>(in_flight_.size()) == options_.max_uncommitted ||
           Chance(0.3))) {
        CommitOne();
      } else if (!planned_ && in_flight_.empty() && !scheduler_->Idle()) {
        Fail("nothing is planned, nothing is in flight, and ", live_.size(),
             " sequences wait for ever");
      }
      CheckEvents();
      CheckBooks();
      // Each step computes a row at least; recomputing may multiply them, by the sequences that can
      // be in each other's way.
      if (arrivals_left_ == 0 && ++quiet_steps > 4 * total_positions_ + 100)
        Fail("a sequence starves");
      if (!failure_.empty()) return failure_;
    }
    CheckEnd();
    return failure_;
  }

 private:
  struct Live {
    SequenceSpec spec;
    LoneAnswer alone;
    std::vector<TokenId> tokens;
    int scores = 0;
    int next_trace = 0;
    bool cancelled = false;
    bool failed = false;  // its next committed result is an error
  };
  struct InFlight {
    StepPlan plan;
    StepResult result;
  };

  int Uniform(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  bool Chance(double p) { return std::uniform_real_distribution<double>(0, 1)(random_) < p; }

  template <typename... Values>
  void Fail(const Values&... values) {
    if (failure_.empty()) failure_ = absl::StrCat(values...);
  }

  std::vector<TokenId> RandomTokens(int length) {
    std::vector<TokenId> tokens(length);
    for (TokenId& token : tokens) token = Uniform(0, kVocabulary - 1);
    return tokens;
  }

  Scheduler::Options RandomOptions() {
    Scheduler::Options options;
    options.max_batch = Uniform(1, 6);
    options.token_budget = options.max_batch + Uniform(0, 24);
    options.prefill_chunk = Uniform(1, 16);
    options.max_queue = Uniform(2, 12);
    options.background_rows = Uniform(1, 8);
    options.block_tokens = 1 << Uniform(0, 3);
    // From what one sequence needs to plenty.
    options.num_blocks = (Chance(0.7) ? Uniform(36, 80) : 400) / options.block_tokens;
    options.prefix_cache = Chance(0.8);
    options.share_cache_across_tenants = Chance(0.3);
    options.max_uncommitted = Chance(0.4) ? 1 : Chance(0.8) ? 2 : 3;
    options.priority_aging =
        Chance(0.2) ? absl::InfiniteDuration() : absl::Milliseconds(Uniform(100, 5000));
    if (Chance(0.5)) options.tenant_weights = {{"tenant0", 3}, {"tenant1", 0.5}};
    return options;
  }

  std::vector<TokenId> RandomPrompt() {
    if (!finished_.empty() && Chance(0.25)) {  // the next turn of a conversation
      std::vector<TokenId> prompt = finished_[Uniform(0, static_cast<int>(finished_.size()) - 1)];
      for (const TokenId token : RandomTokens(Uniform(0, 4))) prompt.push_back(token);
      return prompt;
    }
    std::vector<TokenId> prompt = stems_[Uniform(0, 1)];
    prompt.resize(Uniform(0, 24));
    for (const TokenId token : RandomTokens(Uniform(0, 6))) prompt.push_back(token);
    return prompt.empty() ? RandomTokens(1) : prompt;
  }

  SequenceSpec RandomSpec() {
    SequenceSpec spec;
    spec.id = Chance(0.1) ? Uniform(1, 5) : ++last_id_ + 100;  // some ids come again
    spec.sampling.seed = ++last_serial_;
    spec.tenant = absl::StrCat("tenant", Uniform(0, 2));
    spec.router = routers_[Chance(0.3)];
    spec.prompt = RandomPrompt();
    spec.stopping.max_new_tokens = Chance(0.08) ? 0 : Chance(0.15) ? 1 : Uniform(2, 16);
    if (Chance(0.5)) spec.stopping.stop_token_ids = RandomTokens(Uniform(1, 4));
    if (Chance(0.1)) spec.output.prompt_logprobs = 0;
    spec.output.prompt_trace = Chance(0.1);
    spec.output.router_trace = spec.output.prompt_trace || Chance(0.3);
    spec.priority = Chance(0.5) ? 5 : Uniform(0, 9);
    if (Chance(0.15)) spec.deadline = now_ + absl::Milliseconds(Uniform(-200, 8000));
    if (Chance(0.1)) spec.cache_salt = "salt";
    spec.bypass_cache = Chance(0.15);
    if (Chance(0.12)) {
      spec.background = spec.bypass_cache = true;
      spec.stopping = {.max_new_tokens = 0, .min_new_tokens = 0, .stop_token_ids = {}};
      spec.output = OutputParams();
      spec.output.prompt_logprobs = 0;
    }
    return spec;
  }

  void Arrive() {
    SequenceSpec spec = RandomSpec();
    const std::int64_t positions = static_cast<std::int64_t>(spec.prompt.size()) +
                                   std::max(spec.stopping.max_new_tokens, 1) - 1;
    const absl::Status status = scheduler_->Enqueue(spec, now_);
    absl::StatusCode expected = absl::StatusCode::kOk;
    if (positions > options_.num_blocks * options_.block_tokens) {
      expected = absl::StatusCode::kInvalidArgument;
      ++coverage_->refused_size;
    } else if (live_.contains(spec.id)) {
      expected = absl::StatusCode::kAlreadyExists;
      ++coverage_->refused_twice;
    } else if (spec.deadline <= now_) {
      expected = absl::StatusCode::kDeadlineExceeded;
      ++coverage_->refused_late;
    } else if (status.code() == absl::StatusCode::kResourceExhausted) {
      if (scheduler_->Load().waiting < options_.max_queue) Fail("refused with room in the queue");
      expected = status.code();
      ++coverage_->refused_full;
    }
    if (status.code() != expected) Fail("Enqueue of ", spec.id, ": ", status.ToString());
    if (!status.ok()) return;
    total_positions_ += positions;
    Live live;
    live.alone = RunAlone(spec, kVocabulary);
    live.failed = Chance(0.02);
    live.spec = std::move(spec);
    live_[live.spec.id] = std::move(live);
  }

  void CancelOne() {
    if (live_.empty()) return;
    auto live = live_.begin();
    std::advance(live, Uniform(0, static_cast<int>(live_.size()) - 1));
    live->second.cancelled = true;
    scheduler_->Cancel(live->first);
  }

  void PlanOne() {
    std::optional<StepPlan> plan = scheduler_->PlanStep(now_);
    planned_ = plan.has_value();
    if (!plan) return;
    ++coverage_->steps;
    for (const PlannedSequence& planned : plan->sequences) {
      const auto live = live_.find(planned.id);
      if (live == live_.end() || SerialOf(live->second.spec) != SerialOf(*planned.spec)) {
        Fail("plan ", plan->number, " has sequence ", planned.id, ", which ended");
        return;
      }
      if (live->second.cancelled)
        Fail("sequence ", planned.id, " is planned after it was cancelled");
      if (planned.spec->deadline <= now_)
        Fail("sequence ", planned.id, " is planned past its deadline");
    }
    bool of_background = false;  // once one has come, all others are behind it
    for (const PlannedSequence& planned : plan->sequences) {
      if (of_background && !planned.spec->background)
        Fail("plan ", plan->number, " has sequence ", planned.id, " behind a background one");
      of_background |= planned.spec->background;
    }
    StepResult result = device_.Run(*plan);
    for (const std::string& violation : device_.violations()) Fail(violation);
    for (std::size_t i = 0; i < plan->sequences.size(); ++i) {
      const Live& live = live_.at(plan->sequences[i].id);
      if (!live.failed) continue;
      result.sequences[i] = SequenceResult();
      result.sequences[i].status = absl::InternalError("not finite");
    }
    in_flight_.push_back({*std::move(plan), std::move(result)});
  }

  void CommitOne() {
    const InFlight oldest = std::move(in_flight_.front());
    in_flight_.pop_front();
    for (const PlannedSequence& planned : oldest.plan.sequences) {
      const auto live = live_.find(planned.id);
      const bool ended =
          live == live_.end() || SerialOf(live->second.spec) != SerialOf(*planned.spec);
      coverage_->dropped_tokens += planned.samples && ended;
    }
    scheduler_->CommitStep(oldest.plan, oldest.result, now_);
  }

  void CheckEvents() {
    for (const SequenceEvent& event : scheduler_->TakeEvents()) {
      const auto found = live_.find(event.id);
      if (found == live_.end()) {
        Fail("an event of sequence ", event.id, ", which ended or never was");
        return;
      }
      Live& live = found->second;
      for (const ScoredToken& token : event.tokens) live.tokens.push_back(token.token.token);
      const std::vector<TokenId>& alone = live.alone.output;
      if (live.tokens.size() > alone.size() ||
          !std::equal(live.tokens.begin(), live.tokens.end(), alone.begin())) {
        Fail("sequence ", event.id, " answers otherwise than alone");
      }
      for (const ScoredToken& score : event.prompt_scores) {
        if (score.token.logprob != static_cast<float>(-live.scores++)) {
          Fail("sequence ", event.id, " has its prompt's scores out of order");
        }
      }
      for (const RowTrace& trace : event.traces) {
        const int first =
            live.spec.output.prompt_trace ? 0 : static_cast<int>(live.spec.prompt.size());
        if (trace.position != first + live.next_trace++)
          Fail("sequence ", event.id, " has traces out of order");
      }
      if (event.finish) {
        CheckFinish(live, event);
        finished_.push_back(live.spec.prompt);
        finished_.back().insert(finished_.back().end(), live.tokens.begin(), live.tokens.end());
        live_.erase(found);
      }
    }
  }

  void CheckFinish(const Live& live, const SequenceEvent& event) {
    const SequenceStats& stats = event.stats;
    const int prompt = static_cast<int>(live.spec.prompt.size());
    if (stats.prompt_tokens != prompt ||
        stats.output_tokens != static_cast<int>(live.tokens.size()) ||
        stats.cached_prompt_tokens >= prompt || stats.enqueued > stats.finished ||
        (live.cancelled ? stats.finished > now_ : stats.finished != now_)) {
      Fail("sequence ", event.id, " has stats that are off");
    }
    if (live.cancelled != (*event.finish == FinishReason::kCancelled))
      Fail("sequence ", event.id, " cancelled");
    coverage_->preemptions += stats.preemptions;
    coverage_->background += live.spec.background && event.finish == FinishReason::kLength;
    switch (*event.finish) {
      case FinishReason::kStop:
      case FinishReason::kLength: {
        const bool stopped = *event.finish == FinishReason::kStop;
        ++(stopped ? coverage_->stops : coverage_->lengths);
        if (*event.finish != live.alone.finish || live.tokens.size() != live.alone.output.size()) {
          Fail("sequence ", event.id, " ends otherwise than alone");
        }
        if (event.stop_token.value_or(-1) != live.alone.stop_token)
          Fail("sequence ", event.id, " stop token");
        if (stats.admitted < stats.enqueued || stats.finished < stats.admitted)
          Fail("times of ", event.id);
        const bool sampled = live.spec.stopping.max_new_tokens > 0;
        if (sampled != (stats.first_token <= stats.finished)) Fail("first token of ", event.id);
        if (live.spec.output.prompt_logprobs && live.scores != prompt - 1)
          Fail("scores of ", event.id);
        if (live.spec.output.router_trace) {
          // Of every position but the last token's, which has no row.
          const int output = static_cast<int>(live.tokens.size()) - (stopped || !sampled ? 0 : 1);
          const int traces = output + (live.spec.output.prompt_trace ? prompt : 0);
          if (live.next_trace != traces)
            Fail("sequence ", event.id, " has ", live.next_trace, " traces");
        }
        break;
      }
      case FinishReason::kCancelled:
        ++coverage_->cancels;
        break;
      case FinishReason::kDeadline:
        ++coverage_->deadlines;
        if (live.spec.deadline > now_) Fail("sequence ", event.id, " ends before its deadline");
        break;
      case FinishReason::kError:
        ++coverage_->errors;
        if (!live.failed || event.error.message() != "not finite")
          Fail("sequence ", event.id, " fails");
        break;
    }
  }

  void CheckBooks() {
    if (const absl::Status audit = scheduler_->Audit(); !audit.ok()) Fail(audit.ToString());
    const SchedulerLoad load = scheduler_->Load();
    if (load.blocks_free + load.blocks_active + load.blocks_cached != options_.num_blocks)
      Fail("blocks leak");
    if (load.running + load.waiting + load.background != static_cast<int>(live_.size()))
      Fail("sequences leak");
    if (load.running > options_.max_batch) Fail(load.running, " sequences run");
    if (load.running + load.background == 0 && load.blocks_active != 0)
      Fail(load.blocks_active, " blocks are held by nobody");
  }

  void CheckEnd() {
    if (!live_.empty()) Fail(live_.size(), " sequences never ended");
    coverage_->reused += device_.reused_positions();
    coverage_->recomputed += device_.recomputed_positions();
  }

  std::mt19937_64 random_;
  Coverage* const coverage_;
  const Scheduler::Options options_;
  const std::unique_ptr<Scheduler> scheduler_;
  SimulatedDevice device_;
  std::vector<std::shared_ptr<const LoadedRouter>> routers_;
  std::vector<std::vector<TokenId>> stems_, finished_;
  std::map<SequenceId, Live> live_;  // ordered, so that a seed gives one schedule
  std::deque<InFlight> in_flight_;
  absl::Duration now_ = absl::Seconds(50);
  int arrivals_left_ = 0;
  SequenceId last_id_ = 0;
  std::uint64_t last_serial_ = 0;
  std::int64_t total_positions_ = 0;
  bool planned_ = false;
  std::string failure_;
};

// What an aborting check leaves behind, too.
std::uint64_t running_seed = 0;
void PrintSeed(int) {
  std::fprintf(stderr, "aborted with PENSTOCK_SCHEDULE_SEED=%llu PENSTOCK_SCHEDULES=1\n",
               static_cast<unsigned long long>(running_seed));
}

// PENSTOCK_SCHEDULES sets another number of schedules, PENSTOCK_SCHEDULE_SEED another first seed.
int FromEnvironment(const char* name, int otherwise) {
  const char* const value = std::getenv(name);
  int number = otherwise;
  if (value == nullptr) return number;
  EXPECT_TRUE(absl::SimpleAtoi(value, &number)) << name << "=" << value;
  return number;
}

TEST(SchedulerPropertyTest, EverySequenceOfRandomSchedulesAnswersOnceAndAsIfAlone) {
  const int schedules = FromEnvironment("PENSTOCK_SCHEDULES", kSchedules);
  const int first_seed = FromEnvironment("PENSTOCK_SCHEDULE_SEED", 1);
  Coverage met;
  const auto handler = std::signal(SIGABRT, PrintSeed);
  for (int i = 0; i < schedules; ++i) {
    running_seed = first_seed + i;
    const std::string failure = RandomSchedule(running_seed, &met).Run();
    ASSERT_EQ(failure, "") << "with PENSTOCK_SCHEDULE_SEED=" << running_seed
                           << " PENSTOCK_SCHEDULES=1";
  }
  std::signal(SIGABRT, handler);
  std::cout << schedules << " schedules, " << met.steps << " steps: " << met.stops << " stopped, "
            << met.lengths << " at their length, " << met.cancels << " cancelled, " << met.deadlines
            << " past deadline, " << met.errors << " failed; refused " << met.refused_full
            << " full, " << met.refused_late << " late, " << met.refused_size << " too long, "
            << met.refused_twice << " twice; " << met.preemptions << " preemptions, " << met.reused
            << " positions from the cache, " << met.recomputed << " recomputed, "
            << met.dropped_tokens << " tokens dropped; " << met.background
            << " background sequences scored\n";
  if (schedules < 1000) return;  // one seed, to look at it
  for (const std::int64_t count :
       {std::int64_t{met.stops}, std::int64_t{met.lengths}, std::int64_t{met.cancels},
        std::int64_t{met.deadlines}, std::int64_t{met.errors}, std::int64_t{met.background},
        std::int64_t{met.refused_full}, std::int64_t{met.refused_late},
        std::int64_t{met.refused_size}, std::int64_t{met.refused_twice}, met.preemptions,
        met.reused, met.recomputed, met.dropped_tokens}) {
    EXPECT_GE(count, schedules / 100) << "the schedules do not meet what they are made for";
  }
}

}  // namespace
}  // namespace penstock
