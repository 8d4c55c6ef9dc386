// The configuration as the parts that are made once want it.
#pragma once

#include "penstock/v1/config.pb.h"
#include "server/backend.h"
#include "server/scheduler/scheduler.h"

namespace penstock {

// `config` is valid. Without `progress`.
BackendOptions BackendOptionsOfConfig(const v1::ServerConfig& config);
Scheduler::Options SchedulingOfConfig(const v1::ServerConfig& config);

}  // namespace penstock
