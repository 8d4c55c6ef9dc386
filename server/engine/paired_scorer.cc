#include "server/engine/paired_scorer.h"

#include <algorithm>
#include <set>
#include <utility>

namespace penstock {
namespace {

// Ids of the frontend's sequences are below.
constexpr SequenceId kFirstId = SequenceId{1} << 63;
// No tenant has this name: a share of the scheduler's of its own.
constexpr char kTenant[] = "paired scoring";

bool WasAnsweredByItsArm(const RequestOutcome& outcome) {
  const std::string& reason = outcome.request.choice.reason;
  return (reason == "experiment" || reason == "switchback") && outcome.request.generates &&
         outcome.code == absl::StatusCode::kOk && !outcome.prompt.empty() &&
         !outcome.answer.empty() &&
         // More than one choice: the sum is not the first one's.
         outcome.logprob_count == static_cast<int>(outcome.answer.size());
}

}  // namespace

PairedScorer::PairedScorer(Options options) : options_(std::move(options)), random_(options_.seed) {
  options_.engine->SetBackgroundHandler(
      [this](const std::vector<SequenceEvent>& events) { OnEvents(events); });
}

void PairedScorer::Configure(const PairedSampling& sampling, std::vector<Experiment> experiments,
                             std::string traffic_salt) {
  std::lock_guard<std::mutex> lock(mutex_);
  sampling_ = sampling;
  experiments_ = std::move(experiments);
  traffic_salt_ = std::move(traffic_salt);
}

std::string PairedScorer::RevisionOf(const Experiment& experiment) const {
  std::map<std::string, std::string> fingerprints;
  for (const auto& router : options_.routers->List()) {
    fingerprints[router->name] = router->fingerprint;
  }
  return Revision(experiment, traffic_salt_, fingerprints);
}

const Experiment* PairedScorer::FindExperiment(const std::string& name) const {
  const auto found = std::find_if(experiments_.begin(), experiments_.end(),
                                  [&](const Experiment& e) { return e.name == name; });
  return found == experiments_.end() ? nullptr : &*found;
}

bool PairedScorer::Offer(const RequestOutcome& outcome) {
  if (!WasAnsweredByItsArm(outcome)) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  const std::string& name = outcome.request.choice.experiment;
  const Experiment* const experiment = FindExperiment(name);
  if (experiment == nullptr || stopped_) return false;
  const double share = PairedShare(sampling_, *experiment, outcome.request.choice.arm);
  if (std::uniform_real_distribution<double>(0, 1)(random_) >= share) return false;
  StartLocked();  // what waited for too long makes room
  std::shared_ptr<Text> text = TextOf(outcome, *experiment);
  PairedResult dropped = PairedResult::kScored;
  if (text == nullptr) {
    dropped = PairedResult::kFailed;
  } else if (static_cast<int>(waiting_.size()) >= sampling_.max_waiting) {
    dropped = PairedResult::kQueueFull;
  } else if (TooCostly()) {
    dropped = PairedResult::kOverCost;
  }
  if (dropped != PairedResult::kScored) {
    DropLocked(outcome.request, dropped);
    return true;
  }
  reserved_rows_ += text->rows();
  waiting_.push_back(std::move(text));
  StartLocked();
  return true;
}

// nullptr: the experiment or some arm's package is not what the request's revision was made of.
std::shared_ptr<PairedScorer::Text> PairedScorer::TextOf(const RequestOutcome& outcome,
                                                         const Experiment& experiment) const {
  if (RevisionOf(experiment) != outcome.request.choice.revision) return nullptr;
  auto text = std::make_shared<Text>();
  text->result.request = outcome.request;
  text->result.control = experiment.control;
  text->result.tokens = static_cast<int>(outcome.answer.size());
  std::vector<Arm> arms = experiment.arms;
  std::sort(arms.begin(), arms.end(), [](const Arm& a, const Arm& b) { return a.name < b.name; });
  for (const Arm& arm : arms) {
    const auto router = options_.routers->Find(arm.router);
    if (!router.ok()) return nullptr;
    const bool own = arm.name == outcome.request.choice.arm;
    if (own && (*router)->fingerprint != outcome.request.fingerprint) return nullptr;
    text->result.arms.push_back({arm.name, own ? outcome.logprob_sum : 0.0});
    if (!own) text->others.push_back({arm.name, *router});
  }
  text->tokens = outcome.prompt;
  text->prompt = static_cast<int>(outcome.prompt.size());
  text->tokens.insert(text->tokens.end(), outcome.answer.begin(), outcome.answer.end());
  text->ended = options_.clock->Monotonic();
  return text;
}

bool PairedScorer::TooCostly() const {
  if (sampling_.max_cost <= 0) return true;
  const SchedulerLoad load = options_.engine->Load();
  const auto background = static_cast<double>(load.background_rows + reserved_rows_);
  return background > sampling_.max_cost * (static_cast<double>(load.traffic_rows) + background);
}

void PairedScorer::StartLocked() {
  const absl::Duration now = options_.clock->Monotonic();
  while (!stopped_ && !waiting_.empty()) {
    const bool late = now - waiting_.front()->ended > kPatience;
    if (!late && running_texts_ == kRunning) return;
    const std::shared_ptr<Text> text = std::move(waiting_.front());
    waiting_.pop_front();
    if (late) {
      EndLocked(*text, PairedResult::kTooLate);
      continue;
    }
    std::vector<SequenceSpec> sequences;
    std::map<SequenceId, Place> places;
    for (const ArmRouter& other : text->others) {
      SequenceSpec& spec = sequences.emplace_back();
      spec.id = kFirstId + ++last_id_;
      spec.tenant = kTenant;
      spec.router = other.router;
      spec.prompt = text->tokens;
      spec.stopping.max_new_tokens = 0;
      spec.output.prompt_logprobs = 0;
      spec.background = spec.bypass_cache = true;
      const auto arm = std::find_if(text->result.arms.begin(), text->result.arms.end(),
                                    [&](const auto& score) { return score.arm == other.arm; });
      places[spec.id] = {.text = text,
                         .arm = static_cast<std::size_t>(arm - text->result.arms.begin())};
    }
    text->open = static_cast<int>(sequences.size());
    if (!options_.engine->Submit(std::move(sequences)).ok()) {
      EndLocked(*text, PairedResult::kTooLate);
      continue;
    }
    running_.merge(places);
    ++running_texts_;
  }
}

void PairedScorer::OnEvents(const std::vector<SequenceEvent>& events) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const SequenceEvent& event : events) {
    const auto found = running_.find(event.id);
    if (found == running_.end()) continue;
    Place& place = found->second;
    const std::shared_ptr<Text> text = place.text;
    for (const ScoredToken& score : event.prompt_scores) {
      if (place.position++ >= text->prompt)
        text->result.arms[place.arm].logprob += static_cast<double>(score.token.logprob);
    }
    if (!event.finish) continue;
    text->failed |= *event.finish == FinishReason::kError;
    text->late |= *event.finish != FinishReason::kError && *event.finish != FinishReason::kLength;
    running_.erase(found);
    if (--text->open > 0) continue;
    --running_texts_;
    EndLocked(*text, text->failed ? PairedResult::kFailed
                     : text->late ? PairedResult::kTooLate
                                  : PairedResult::kScored);
  }
  StartLocked();
}

void PairedScorer::EndLocked(const Text& text, PairedResult result) {
  reserved_rows_ -= text.rows();
  if (result != PairedResult::kScored) return DropLocked(text.result.request, result);
  // Observers first: whoever sees the count may ask them.
  for (PairedObserver* const observer : options_.observers) observer->OnPairedText(text.result);
  if (options_.on_result) options_.on_result(text.result.request.choice.experiment, result);
}

void PairedScorer::DropLocked(const AdmittedRequest& request, PairedResult result) {
  for (PairedObserver* const observer : options_.observers) observer->OnTextDropped(request);
  if (options_.on_result) options_.on_result(request.choice.experiment, result);
}

void PairedScorer::Stop() {
  std::vector<SequenceId> ids;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    for (const std::shared_ptr<Text>& text : waiting_) EndLocked(*text, PairedResult::kTooLate);
    waiting_.clear();
    for (const auto& [id, place] : running_) ids.push_back(id);
  }
  options_.engine->Cancel(ids, FinishReason::kCancelled);
}

int PairedScorer::pending() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int>(waiting_.size()) + running_texts_;
}

}  // namespace penstock
