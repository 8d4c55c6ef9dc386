#include "server/model/cuda/step/router_limits.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace penstock {
namespace {

// What h is made of.
std::string SizeOf(const RouterProgram& program) {
  if (program.form != HiddenForm::kHeads) return absl::StrCat("a hidden width of ", program.hidden);
  return absl::StrCat("heads × experts of ", program.heads, " × ", program.hidden / program.heads,
                      " = ", program.hidden);
}

}  // namespace

absl::Status CheckProgram(std::string_view kind, const std::optional<RouterProgram>& program) {
  const absl::string_view name(kind.data(), kind.size());
  if (!program) {
    return absl::InvalidArgumentError(
        absl::StrCat("kind ", name, ": no program of the GPU engine computes this router"));
  }
  if (program->hidden > kMaxHidden) {
    return absl::InvalidArgumentError(absl::StrCat("kind ", name, ": got ", SizeOf(*program),
                                                   ", want at most ", kMaxHidden, " on a GPU"));
  }
  return absl::OkStatus();
}

}  // namespace penstock
