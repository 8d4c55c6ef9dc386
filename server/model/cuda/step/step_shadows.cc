#include "server/model/cuda/step/step_shadows.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/base/check.h"

namespace penstock {
namespace {

bool HasLogits(const RouterSlots& slots, int slot) {
  return slots.programs()[static_cast<std::size_t>(slot)].form != HiddenForm::kTable;
}

class Arrangement {
 public:
  // Routers with rows that count.
  Arrangement(const WrittenStep& step, const RouterSlots& serving, const RouterProgram* programs) {
    for (const WrittenStep::RouterShare& share : step.routers) {
      if (share.counted_rows == 0 || shadows_.routers.num_serving == ShadowRouters::kMax) continue;
      const LoadedRouter* router = serving.router(share.slot);
      PENSTOCK_CHECK(router != nullptr) << "slot " << share.slot;
      routers_.push_back(router);
      Add(*router, {.programs = programs + share.slot,
                    .serves = share.slot,
                    .has_logits = HasLogits(serving, share.slot)});
      ++shadows_.routers.num_serving;
    }
  }

  // Bit i: routers[i] serves, under another name.
  std::uint32_t ServedByOthers(const std::string& name) const {
    std::uint32_t mask = 0;
    for (std::size_t i = 0; i < routers_.size(); ++i) {
      if (routers_[i]->name != name) mask |= std::uint32_t{1} << i;
    }
    return mask;
  }

  // The router's place among those that serve.
  std::optional<std::size_t> PlaceOf(const LoadedRouter* router) const {
    const auto found = std::find(routers_.begin(), routers_.end(), router);
    if (found == routers_.end()) return std::nullopt;
    return static_cast<std::size_t>(found - routers_.begin());
  }

  ShadowRouter& at(std::size_t place) { return shadows_.routers.routers[place]; }
  std::size_t room() const {
    return static_cast<std::size_t>(ShadowRouters::kMax - shadows_.routers.num_routers);
  }
  void LeaveOut() { ++shadows_.left_out; }

  void Add(const LoadedRouter& router, const ShadowRouter& added) {
    shadows_.routers.routers[shadows_.routers.num_routers++] = added;
    shadows_.names.push_back(router.name);
  }

  StepShadows Take() && {
    const ShadowRouter* routers = shadows_.routers.routers;
    const bool asks = std::any_of(routers, routers + shadows_.routers.num_routers,
                                  [](const ShadowRouter& router) { return router.asked_of != 0; });
    return asks ? std::move(shadows_) : StepShadows{};
  }

 private:
  std::vector<const LoadedRouter*> routers_;  // those that serve
  StepShadows shadows_;
};

}  // namespace

StepShadows ArrangeShadows(const StepPlan& plan, const WrittenStep& step,
                           const RouterSlots& serving, RouterSlots* asked,
                           const ShadowPrograms& programs) {
  Arrangement arrangement(step, serving, programs.serving);
  std::vector<std::pair<const std::shared_ptr<const LoadedRouter>*, std::uint32_t>> others;
  for (const std::shared_ptr<const LoadedRouter>& shadow : plan.shadows) {
    const std::uint32_t of = arrangement.ServedByOthers(shadow->name);
    if (of == 0) continue;
    if (const std::optional<std::size_t> place = arrangement.PlaceOf(shadow.get())) {
      arrangement.at(*place).asked_of = of;
      continue;
    }
    others.emplace_back(&shadow, of);
  }
  // Numbers of the steps in the sample are spread evenly.
  const std::size_t first = others.size() > arrangement.room() ? plan.number % others.size() : 0;
  for (std::size_t i = 0; i < others.size(); ++i) {
    const auto& [shadow, of] = others[(first + i) % others.size()];
    const std::optional<int> slot =
        arrangement.room() > 0 ? asked->Hold(*shadow, plan.number) : std::nullopt;
    if (!slot) {
      arrangement.LeaveOut();
      continue;
    }
    arrangement.Add(**shadow, {.programs = programs.asked + *slot,
                               .has_logits = HasLogits(*asked, *slot),
                               .asked_of = of});
  }
  return std::move(arrangement).Take();
}

std::vector<ShadowCounts> ReadShadows(const StepShadows& shadows, const ModelSpec& spec,
                                      const RouteAgreement* agreements,
                                      const std::int32_t* expert_rows) {
  std::vector<ShadowCounts> read;
  for (std::size_t layer = 0; layer < spec.sparse_layers.size(); ++layer) {
    for (int serving = 0; serving < shadows.routers.num_serving; ++serving) {
      for (int shadow = 0; shadow < shadows.routers.num_routers;
           ++shadow, ++agreements, expert_rows += spec.num_experts) {
        if (agreements->rows + agreements->failed == 0) continue;
        ShadowCounts& counts = read.emplace_back();
        counts.router = shadows.names[static_cast<std::size_t>(serving)];
        counts.shadow = shadows.names[static_cast<std::size_t>(shadow)];
        counts.layer = spec.sparse_layers[layer];
        counts.rows = agreements->rows;
        counts.overlap = agreements->overlap;
        counts.kl_rows = agreements->kl_rows;
        counts.kl = agreements->kl;
        counts.entropy = agreements->entropy;
        counts.slots.assign(expert_rows, expert_rows + spec.num_experts);
        counts.failed = agreements->failed;
      }
    }
  }
  return read;
}

}  // namespace penstock
