// What a client reads from an error.
#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace penstock {

struct ErrorDetails {
  std::string reason, domain, field, description;
  std::int64_t retry_seconds = -1;  // −1: no RetryInfo
};

inline ErrorDetails DetailsOf(const grpc::Status& status) {
  ErrorDetails details;
  google::rpc::Status rich;
  if (!rich.ParseFromString(status.error_details())) return details;
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad_request;
  google::rpc::RetryInfo retry;
  for (const auto& any : rich.details()) {
    if (any.UnpackTo(&info)) {
      details.reason = info.reason();
      details.domain = info.domain();
    } else if (any.UnpackTo(&bad_request) && bad_request.field_violations_size() == 1) {
      details.field = bad_request.field_violations(0).field();
      details.description = bad_request.field_violations(0).description();
    } else if (any.UnpackTo(&retry)) {
      details.retry_seconds = retry.retry_delay().seconds();
    }
  }
  return details;
}

}  // namespace penstock
