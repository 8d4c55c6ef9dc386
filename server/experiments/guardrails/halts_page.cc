#include "server/experiments/guardrails/halts_page.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/experiments/guardrails/halt_json.h"

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxHalts = 1000, kMaxText = 4096;

}  // namespace

std::string WriteHaltsPage(const std::vector<NamedHalt>& halts) {
  Json list = Json::array();
  for (const NamedHalt& named : halts) {
    Json entry = {{"experiment", named.experiment}, {"arm", named.arm}};
    entry.update(HaltToJson(named.halt));
    list.push_back(std::move(entry));
  }
  return Json({{"halts", std::move(list)}})
             .dump(1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) +
         "\n";
}

absl::StatusOr<std::vector<NamedHalt>> ReadHaltsPage(const std::string& page) {
  std::vector<NamedHalt> halts;
  try {
    const Json list = Json::parse(page).at("halts");
    if (!list.is_array() || list.size() > kMaxHalts) {
      return absl::InvalidArgumentError(
          absl::StrCat("halts: got ", list.size(), " entries, want a list of at most ", kMaxHalts));
    }
    for (const Json& entry : list) {
      std::optional<ArmHalt> halt = HaltFromJson(entry);
      if (!halt) {
        return absl::InvalidArgumentError(absl::StrCat("source: got ",
                                                       entry.at("source").get<std::string>(),
                                                       ", want one that this server knows"));
      }
      NamedHalt named{entry.at("experiment").get<std::string>(), entry.at("arm").get<std::string>(),
                      *std::move(halt)};
      for (const std::string* text :
           {&named.experiment, &named.arm, &named.halt.reason, &named.halt.metric}) {
        if (text->size() <= kMaxText) continue;
        return absl::InvalidArgumentError(
            absl::StrCat("got a text of ", text->size(), " bytes, want at most ", kMaxText));
      }
      halts.push_back(std::move(named));
    }
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("no page of halts: ", error.what()));
  }
  return halts;
}

}  // namespace penstock
