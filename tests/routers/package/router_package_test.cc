#include "routers/package/router_package.h"

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "routers/package/router_json.h"
#include "tests/routers/package/sample_kinds.h"

namespace penstock {
namespace {

using nlohmann::json;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;
using testing_kinds::Catalogue;
using testing_kinds::Floats;
using testing_kinds::FolderTest;
using testing_kinds::Kind;
using testing_kinds::Model;
using testing_kinds::Start;
using testing_kinds::View;

class RouterPackageTest : public FolderTest {
 protected:
  RouterPackageTest() : package_(*InitRouter(Kind("sample"), Start())) {}

  // Saves the package with `edit` done to its router.json; the error of reading it back, less the
  // folder.
  template <typename Edit>
  std::string JsonRefusal(Edit edit) {
    json object = json::parse(FormatRouterJson(package_));
    edit(object);
    return TextRefusal(object.dump());
  }

  std::string TextRefusal(const std::string& text) {
    const std::string folder = Path("package");
    EXPECT_TRUE(SaveRouterPackage(package_, folder, /*replace=*/true).ok());
    Write(folder + "/router.json", text);
    return Message(ReadRouterPackage(folder, Catalogue()).status(), folder + "/router.json: ");
  }

  // The same with an edit of the tensors.
  template <typename Edit>
  std::string TensorRefusal(Edit edit) {
    RouterPackage package = package_;
    edit(package.tensors);
    const std::string folder = Path("package");
    EXPECT_TRUE(SaveRouterPackage(package, folder, /*replace=*/true).ok());
    return Message(ReadRouterPackage(folder, Catalogue()).status(),
                   folder + "/router.safetensors: ");
  }

  static std::string Message(const absl::Status& status, const std::string& prefix) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    const std::string message(status.message());
    EXPECT_THAT(message, StartsWith(prefix));
    return message.size() > prefix.size() ? message.substr(prefix.size()) : message;
  }

  RouterPackage package_;
};

TEST_F(RouterPackageTest, ReadsBackWhatItWrote) {
  const std::string folder = Path("mine");
  ASSERT_TRUE(SaveRouterPackage(package_, folder).ok());
  const auto read = LoadRouterPackage(folder, Catalogue(), Model());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->source, folder);
  EXPECT_EQ(read->spec.name(), "sample");
  EXPECT_EQ(read->spec.hyper(), package_.spec.hyper());
  EXPECT_EQ(read->spec.shape().layers, Model().shape.layers);
  EXPECT_EQ(read->dtype, DType::kF32);
  EXPECT_EQ(read->base_fingerprint, package_.base_fingerprint);
  EXPECT_EQ(read->trained, package_.trained);
  ASSERT_EQ(read->tensors.size(), 8u);
  for (const auto& [name, tensor] : package_.tensors) {
    const TensorView& got = read->tensors.at(name);
    EXPECT_EQ(got.shape, tensor.shape) << name;
    EXPECT_TRUE(
        std::equal(got.bytes.begin(), got.bytes.end(), tensor.bytes.begin(), tensor.bytes.end()))
        << name;
  }
  EXPECT_EQ(PackageFingerprint(*read), PackageFingerprint(package_));
}

TEST_F(RouterPackageTest, ReadsWithoutKnowingTheModel) {
  const std::string folder = Path("mine");
  ASSERT_TRUE(SaveRouterPackage(package_, folder).ok());
  const auto read = ReadRouterPackage(folder, Catalogue());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->spec.shape().vocab_size, 0);
}

TEST_F(RouterPackageTest, WritesTheKeysInTheOrderOfTheFormat) {
  const std::string text = FormatRouterJson(package_);
  std::size_t before = 0;
  for (const char* key : {"format", "kind", "hyper", "\"d\"", "\"E\"", "\"k\"", "layers", "dtype",
                          "base_fingerprint", "trained"}) {
    const std::size_t place = text.find(key);
    ASSERT_NE(place, std::string::npos) << key;
    EXPECT_GE(place, before) << key;
    before = place;
  }
}

TEST_F(RouterPackageTest, RefusesBadJson) {
  EXPECT_THAT(TextRefusal(""), HasSubstr("parse error"));
  EXPECT_THAT(TextRefusal("{\"format\": 1"), HasSubstr("parse error"));
  EXPECT_EQ(TextRefusal("[]"), "JSON: got array, want an object");
  EXPECT_EQ(TextRefusal(R"({"format": 1, "format": 1})"),
            R"(JSON: got key "format" twice, want each key once)");
  EXPECT_EQ(TextRefusal(std::string(100, '[') + std::string(100, ']')),
            "JSON: got deeper nesting, want at most 32 levels");
}

TEST_F(RouterPackageTest, RefusesEachBadKeyByName) {
  const auto set = [&](const char* key, json value) {
    return JsonRefusal([&](json& object) { object[key] = value; });
  };
  EXPECT_EQ(set("format", 2), "format: got 2, want 1");
  EXPECT_EQ(set("format", "1"), R"(format: got "1", want 1)");
  EXPECT_EQ(set("kind", "simple"), "kind: got \"simple\", want one of other, sample");
  EXPECT_EQ(set("kind", 7), "kind: got 7, want a string");
  EXPECT_EQ(set("hyper", json::array()), "hyper: got [], want an object");
  EXPECT_EQ(set("hyper", {{"width", 4.5}, {"form", "plain"}, {"words", 5}}),
            "hyper.\"width\": got 4.5, want a whole number");
  EXPECT_EQ(set("hyper", {{"width", 3}, {"form", "plain"}, {"words", 5}}),
            "hyper.width: got 3, want an even number");
  EXPECT_EQ(set("d", 3.0), "d: got 3.0, want a whole number");
  EXPECT_EQ(set("d", 18446744073709551615u), "d: got 18446744073709551615, want a whole number");
  EXPECT_EQ(set("k", 5), "k: got 5, want 1 to E (4)");
  EXPECT_EQ(set("layers", "1,2"), R"(layers: got "1,2", want a list of layer indices)");
  EXPECT_THAT(set("layers", {2, 1}), StartsWith("layers: got 1 after 2, want ascending"));
  EXPECT_EQ(set("dtype", "float64"), R"(dtype: got "float64", want float32, bfloat16 or float16)");
  EXPECT_EQ(set("base_fingerprint", "abc"),
            R"(base_fingerprint: got "abc", want 64 lowercase hexadecimal digits)");
  EXPECT_EQ(set("trained", "well"), R"(trained: got "well", want an object)");
  EXPECT_EQ(set("author", "me"),
            "JSON: got unknown key \"author\", want only the keys of format 1");
}

TEST_F(RouterPackageTest, RefusesEachMissingKeyByName) {
  for (const char* key : {"format", "kind", "hyper", "d", "E", "k", "layers", "dtype",
                          "base_fingerprint", "trained"}) {
    EXPECT_THAT(JsonRefusal([&](json& object) { object.erase(key); }),
                StartsWith(std::string(key) + ": got nothing, want "));
  }
}

TEST_F(RouterPackageTest, RefusesEachBadTensorByName) {
  using Tensors = std::map<std::string, TensorView, std::less<>>;
  EXPECT_EQ(TensorRefusal([](Tensors& t) { t.erase("layers.2.W"); }),
            "tensor \"layers.2.W\": got nothing, want shape [4, 3]");
  EXPECT_EQ(TensorRefusal([](Tensors& t) { t["layers.3.W"] = t["layers.2.W"]; }),
            "tensor \"layers.3.W\": got shape [4, 3], want no such tensor in kind sample");
  EXPECT_EQ(TensorRefusal([](Tensors& t) {
              t["layers.1.W"].shape = {3, 4};
            }),
            "tensor \"layers.1.W\": got shape [3, 4], want [4, 3]");
  EXPECT_EQ(TensorRefusal([](Tensors& t) { t["layers.1.c"].shape = {}; }),
            "tensor \"layers.1.c\": got shape [], want [1]");
  EXPECT_EQ(TensorRefusal([](Tensors& t) { t["layers.1.map"].dtype = DType::kF32; }),
            "tensor \"layers.1.map\": got dtype F32, want I32");
  EXPECT_EQ(TensorRefusal([](Tensors& t) { t["layers.1.U"].dtype = DType::kI32; }),
            "tensor \"layers.1.U\": got dtype I32, want F32");
  std::vector<float> values(12, 1.0f);
  for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    values[7] = bad;
    EXPECT_EQ(TensorRefusal([&](Tensors& t) {
                t["layers.1.W"] = View(values, {4, 3});
              }),
              "tensor \"layers.1.W\": got NaN or infinity at element 7, want finite numbers");
  }
  const std::vector<float> negative = {-0.5f};
  EXPECT_EQ(TensorRefusal([&](Tensors& t) { t["layers.2.c"] = View(negative, {1}); }),
            "tensor \"layers.2.c\": got -0.500000, want a positive number");
}

TEST_F(RouterPackageTest, NamesTheFileThatIsMissing) {
  const auto nothing = ReadRouterPackage(Path("nothing"), Catalogue());
  EXPECT_EQ(nothing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(nothing.status().message()), HasSubstr(Path("nothing") + "/router.json"));
  ASSERT_TRUE(SaveRouterPackage(package_, Path("half")).ok());
  std::filesystem::remove(Path("half") + "/router.safetensors");
  const auto half = ReadRouterPackage(Path("half"), Catalogue());
  EXPECT_THAT(std::string(half.status().message()),
              HasSubstr(Path("half") + "/router.safetensors"));
}

TEST_F(RouterPackageTest, RefusesAnotherModel) {
  const std::string folder = Path("mine");
  ASSERT_TRUE(SaveRouterPackage(package_, folder).ok());
  const auto refusal = [&](auto change) {
    RouterModel model = Model();
    change(model);
    const auto got = LoadRouterPackage(folder, Catalogue(), model);
    EXPECT_EQ(got.status().code(), absl::StatusCode::kFailedPrecondition) << got.status();
    const std::string message(got.status().message());
    EXPECT_THAT(message, StartsWith(folder + "/router.json: "));
    return message.substr(folder.size() + std::string("/router.json: ").size());
  };
  EXPECT_EQ(refusal([](RouterModel& m) { m.shape.d = 8; }), "d: got 3, want 8, the model's");
  EXPECT_EQ(refusal([](RouterModel& m) { m.shape.experts = 8; }), "E: got 4, want 8, the model's");
  EXPECT_EQ(refusal([](RouterModel& m) { m.shape.top_k = 1; }), "k: got 2, want 1, the model's");
  EXPECT_EQ(refusal([](RouterModel& m) { m.shape.layers = {1}; }),
            "layers: got [1, 2], want [1], the model's");
  EXPECT_EQ(refusal([](RouterModel& m) { m.shape.vocab_size = 9; }),
            "hyper.words: got 5, want 9, the model's");
  EXPECT_EQ(refusal([](RouterModel& m) { m.base_fingerprint = std::string(64, 'b'); }),
            "base_fingerprint: got " + std::string(64, 'a') + ", want " + std::string(64, 'b') +
                ", the model's");
}

TEST_F(RouterPackageTest, TakesAnotherBaseWhenAllowed) {
  ASSERT_TRUE(SaveRouterPackage(package_, Path("mine")).ok());
  RouterModel model = Model();
  model.base_fingerprint = std::string(64, 'b');
  model.allow_other_base = true;
  EXPECT_TRUE(LoadRouterPackage(Path("mine"), Catalogue(), model).ok());
}

TEST_F(RouterPackageTest, SavesAsAWholeOrNotAtAll) {
  const std::string folder = Path("mine");
  ASSERT_TRUE(SaveRouterPackage(package_, folder + "/").ok());
  RouterPackage other = package_;
  other.trained = R"({"step":2})";
  const absl::Status again = SaveRouterPackage(other, folder);
  EXPECT_EQ(again.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(again.message()), StartsWith(folder + ": "));
  EXPECT_EQ(ReadRouterPackage(folder, Catalogue())->trained, package_.trained);
  ASSERT_TRUE(SaveRouterPackage(other, folder, /*replace=*/true).ok());
  EXPECT_EQ(ReadRouterPackage(folder, Catalogue())->trained, other.trained);
  // Nothing is left beside it.
  int entries = 0;
  for (const auto& entry : std::filesystem::directory_iterator(Path("."))) {
    EXPECT_THAT(entry.path().string(), EndsWith("mine"));
    ++entries;
  }
  EXPECT_EQ(entries, 1);
}

TEST_F(RouterPackageTest, SaysWhyItCannotSave) {
  const absl::Status status = SaveRouterPackage(package_, Path("no/such/folder"));
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no/such/folder"));
}

TEST_F(RouterPackageTest, FingerprintFollowsTheContent) {
  const std::string before = PackageFingerprint(package_);
  EXPECT_EQ(before.size(), 64u);
  RouterPackage same = package_;
  same.trained = R"({"note":"another"})";
  same.source = "elsewhere";
  EXPECT_EQ(PackageFingerprint(same), before);
  RouterPackage other = package_;
  const std::vector<float> c = {0.75f};
  other.tensors["layers.1.c"] = View(c, {1});
  EXPECT_NE(PackageFingerprint(other), before);
  RouterStart fancy = Start();
  fancy.hyper = {{"form", "fancy"}};
  EXPECT_NE(PackageFingerprint(*InitRouter(Kind("sample"), fancy)), before);
}

}  // namespace
}  // namespace penstock
