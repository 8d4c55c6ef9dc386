// Early returns for absl::Status and absl::StatusOr.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define PENSTOCK_CONCAT_INNER_(a, b) a##b
#define PENSTOCK_CONCAT_(a, b) PENSTOCK_CONCAT_INNER_(a, b)

#define PENSTOCK_RETURN_IF_ERROR(expression)                                  \
  do {                                                                        \
    if (absl::Status penstock_status_ = (expression); !penstock_status_.ok()) \
      return penstock_status_;                                                \
  } while (false)

#define PENSTOCK_ASSIGN_OR_RETURN(target, expression) \
  PENSTOCK_ASSIGN_OR_RETURN_(PENSTOCK_CONCAT_(penstock_or_, __LINE__), target, expression)
#define PENSTOCK_ASSIGN_OR_RETURN_(name, target, expression) \
  auto name = (expression);                                  \
  if (!name.ok()) return std::move(name).status();           \
  target = *std::move(name)
