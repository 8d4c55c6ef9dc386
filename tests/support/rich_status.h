// A gRPC status with google.rpc details, as the real server makes it.
#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace penstock {

inline grpc::Status RichStatus(grpc::StatusCode code, const std::string& message,
                               const std::string& reason, const std::string& field = "",
                               int retry_after_seconds = 0) {
  google::rpc::Status rich;
  rich.set_code(code);
  rich.set_message(message);
  google::rpc::ErrorInfo error_info;
  error_info.set_reason(reason);
  error_info.set_domain("penstock");
  rich.add_details()->PackFrom(error_info);
  if (!field.empty()) {
    google::rpc::BadRequest bad;
    bad.add_field_violations()->set_field(field);
    bad.mutable_field_violations(0)->set_description(message);
    rich.add_details()->PackFrom(bad);
  }
  if (retry_after_seconds > 0) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(retry_after_seconds);
    rich.add_details()->PackFrom(retry);
  }
  return {code, message, rich.SerializeAsString()};
}

}  // namespace penstock
