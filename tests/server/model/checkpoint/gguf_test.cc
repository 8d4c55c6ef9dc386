#include "server/model/checkpoint/gguf.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/checkpoint/half.h"
#include "tests/server/model/checkpoint/gguf_bytes.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<std::unique_ptr<const GgufFile>> Parse(const std::string& bytes) {
  return GgufFile::Parse("x.gguf", std::as_bytes(std::span(bytes)));
}

GgufBytes Sample() {
  GgufBytes file;
  file.entries = {
      {"u8", kGgufUint8, RawBytes<std::uint8_t>(200)},
      {"i8", kGgufInt8, RawBytes<std::int8_t>(-100)},
      {"u16", kGgufUint16, RawBytes<std::uint16_t>(60000)},
      {"i16", kGgufInt16, RawBytes<std::int16_t>(-30000)},
      {"u32", kGgufUint32, RawBytes<std::uint32_t>(4000000000u)},
      {"i32", kGgufInt32, RawBytes<std::int32_t>(-2000000000)},
      {"u64", kGgufUint64, RawBytes<std::uint64_t>(UINT64_MAX)},
      {"i64", kGgufInt64, RawBytes<std::int64_t>(INT64_MIN)},
      {"f32", kGgufFloat32, RawBytes<float>(0.5f)},
      {"f64", kGgufFloat64, RawBytes<double>(0.1)},
      {"bool", kGgufBool, RawBytes<std::uint8_t>(1)},
      {"string", kGgufString, GgufText("hello")},
      {"strings", kGgufArray, GgufTextArray({"a", "", "c"})},
      {"numbers", kGgufArray, GgufNumberArray<std::int32_t>(kGgufInt32, {1, -2})},
      {"nested", kGgufArray,
       RawBytes<std::uint32_t>(kGgufArray) + RawBytes<std::uint64_t>(2) +
           GgufNumberArray<std::uint8_t>(kGgufUint8, {1, 2}) +
           GgufNumberArray<std::uint8_t>(kGgufUint8, {})},
  };
  file.tensors = {{"t", {2, 3}, 0, std::string(24, '\1')}, {"v", {3}, 1, std::string(6, '\0')}};
  return file;
}

TEST(GgufTest, ReadsEveryValueType) {
  const std::string bytes = Sample().Make();
  const auto file = Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto& metadata = (*file)->metadata();
  EXPECT_EQ(std::get<std::uint64_t>(metadata.at("u8")), 200u);
  EXPECT_EQ(std::get<std::int64_t>(metadata.at("i8")), -100);
  EXPECT_EQ(std::get<std::uint64_t>(metadata.at("u16")), 60000u);
  EXPECT_EQ(std::get<std::int64_t>(metadata.at("i16")), -30000);
  EXPECT_EQ(std::get<std::uint64_t>(metadata.at("u32")), 4000000000u);
  EXPECT_EQ(std::get<std::int64_t>(metadata.at("i32")), -2000000000);
  EXPECT_EQ(std::get<std::uint64_t>(metadata.at("u64")), UINT64_MAX);
  EXPECT_EQ(std::get<std::int64_t>(metadata.at("i64")), INT64_MIN);
  EXPECT_EQ(std::get<double>(metadata.at("f32")), 0.5);
  EXPECT_EQ(std::get<double>(metadata.at("f64")), 0.1);
  EXPECT_TRUE(std::get<bool>(metadata.at("bool")));
  EXPECT_EQ(*(*file)->String("string"), "hello");
  EXPECT_THAT(*(*file)->Strings("strings"), ElementsAre("a", "", "c"));
  EXPECT_THAT(*(*file)->Integers("numbers"), ElementsAre(1, -2));
  const auto& nested =
      std::get<std::vector<GgufArray>>(std::get<GgufArray>(metadata.at("nested")).values);
  ASSERT_EQ(nested.size(), 2u);
  EXPECT_THAT(std::get<std::vector<std::uint64_t>>(nested[0].values), ElementsAre(1, 2));
}

TEST(GgufTest, ReversesExtentsToRowMajor) {
  const std::string bytes = Sample().Make();
  const auto file = Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->tensors().at("t").shape, ElementsAre(3, 2));
  EXPECT_EQ((*file)->tensors().at("t").bytes.size(), 24u);
  EXPECT_EQ((*file)->tensors().at("v").bytes.size(), 6u);
}

TEST(GgufTest, LookUpsNameKeyAndWhatIsWanted) {
  const std::string bytes = Sample().Make();
  const auto file = Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*(*file)->Integer("u8", 0, 255), 200);
  const std::vector<std::pair<absl::Status, std::string>> cases = {
      {(*file)->Integer("none", 0, 9).status(),
       "x.gguf: none: missing, want an integer from 0 to 9"},
      {(*file)->Integer("u8", 0, 9).status(),
       "u8: got something else, want an integer from 0 to 9"},
      {(*file)->Integer("u64", 0, 9).status(), "u64: got something else"},
      {(*file)->Number("u8").status(), "want a floating-point number"},
      {(*file)->String("u8").status(), "want a string"},
      {(*file)->Strings("numbers").status(), "want an array of strings"},
      {(*file)->Integers("strings").status(), "want an array of signed integers"},
      {(*file)->Tensor("none", {}).status(), "tensor \"none\": missing"},
      {(*file)->Tensor("v", {}).status(), "tensor \"v\": got shape [3], want []"},
  };
  for (const auto& [status, want] : cases) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << want;
    EXPECT_THAT(std::string(status.message()), HasSubstr(want));
  }
}

TEST(GgufTest, DequantizesBlocks) {
  const auto half = [](float value) { return RawBytes(ToHalf(value)); };
  GgufBytes file;
  std::string q4 = half(0.5f) + half(-1.0f), q8 = half(0.25f);
  for (int i = 0; i < 16; ++i) q4 += static_cast<char>(i | (15 - i) << 4);
  for (int i = 0; i < 32; ++i) q8 += static_cast<char>(i * 8 - 128);
  file.tensors = {{"q4", {32}, 3, q4},
                  {"q8", {32}, 8, q8},
                  {"half", {2}, 1, half(1.5f) + half(-2.0f)},
                  {"full", {1}, 0, RawBytes(3.25f)}};
  const std::string bytes = file.Make();
  const auto parsed = Parse(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const auto values = [&parsed](const std::string& name) {
    const GgufTensor& tensor = (*parsed)->tensors().at(name);
    std::vector<float> out(tensor.NumElements());
    Dequantize(tensor, out);
    return out;
  };
  const std::vector<float> q4_values = values("q4"), q8_values = values("q8");
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(q4_values[i], i * 0.5f - 1);
    EXPECT_EQ(q4_values[i + 16], (15 - i) * 0.5f - 1);
  }
  for (int i = 0; i < 32; ++i) EXPECT_EQ(q8_values[i], (i * 8 - 128) * 0.25f);
  EXPECT_THAT(values("half"), ElementsAre(1.5f, -2.0f));
  EXPECT_THAT(values("full"), ElementsAre(3.25f));
}

TEST(GgufTest, RefusesEveryTruncation) {
  GgufBytes sample = Sample();
  sample.tensors.pop_back();  // so that no padding ends the file
  std::string whole = sample.Make();
  whole.resize(whole.size() - 8);
  ASSERT_TRUE(Parse(whole).ok());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const auto file = Parse(whole.substr(0, size));
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << size;
    EXPECT_THAT(std::string(file.status().message()), HasSubstr("x.gguf: ")) << size;
  }
}

TEST(GgufTest, SurvivesEveryFlippedByte) {
  const std::string whole = Sample().Make();
  int refused = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (char flip : {'\x01', '\x80', '\xFF'}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      refused += Parse(damaged).ok() ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 500);
}

TEST(GgufTest, RefusesDamageNamingWhatIsWrong) {
  struct Case {
    std::function<void(GgufBytes&)> damage;
    std::string want;
  };
  const auto entry = [](std::uint32_t type, const std::string& value) {
    return [=](GgufBytes& file) { file.entries = {{"k", type, value}}, file.tensors.clear(); };
  };
  const auto tensor = [](GgufBytes::Tensor tensor) {
    return [=](GgufBytes& file) { file.tensors = {tensor}; };
  };
  std::string deep;
  for (int i = 0; i < 9; ++i)
    deep += RawBytes<std::uint32_t>(kGgufArray) + RawBytes<std::uint64_t>(1);
  const std::string body(64, '\0');
  const std::vector<Case> cases = {
      {[](GgufBytes& f) { f.magic = "GGML"; }, "does not start with \"GGUF\""},
      {[](GgufBytes& f) { f.version = 2; }, "got GGUF version 2, want 3"},
      {[](GgufBytes& f) { f.version = 0x03000000; }, "got GGUF version 50331648, want 3"},
      {[](GgufBytes& f) { f.entries.push_back(f.entries[0]); }, "key \"u8\": stands twice"},
      {[](GgufBytes& f) { f.tensors.push_back(f.tensors[0]); }, "tensor \"t\": stands twice"},
      {[](GgufBytes& f) { f.entries[0].key.clear(); }, "got a name of 0 bytes"},
      {entry(13, ""), "got value type 13"},
      {entry(kGgufBool, RawBytes<std::uint8_t>(2)), "got 2 for a boolean"},
      {entry(kGgufString, RawBytes<std::uint64_t>(UINT64_MAX)), "cut short"},
      {entry(kGgufArray, RawBytes<std::uint32_t>(99) + RawBytes<std::uint64_t>(0)),
       "value type 99"},
      {entry(kGgufArray, RawBytes<std::uint32_t>(kGgufUint8) + RawBytes<std::uint64_t>(1ull << 60)),
       "cut short"},
      {entry(kGgufArray, deep), "nested deeper than 8"},
      {[](GgufBytes& f) {
         f.entries = {{"general.alignment", kGgufUint32, RawBytes<std::uint32_t>(0)}};
       },
       "general.alignment"},
      {[](GgufBytes& f) {
         f.entries = {{"general.alignment", kGgufUint32, RawBytes<std::uint32_t>(24)}};
       },
       "general.alignment: got 24, want a power of two"},
      {tensor({"w", {1, 1, 1, 1, 1}, 0, body}), "tensor \"w\": got 5 axes"},
      {tensor({"w", {0}, 0, body}), "tensor \"w\": got extent 0"},
      {tensor({"w", {1ull << 63}, 0, body}), "got extent 9223372036854775808"},
      {tensor({"w", {32}, 2, body}), "tensor \"w\": got type Q4_0, want F32, F16, Q4_1 or Q8_0"},
      {tensor({"w", {32}, 30, body}), "tensor \"w\": got type BF16"},
      {tensor({"w", {32}, 4, body}), "tensor \"w\": got type 4,"},
      {tensor({"w", {32}, 4000000000u, body}), "tensor \"w\": got type 4000000000"},
      {tensor({"w", {16}, 3, body}),
       "tensor \"w\": got rows of 16, want a multiple of 32 for Q4_1"},
      {tensor({"w", {4}, 0, body, 8}), "tensor \"w\": got offset 8, want a multiple of 32"},
      {tensor({"w", {4}, 0, body, 64}), "at offset 64, want within"},
      {tensor({"w", {4}, 0, body, -32}), "want within"},
      {tensor({"w", {17}, 0, body}), "tensor \"w\": got [17] at offset 0, want within"},
      {tensor({"w", {1ull << 32, 1ull << 32}, 0, body}),
       "tensor \"w\": got [4294967296, 4294967296]"},
      {tensor({"w", {1ull << 62}, 0, body}), "tensor \"w\": got [4611686018427387904]"},
  };
  for (const Case& bad : cases) {
    GgufBytes file = Sample();
    bad.damage(file);
    const auto parsed = Parse(file.Make());
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << bad.want;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(bad.want));
  }
}

TEST(GgufTest, OpensFiles) {
  TemporaryFolder folder;
  WriteFile(folder / "a.gguf", Sample().Make());
  const auto file = GgufFile::Open(folder / "a.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->path(), folder / "a.gguf");
  EXPECT_EQ(GgufFile::Open(folder / "none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace penstock
