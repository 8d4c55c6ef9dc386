#include "routers/package/router_spec.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/routers/package/sample_kinds.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing_kinds::Catalogue;
using testing_kinds::Kind;
using testing_kinds::Model;

Hyper SampleHyper() {
  return {{"width", std::int64_t{4}}, {"form", "plain"}, {"words", std::int64_t{5}}};
}

std::string Refusal(Hyper hyper, RouterShape shape = Model().shape) {
  return std::string(
      RouterSpec::Create(Kind("sample"), std::move(hyper), std::move(shape)).status().message());
}

TEST(RouterSpecTest, KnowsItsTensorsAndParameters) {
  const auto spec = RouterSpec::Create(Kind("sample"), SampleHyper(), Model().shape);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name(), "sample");
  EXPECT_EQ(spec->Number("width"), 4);
  EXPECT_EQ(spec->Word("form"), "plain");
  EXPECT_THAT(spec->Tensors()[1].shape, ElementsAre(4, 3));
  EXPECT_EQ(spec->ParametersPerLayer(), 12 + 12 + 1);  // the table of ids is not learned
  EXPECT_EQ(spec->FlopsPerToken(), 3);
}

TEST(RouterSpecTest, FillsInFallbacks) {
  EXPECT_EQ(WithFallbacks(Kind("sample"), Model().shape, {}), SampleHyper());
  EXPECT_EQ(WithFallbacks(Kind("sample"), Model().shape, {{"form", "fancy"}}).at("form"),
            HyperValue("fancy"));
}

TEST(RouterSpecTest, RefusesHyperparametersByName) {
  const auto with = [](const char* name, HyperValue value) {
    Hyper hyper = SampleHyper();
    hyper[name] = std::move(value);
    return Refusal(hyper);
  };
  EXPECT_EQ(with("width", std::int64_t{1}), "hyper.width: got 1, want a whole number of 2 to 64");
  EXPECT_EQ(with("width", "4"), "hyper.width: got \"4\", want a whole number of 2 to 64");
  EXPECT_EQ(with("width", std::int64_t{7}), "hyper.width: got 7, want an even number");
  EXPECT_EQ(with("form", "round"), "hyper.form: got \"round\", want one of plain, fancy");
  EXPECT_EQ(with("form", std::int64_t{3}), "hyper.form: got 3, want one of plain, fancy");
  EXPECT_EQ(with("words", std::int64_t{6}), "hyper.words: got 6, want 5, the model's");
  EXPECT_EQ(with("depth", std::int64_t{6}),
            "hyper: got unknown key \"depth\", want just width, form, words for kind sample");
  Hyper missing = SampleHyper();
  missing.erase("form");
  EXPECT_EQ(Refusal(missing), "hyper.form: got nothing, want a word");
}

TEST(RouterSpecTest, RefusesImpossibleShapes) {
  const auto with = [](auto change) {
    RouterShape shape = Model().shape;
    change(shape);
    return Refusal(SampleHyper(), shape);
  };
  EXPECT_EQ(with([](RouterShape& s) { s.d = 0; }), "d: got 0, want 1 to 1048576");
  EXPECT_EQ(with([](RouterShape& s) { s.experts = -1; }), "E: got -1, want 1 to 65536");
  EXPECT_EQ(with([](RouterShape& s) { s.top_k = 5; }), "k: got 5, want 1 to E (4)");
  EXPECT_EQ(with([](RouterShape& s) { s.layers = {}; }),
            "layers: got [], want at least one sparse layer");
  EXPECT_THAT(with([](RouterShape& s) {
                s.layers = {1, 1};
              }),
              HasSubstr("layers: got 1 after 1, want ascending"));
  EXPECT_THAT(with([](RouterShape& s) { s.layers = {-1}; }), HasSubstr("layers: got -1 after -1"));
}

TEST(RouterSpecTest, WritesHyperparametersCanonically) {
  EXPECT_EQ(HyperJson(SampleHyper()), R"({"form":"plain","width":4,"words":5})");
  EXPECT_EQ(HyperJson({}), "{}");
}

TEST(RouterCatalogueTest, ListsItselfSorted) {
  const auto kinds = Catalogue().Kinds();
  ASSERT_EQ(kinds.size(), 2u);
  EXPECT_EQ(kinds[0]->name, "other");
  EXPECT_EQ(kinds[1]->name, "sample");
}

TEST(RouterCatalogueTest, NamesTheKnownKindsWhenAskedForAnUnknownOne) {
  const auto found = Catalogue().Find("simple");
  EXPECT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(found.status().message(), "kind: got \"simple\", want one of other, sample");
}

TEST(RouterCatalogueDeathTest, RefusesDuplicatesAndIncompleteKinds) {
  RouterCatalogue catalogue;
  catalogue.Add(Kind("other"));
  EXPECT_DEATH(catalogue.Add(Kind("other")), "router kind other is registered twice");
  EXPECT_DEATH(catalogue.Add(RouterKind{}), "a router kind has no name");
  EXPECT_DEATH(catalogue.Add({.name = "bare", .summary = "no rules", .tensors = {}, .flops = {}}),
               "router kind bare lacks its rules");
}

}  // namespace
}  // namespace penstock
