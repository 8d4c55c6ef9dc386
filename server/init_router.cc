#include "server/init_router.h"

#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "routers/package/router_start.h"
#include "server/backend.h"
#include "server/base/status_macros.h"
#include "server/model/tokenizer/tokenizer.h"
#include "server/router_kinds.h"

namespace penstock {
namespace {

absl::StatusOr<std::vector<std::int64_t>> CountTokens(const Checkpoint& checkpoint,
                                                      const std::string& text_file) {
  std::ifstream file(text_file, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf()))
    return absl::NotFoundError(absl::StrCat(text_file, ": cannot be read, or is empty"));
  PENSTOCK_ASSIGN_OR_RETURN(const auto tokenizer,
                            Tokenizer::Load(checkpoint.folder() + "/tokenizer.json"));
  PENSTOCK_ASSIGN_OR_RETURN(const std::vector<std::int32_t> ids,
                            tokenizer->Encode(text.str(), /*parse_special=*/false));
  std::vector<std::int64_t> counts(checkpoint.config().vocab_size, 0);
  for (const std::int32_t id : ids) ++counts[id];
  return counts;
}

}  // namespace

absl::StatusOr<RouterPackage> WriteUntrainedRouter(const Checkpoint& checkpoint,
                                                   const InitRouterOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(const RouterKind* kind, RouterKinds().Find(options.kind));
  PENSTOCK_ASSIGN_OR_RETURN(RouterBase base, RouterBaseOf(checkpoint));
  RouterStart start;
  start.model.shape = std::move(base.shape);
  start.model.base_fingerprint = std::move(base.fingerprint);
  start.gates = std::move(base.gates);
  start.seed = options.seed;
  start.neutral = options.neutral;
  start.hyper = options.hyper;
  if (!options.text_file.empty()) {
    PENSTOCK_ASSIGN_OR_RETURN(start.token_counts, CountTokens(checkpoint, options.text_file));
  }
  PENSTOCK_ASSIGN_OR_RETURN(RouterPackage package, InitRouter(*kind, start));
  PENSTOCK_RETURN_IF_ERROR(SaveRouterPackage(package, options.folder, options.replace));
  return package;
}

}  // namespace penstock
