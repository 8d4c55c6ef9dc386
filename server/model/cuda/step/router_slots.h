// Which routers the device knows, and where their programs stand.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/router_program.h"
#include "server/scheduler/loaded_router.h"

namespace penstock {

// Programs are rewritten between steps; nothing else changes when a router comes or goes. A slot is
// held by the steps in flight that use it, and keeps its router alive until none does.
class RouterSlots {
 public:
  RouterSlots(std::int64_t layers, std::int64_t slots);

  // The router's slot, taken and filled if it has none. nullopt: all slots are held by steps in
  // flight, or the router has no program. `step` rises.
  std::optional<int> Hold(const std::shared_ptr<const LoadedRouter>& router, std::uint64_t step);

  // Steps up to `step` are done. Frees routers that nothing else holds.
  void Release(std::uint64_t step);

  // [layers, slots]: what the device's copy must be. `changed` since it was last asked.
  const std::vector<RouterProgram>& programs() const { return programs_; }
  bool TakeChanged();

  // The slots below this have been in use at some time.
  int used() const { return used_; }
  const LoadedRouter* router(int slot) const {
    return slots_[static_cast<std::size_t>(slot)].router.get();
  }

 private:
  struct Slot {
    std::shared_ptr<const LoadedRouter> router;
    std::uint64_t last_step = 0;
  };

  const std::int64_t layers_;
  std::vector<Slot> slots_;
  std::vector<RouterProgram> programs_;
  std::uint64_t done_ = 0;
  int used_ = 0;
  bool changed_ = true;
};

}  // namespace penstock
