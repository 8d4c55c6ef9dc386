#include "server/live_experiments.h"

#include <random>
#include <utility>

#include "server/base/status_macros.h"
#include "server/config/duration.h"
#include "server/policy_of_config.h"

namespace penstock {

absl::StatusOr<std::unique_ptr<LiveExperiments>> LiveExperiments::Create(Options options) {
  PENSTOCK_ASSIGN_OR_RETURN(
      std::unique_ptr<ExperimentDesk> desk,
      ExperimentDesk::Create({.exposure_log = options.exposure_log, .clock = options.clock}));
  return std::unique_ptr<LiveExperiments>(new LiveExperiments(std::move(options), std::move(desk)));
}

LiveExperiments::LiveExperiments(Options options, std::unique_ptr<ExperimentDesk> desk)
    : options_(std::move(options)),
      desk_(std::move(desk)),
      control_({.state_folder = options_.state_folder,
                .clock = options_.clock,
                .apply = options_.apply,
                .show = options_.show}),
      peers_({.fetch = options_.fetch_halts,
              .take = [this](const std::string& peer, const NamedHalt& halt) {
                control_.TakeOver(peer, halt);
              }}) {
  desk_->SetHalts([this](const std::string& name) { return HaltedArms(control_.HaltsOf(name)); });
}

LiveExperiments::~LiveExperiments() { Stop(); }

void LiveExperiments::MakeScorer(Engine* engine, RouterSet* routers) {
  PairedScorer::Options options;
  options.engine = engine;
  options.routers = routers;
  options.observers = {this};
  options.on_result = options_.on_paired;
  options.clock = options_.clock;
  options.seed = std::random_device{}();
  scorer_ = std::make_unique<PairedScorer>(std::move(options));
}

void LiveExperiments::Start(Frontend* frontend, const RouterSet* routers) {
  control_.Serve(frontend, routers);
  {
    std::lock_guard<std::mutex> lock(serving_mutex_);
    serving_ = true;
  }
  thread_ = std::thread([this] { Loop(); });
}

void LiveExperiments::StopScoring() { scorer_->Stop(); }

void LiveExperiments::Stop() {
  peers_.Stop();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
  std::lock_guard<std::mutex> lock(serving_mutex_);
  serving_ = false;
}

void LiveExperiments::OpenBooks() {
  std::lock_guard<std::mutex> lock(serving_mutex_);
  if (serving_) desk_->OnRunning(control_.Running());
}

void LiveExperiments::Configure(const v1::ServerConfig& config, Policy* policy) {
  control_.Configure(config.experiments(), policy);
  desk_->SetConfig(config);
  scorer_->Configure(PairedOfConfig(config), policy->experiments, policy->traffic_salt);
  const v1::PeersConfig& peers = config.experiments().peers();
  peers_.Configure({peers.addresses().begin(), peers.addresses().end()},
                   ToDuration(peers.interval()));
  std::lock_guard<std::mutex> lock(mutex_);
  any_ = !policy->experiments.empty();
  look_now_ = true;
  changed_.notify_one();
}

void LiveExperiments::Refresh() { Wake(); }

void LiveExperiments::Wake() {
  std::lock_guard<std::mutex> lock(mutex_);
  look_now_ = true;
  changed_.notify_one();
}

void LiveExperiments::Loop() {
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      const auto woken = [this] { return stopped_ || look_now_; };
      if (any_) {
        changed_.wait_for(lock, absl::ToChronoNanoseconds(options_.interval), woken);
      } else {
        changed_.wait(lock, woken);
      }
      if (stopped_) return;
      look_now_ = false;
    }
    DeliverTexts();
    OpenBooks();
    const absl::Time begun = options_.clock->Now();
    const std::vector<RouterExpertStats> routers = options_.expert_stats();
    desk_->Look(routers, begun);
    control_.Look(routers);
  }
}

void LiveExperiments::OnAssigned(const AdmittedRequest& request) { desk_->OnAssigned(request); }

void LiveExperiments::OnRequestEnded(const RequestOutcome& outcome) {
  const bool chosen = scorer_->Offer(outcome);
  desk_->OnRequestEnded(outcome, chosen);
  control_.OnRequestEnded(outcome);
  if (outcome.non_finite_logits) Wake();
}

void LiveExperiments::OnPairedText(const PairedText& text) {
  std::lock_guard<std::mutex> lock(texts_mutex_);
  texts_.push_back(text);
}

void LiveExperiments::OnTextDropped(const AdmittedRequest& request) {
  std::lock_guard<std::mutex> lock(texts_mutex_);
  texts_.push_back({.request = request, .control = {}, .arms = {}});
}

void LiveExperiments::DeliverTexts() {
  std::lock_guard<std::mutex> delivery(delivery_mutex_);
  std::vector<PairedText> texts;
  {
    std::lock_guard<std::mutex> lock(texts_mutex_);
    texts.swap(texts_);
  }
  for (const PairedText& text : texts) {
    desk_->OnText(text);
    control_.OnText(text);
  }
}

ExperimentSource LiveExperiments::source() {
  ExperimentSource source = desk_->source();
  source.snapshot = [this, snapshot = std::move(source.snapshot)](const std::string& experiment,
                                                                  const std::string& revision,
                                                                  bool with_units) {
    DeliverTexts();
    OpenBooks();
    return snapshot(experiment, revision, with_units);
  };
  return source;
}

std::vector<ExperimentFigures> LiveExperiments::Figures() {
  DeliverTexts();
  OpenBooks();
  return desk_->Figures();
}

}  // namespace penstock
