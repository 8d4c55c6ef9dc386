// Experiments while the server runs: what every part of them hears and when it looks.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "penstock/v1/config.pb.h"
#include "server/engine/paired_scorer.h"
#include "server/experiment_control.h"
#include "server/experiment_desk.h"
#include "server/peer_halts.h"

namespace penstock {

// The one observer of requests and of scored texts, the one thread that looks at the routers, four
// times a second, and the owner of what it feeds: measures (ExperimentDesk), guardrails and halts
// (ExperimentControl), and the scorer of texts. A non-finite logit is looked at within
// milliseconds. Scored texts wait here, so that the engine's thread waits for nobody who reads a
// report. Thread-safe.
class LiveExperiments final : public ExperimentObserver, public PairedObserver {
 public:
  struct Options {
    std::string exposure_log;  // path; empty: none
    std::string state_folder;  // of ArmHalts
    const Clock* clock = &Clock::Real();
    absl::Duration interval = absl::Milliseconds(250);
    std::function<std::vector<RouterExpertStats>()> expert_stats;
    // Brings halts and periods into force for new requests: afterwards none is assigned by those of
    // before. Calls Configure.
    std::function<void()> apply;
    std::function<void(std::vector<ExperimentSeries>)> show;
    std::function<void(const std::string& experiment, PairedResult)> on_paired;
    // As PeerHalts::Options::fetch.
    std::function<absl::StatusOr<std::string>(const std::string& address)> fetch_halts;
  };

  // Measures from now on. INVALID_ARGUMENT: the exposure log cannot be written.
  static absl::StatusOr<std::unique_ptr<LiveExperiments>> Create(Options options);
  ~LiveExperiments() override;

  // Texts can be scored from now on. Both outlive it.
  void MakeScorer(Engine* engine, RouterSet* routers);
  // Starts to look. Both outlive Stop.
  void Start(Frontend* frontend, const RouterSet* routers);
  // No text is scored any more. Irrevocable.
  void StopScoring();
  // Looks no more: nothing of what Start was given is touched afterwards.
  void Stop();

  // Takes over the configuration's experiments, and sets halts and periods of `policy`, which is of
  // the same configuration and is not in force yet.
  void Configure(const v1::ServerConfig& config, Policy* policy);
  // Revisions may have changed: a router was loaded.
  void Refresh();

  void OnAssigned(const AdmittedRequest& request) override;
  void OnRequestEnded(const RequestOutcome& outcome) override;
  void OnPairedText(const PairedText& text) override;
  void OnTextDropped(const AdmittedRequest& request) override;

  // For the services and /metrics. It must outlive them.
  ExperimentOperations* operations() { return &control_; }
  ExperimentSource source();
  std::vector<ExperimentFigures> Figures();
  // For /halts, which other replicas read.
  std::string HaltsPage() const { return WriteHaltsPage(control_.OwnHalts()); }

 private:
  LiveExperiments(Options options, std::unique_ptr<ExperimentDesk> desk);
  void Loop();
  void Wake();
  // Reports are of what requests are assigned by now. Nothing before Start and after Stop.
  void OpenBooks();
  // Hands on the texts that came since the call before: afterwards they are in reports.
  void DeliverTexts();

  const Options options_;
  const std::unique_ptr<ExperimentDesk> desk_;
  ExperimentControl control_;
  std::unique_ptr<PairedScorer> scorer_;  // set before requests come
  PeerHalts peers_;

  std::mutex serving_mutex_;
  bool serving_ = false;  // the frontend may be asked; guarded by serving_mutex_

  std::mutex delivery_mutex_;  // one delivers at a time; taken before texts_mutex_
  std::mutex texts_mutex_;
  std::vector<PairedText> texts_;  // without arms: dropped; guarded by texts_mutex_

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool any_ = false, look_now_ = false, stopped_ = false;
  std::thread thread_;
};

}  // namespace penstock
