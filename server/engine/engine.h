// The loop: plan, execute, commit.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/engine/shadow_steps.h"
#include "server/model/model.h"
#include "server/scheduler/scheduler.h"
#include "server/telemetry/telemetry.h"

namespace penstock {

// One thread (Run) owns model and scheduler. Everything but RunStep may be called from any thread.
class Engine {
 public:
  struct Options {
    Scheduler::Options scheduler;
    // The device is lost: nothing further will run. Called once, on the engine thread, after all
    // sequences have ended.
    std::function<void(const absl::Status&)> on_lost;
    // The routers that shadow routing asks, called on the engine thread. Empty: there is none.
    ShadowSteps::Routers shadows;
  };

  static absl::StatusOr<std::unique_ptr<Engine>> Create(std::unique_ptr<Model> model,
                                                        Options options, Telemetry* telemetry,
                                                        const Clock* clock = &Clock::Real());
  ~Engine();

  const ModelSpec& model_spec() const;

  // `handler` hears every event in order, on the engine thread; it must not block. Set once, before
  // Start.
  void SetEventHandler(std::function<void(std::vector<SequenceEvent>)> handler);

  // The same for background sequences (SequenceSpec::background), which `handler` of
  // SetEventHandler does not hear of.
  void SetBackgroundHandler(std::function<void(std::vector<SequenceEvent>)> handler);

  // Hands sequences over, all or none. RESOURCE_EXHAUSTED (reason QUEUE_FULL, with retry_after):
  // too many wait. UNAVAILABLE: the engine was stopped or the device is lost. A sequence that the
  // scheduler refuses later ends with an event of kError.
  absl::Status Submit(std::vector<SequenceSpec> sequences);
  // Takes effect before the next step is planned.
  void Cancel(const std::vector<SequenceId>& ids, FinishReason reason);
  void SetTenantWeights(std::map<std::string, double> weights);
  // Replaces scheduler.max_queue, at least 1, for what is submitted from now on; what waits stays.
  void SetMaxQueue(int max_queue);
  // From the next step on; until then, and where Options::shadows is empty, none is in the sample.
  void SetShadowSampling(const ShadowSampling& sampling);
  SchedulerLoad Load() const;

  // Starts the engine thread; Stop ends it after the step in flight (live sequences get no more
  // events). Idempotent.
  void Start();
  void Stop();

  // One turn of the loop on the calling thread, for tests without Start: takes what was handed
  // over, plans, submits, and commits the oldest step once the pipeline is full or nothing more can
  // be planned. False: nothing was there to do.
  bool RunStep();

 private:
  class State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace penstock
