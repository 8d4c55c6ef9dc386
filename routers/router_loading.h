// From packages to routers.
#pragma once

#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "routers/package/router_package.h"
#include "routers/router.h"
#include "routers/router_registry.h"

namespace penstock {

// A router with tensors of its own: the package's files may go afterwards. Errors as
// CheckFitsModel; INVALID_ARGUMENT for a dtype other than fp32, bf16 and fp16;
// RESOURCE_EXHAUSTED where the device has no memory for them.
absl::StatusOr<std::shared_ptr<const Router>> MakeRouter(const RouterPackage& package,
                                                         const RouterModel& model,
                                                         const RouterOptions& options);

// The checkpoint's own gates as a package, under the reserved name kCheckpointRouter. gates: [E, d]
// per sparse layer, borrowed during the call. INVALID_ARGUMENT names a gate of wrong shape or
// dtype, or with a NaN or infinity.
absl::StatusOr<RouterPackage> CheckpointRouterPackage(const RouterModel& model,
                                                      std::span<const TensorView> gates);

}  // namespace penstock
