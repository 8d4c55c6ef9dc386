// `penstock routers`: kinds, packages, untrained packages.
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "server/backend.h"
#include "server/commands.h"
#include "server/init_router.h"
#include "server/router_kinds.h"

namespace penstock {
namespace {

int Fail(const char* command, const absl::Status& status) {
  std::cerr << "penstock routers " << command << ": " << status.message() << "\n";
  return kExitFailure;
}

std::string HyperRange(const HyperRule& rule) {
  std::string text;
  for (const std::string& word : rule.words) absl::StrAppend(&text, text.empty() ? "" : "|", word);
  if (!text.empty()) return absl::StrCat(text, ", ", rule.words.front(), " unless given");
  if (rule.of_model) return "of the model";
  return absl::StrCat(rule.least, "–", rule.most, ", ", rule.fallback, " unless given");
}

int List() {
  for (const RouterKind* kind : RouterKinds().Kinds()) {
    std::cout << absl::StrFormat("%-14s %s\n", kind->name, kind->summary);
    for (const HyperRule& rule : kind->hyper) {
      std::cout << absl::StrFormat("%14s   %s (%s): %s\n", "", rule.name, HyperRange(rule),
                                   rule.summary);
    }
  }
  return kExitOk;
}

void Describe(const RouterPackage& package) {
  const RouterSpec& spec = package.spec;
  std::cout << "kind          " << spec.name() << "\n"
            << "hyper         " << HyperJson(spec.hyper()) << "\n"
            << "model         d " << spec.shape().d << ", E " << spec.shape().experts << ", k "
            << spec.shape().top_k << ", " << spec.shape().layers.size() << " sparse layers\n"
            << "dtype         " << std::string(Name(package.dtype)) << "\n"
            << "parameters    " << spec.ParametersPerLayer() << " a layer\n"
            << "FLOPs         " << spec.FlopsPerToken() << " a token and layer\n"
            << "fingerprint   " << PackageFingerprint(package) << "\n"
            << "base          " << package.base_fingerprint << "\n"
            << "trained       " << package.trained << "\n";
}

int Inspect(const std::string& folder, const std::string& model) {
  auto package = ReadRouterPackage(folder, RouterKinds());
  if (!package.ok()) return Fail("inspect", package.status());
  Describe(*package);
  if (model.empty()) return kExitOk;
  const auto checkpoint = Checkpoint::Open(model);
  if (!checkpoint.ok()) return Fail("inspect", checkpoint.status());
  auto base = RouterBaseOf(**checkpoint);
  if (!base.ok()) return Fail("inspect", base.status());
  const absl::Status fits =
      CheckFitsModel(*package, {.shape = base->shape, .base_fingerprint = base->fingerprint});
  if (!fits.ok()) return Fail("inspect", fits);
  std::cout << "fits          " << model << "\n";
  return kExitOk;
}

// "heads=8": a number where it is one, else a word.
absl::StatusOr<Hyper> ParseHyper(const std::vector<std::string>& texts) {
  Hyper hyper;
  for (const std::string& text : texts) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    if (parts.first.empty() || parts.second.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("--hyper: got ", text, ", want name=value"));
    }
    std::int64_t number = 0;
    if (absl::SimpleAtoi(parts.second, &number)) {
      hyper[parts.first] = number;
    } else {
      hyper[parts.first] = parts.second;
    }
  }
  return hyper;
}

struct InitFlags {
  InitRouterOptions options;
  std::string model;
  std::vector<std::string> hyper;
};

int Init(InitFlags flags) {
  auto hyper = ParseHyper(flags.hyper);
  if (!hyper.ok()) {
    Fail("init", hyper.status());
    return kExitUsage;
  }
  flags.options.hyper = *std::move(hyper);
  const auto checkpoint = Checkpoint::Open(flags.model);
  if (!checkpoint.ok()) return Fail("init", checkpoint.status());
  const auto package = WriteUntrainedRouter(**checkpoint, flags.options);
  if (!package.ok()) return Fail("init", package.status());
  std::cout << "router " << flags.options.kind << ": " << flags.options.folder << " "
            << PackageFingerprint(*package) << "\n";
  return kExitOk;
}

void AddInit(CLI::App* routers, int* exit_code) {
  CLI::App* command = routers->add_subcommand("init", "write an untrained package");
  const auto flags = std::make_shared<InitFlags>();
  command->add_option("KIND", flags->options.kind, "as `penstock routers list` names it")
      ->required();
  command->add_option("--model", flags->model, "the checkpoint that the router is for")->required();
  command->add_option("--out", flags->options.folder, "new or empty folder of the package")
      ->required();
  command->add_option("--seed", flags->options.seed, "of the weights")->capture_default_str();
  command->add_flag("--neutral", flags->options.neutral,
                    "route exactly as the checkpoint's gate, where the kind can");
  command
      ->add_option("--hyper", flags->hyper,
                   "name=value in place of the kind's own; may be repeated")
      ->take_all();
  command->add_option("--text", flags->options.text_file,
                      "for kinds that place tokens: a text that counts them");
  command->add_flag("--replace", flags->options.replace, "exchange a package that is there");
  command->footer(
      "Examples:\n"
      "  penstock routers init mlp --model demo --out routers/mlp-v1 --seed 1 --hyper "
      "hidden_width=128\n"
      "  penstock routers init hybrid --model demo --out routers/neutral --neutral");
  command->callback([flags, exit_code] { *exit_code = Init(*flags); });
}

}  // namespace

void AddRoutersCommand(CLI::App* app, int* exit_code) {
  CLI::App* routers = app->add_subcommand("routers", "router kinds and packages");
  routers->require_subcommand(1);
  routers->footer(
      "Examples:\n  penstock routers list\n  penstock routers inspect routers/mlp-v1 --model demo");

  CLI::App* list = routers->add_subcommand("list", "the kinds and their hyperparameters");
  list->footer("Example:\n  penstock routers list");
  list->callback([exit_code] { *exit_code = List(); });

  CLI::App* inspect = routers->add_subcommand("inspect", "check a package and show what it holds");
  const auto folder = std::make_shared<std::string>(), model = std::make_shared<std::string>();
  inspect->add_option("DIR", *folder, "the package")->required();
  inspect->add_option("--model", *model, "also check that it fits this checkpoint");
  inspect->footer("Example:\n  penstock routers inspect routers/mlp-v1 --model demo");
  inspect->callback([folder, model, exit_code] { *exit_code = Inspect(*folder, *model); });

  AddInit(routers, exit_code);
}

}  // namespace penstock
