#include "server/model/cuda/step/router_slots.h"

#include <algorithm>
#include <utility>

#include "routers/router.h"

namespace penstock {

RouterSlots::RouterSlots(std::int64_t layers, std::int64_t slots)
    : layers_(layers),
      slots_(static_cast<std::size_t>(slots)),
      programs_(static_cast<std::size_t>(layers * slots)) {}

std::optional<int> RouterSlots::Hold(const std::shared_ptr<const LoadedRouter>& router,
                                     std::uint64_t step) {
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].router != router) continue;
    slots_[i].last_step = step;
    return static_cast<int>(i);
  }
  // A free slot, or the one that has been idle for longest.
  std::optional<std::size_t> chosen;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].router == nullptr) {
      chosen = i;
      break;
    }
    if (slots_[i].last_step > done_) continue;
    if (!chosen || slots_[i].last_step < slots_[*chosen].last_step) chosen = i;
  }
  if (!chosen) return std::nullopt;
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    const std::optional<RouterProgram> program = router->router->Program(static_cast<int>(layer));
    if (!program) return std::nullopt;
    programs_[static_cast<std::size_t>(layer) * slots_.size() + *chosen] = *program;
  }
  slots_[*chosen] = {.router = router, .last_step = step};
  used_ = std::max(used_, static_cast<int>(*chosen) + 1);
  changed_ = true;
  return static_cast<int>(*chosen);
}

void RouterSlots::Release(std::uint64_t step) {
  done_ = step;
  for (Slot& slot : slots_) {
    if (slot.router != nullptr && slot.last_step <= done_ && slot.router.use_count() == 1)
      slot.router = nullptr;
  }
}

bool RouterSlots::TakeChanged() { return std::exchange(changed_, false); }

}  // namespace penstock
