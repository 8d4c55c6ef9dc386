#include "routers/package/safetensors.h"

#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "routers/package/safetensors_writer.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SafetensorsTest : public ::testing::Test {
 protected:
  SafetensorsTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "safetensors_test_XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~SafetensorsTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

  std::size_t FilesInFolder() const {
    const std::filesystem::directory_iterator files(folder_);
    return std::distance(begin(files), end(files));
  }

  std::string folder_;
};

std::string Prefixed(std::uint64_t length, const std::string& rest) {
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + rest;
}

std::string FileOf(const std::string& header, const std::string& body) {
  return Prefixed(header.size(), header + body);
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Parse(const std::string& file) {
  return SafetensorsFile::Parse("x.safetensors", std::as_bytes(std::span(file)));
}

template <typename T>
TensorView View(DType dtype, std::vector<std::int64_t> shape, const std::vector<T>& values) {
  return {.dtype = dtype, .shape = std::move(shape), .bytes = std::as_bytes(std::span(values))};
}

std::string Bytes(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

TEST_F(SafetensorsTest, ReadsBackWhatItWrote) {
  const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
  const std::vector<std::int32_t> table = {7, 8};
  const std::vector<std::uint16_t> halves = {0x3F80};
  const std::vector<std::pair<std::string, TensorView>> tensors = {
      {"w", View(DType::kF32, {2, 3}, weights)},
      {"table \"quoted\" ü", View(DType::kI32, {2}, table)},
      {"empty", View(DType::kF16, {0, 4}, std::vector<std::uint16_t>())},
      {"scalar", View(DType::kBF16, {}, halves)}};
  ASSERT_TRUE(
      WriteSafetensors(Path("a.safetensors"), tensors, {{"format", "pt"}, {"by", "us"}}).ok());

  const auto file = SafetensorsFile::Open(Path("a.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), tensors.size());
  for (const auto& [name, want] : tensors) {
    const TensorView& got = (*file)->tensors().at(name);
    EXPECT_EQ(got.dtype, want.dtype) << name;
    EXPECT_EQ(got.shape, want.shape) << name;
    EXPECT_EQ(Bytes(got), Bytes(want)) << name;
  }
  EXPECT_EQ((*file)->metadata().at("by"), "us");
  EXPECT_EQ((*file)->path(), Path("a.safetensors"));
  EXPECT_EQ(FilesInFolder(), 1u) << "a temporary file was left behind";
}

TEST_F(SafetensorsTest, StartsTensorsAligned) {
  const std::vector<double> values = {1};
  for (const std::string name :
       {"a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "abcdefgh"}) {
    const std::vector<std::pair<std::string, TensorView>> tensors = {
        {name, View(DType::kF64, {1}, values)}};
    ASSERT_TRUE(WriteSafetensors(Path(name), tensors, {}).ok());
    const auto file = SafetensorsFile::Open(Path(name));
    ASSERT_TRUE(file.ok()) << file.status();
    const auto address = reinterpret_cast<std::uintptr_t>((*file)->tensors().at(name).bytes.data());
    EXPECT_EQ(address % 8, 0u) << name;
  }
}

TEST_F(SafetensorsTest, OverwritesByRenaming) {
  const std::vector<float> first = {1}, second = {2};
  const std::string path = Path("a.safetensors");
  const auto write = [&](const std::vector<float>& values) {
    const std::vector<std::pair<std::string, TensorView>> tensors = {
        {"w", View(DType::kF32, {1}, values)}};
    return WriteSafetensors(path, tensors);
  };
  ASSERT_TRUE(write(first).ok());
  const auto before = SafetensorsFile::Open(path);
  ASSERT_TRUE(before.ok());
  ASSERT_TRUE(write(second).ok());
  const auto after = SafetensorsFile::Open(path);
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(Bytes((*before)->tensors().at("w")), Bytes(View(DType::kF32, {1}, first)));
  EXPECT_EQ(Bytes((*after)->tensors().at("w")), Bytes(View(DType::kF32, {1}, second)));
}

TEST_F(SafetensorsTest, RefusesToWriteWhatCannotBeRead) {
  const std::vector<float> values = {1, 2};
  const TensorView good = View(DType::kF32, {2}, values);
  TensorView negative = good, huge = good, longer = good;
  negative.shape = {-2, -1};
  huge.shape = {std::int64_t{1} << 62, 4};
  longer.shape = {3};
  using Tensors = std::vector<std::pair<std::string, TensorView>>;
  const std::vector<std::pair<Tensors, std::string>> cases = {
      {{{"w", good}, {"w", good}}, "stands twice"},
      {{{"__metadata__", good}}, "reserved"},
      {{{"\xFF", good}}, "UTF-8"},
      {{{"w", negative}}, "[-2, -1]"},
      {{{"w", huge}}, "fits 64 bits"},
      {{{"w", longer}}, "got 8 bytes, want 12"},
  };
  for (const auto& [tensors, want] : cases) {
    const absl::Status written = WriteSafetensors(Path("a.safetensors"), tensors);
    EXPECT_EQ(written.code(), absl::StatusCode::kInvalidArgument) << want;
    EXPECT_THAT(std::string(written.message()), HasSubstr(want));
  }
  EXPECT_EQ(FilesInFolder(), 0u) << "a refused file was left behind";
}

TEST_F(SafetensorsTest, WriterHoldsCallersToWhatTheyAnnounced) {
  const std::vector<TensorLayout> layout = {{.name = "w", .dtype = DType::kF32, .shape = {2}}};
  const std::vector<std::byte> half(4), more(5);
  {
    const auto writer = SafetensorsWriter::Create(Path("a"), layout);
    ASSERT_TRUE(writer.ok()) << writer.status();
    EXPECT_TRUE((*writer)->Append(half).ok());
    EXPECT_EQ((*writer)->Finish().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ((*writer)->Append(more).code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_FALSE(std::filesystem::exists(Path("a")));
    EXPECT_TRUE((*writer)->Append(half).ok());
    EXPECT_TRUE((*writer)->Finish().ok());
  }
  EXPECT_TRUE(SafetensorsFile::Open(Path("a")).ok());
  EXPECT_EQ(FilesInFolder(), 1u);
}

TEST_F(SafetensorsTest, ReportsFoldersThatCannotBeWritten) {
  const absl::Status written = WriteSafetensors(Path("missing/a.safetensors"), {});
  EXPECT_EQ(written.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(written.message()), HasSubstr("missing/a.safetensors"));
}

TEST_F(SafetensorsTest, ReportsFilesThatCannotBeOpened) {
  EXPECT_EQ(SafetensorsFile::Open(Path("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(SafetensorsFile::Open(folder_).status().message()),
              HasSubstr("want a regular file"));
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(SafetensorsFile::Open(Path("pipe")).status().code(),
            absl::StatusCode::kInvalidArgument);
  std::ofstream(Path("empty")).close();
  EXPECT_THAT(std::string(SafetensorsFile::Open(Path("empty")).status().message()),
              HasSubstr("got 0 bytes"));
}

TEST_F(SafetensorsTest, AcceptsWhatTheFormatAllows) {
  const std::string w = R"("w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]})";
  for (const std::string& header :
       {absl::StrCat("{", w, "}"), absl::StrCat("{", w, "}   "),
        absl::StrCat(R"({"__metadata__":{},)", w, "}"),
        absl::StrCat("{", w, R"(,"__metadata__":{"a":"b"}})"),
        absl::StrCat("{", w, R"(,"zero":{"data_offsets":[2,2],"shape":[0],"dtype":"F64"}})")}) {
    const std::string bytes = FileOf(header, "xy");
    const auto file = Parse(bytes);
    ASSERT_TRUE(file.ok()) << header << ": " << file.status();
    EXPECT_EQ(Bytes((*file)->tensors().at("w")), "xy");
  }
  EXPECT_TRUE(Parse(FileOf("{}", "")).ok());
}

TEST_F(SafetensorsTest, RefusesDamagedFilesNamingWhatIsWrong) {
  struct Case {
    std::string file;
    std::string want;
  };
  const auto one = [](const std::string& fields, const std::string& body = "xyzw") {
    return FileOf(absl::StrCat(R"({"w":{)", fields, "}}"), body);
  };
  const std::string w = R"("w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]})";
  const std::vector<Case> cases = {
      {"", "got 0 bytes"},
      {"1234567", "got 7 bytes"},
      {Prefixed(1, ""), "cut short"},
      {Prefixed(100'000'001, "{}"), "want at most 100000000"},
      {Prefixed(UINT64_MAX, "{}"), "want at most 100000000"},
      {FileOf("", ""), "want a JSON object"},
      {FileOf("[]", ""), "want a JSON object"},
      {FileOf(" {}", ""), "want a JSON object"},
      {FileOf("\xEF\xBB\xBF{}", ""), "want a JSON object"},
      {FileOf("{", ""), "not JSON at byte"},
      {FileOf("{}x", ""), "not JSON at byte"},
      {FileOf(std::string("{}\0", 3), ""), "not JSON at byte 3"},
      {FileOf("{\"\xFF\":1}", ""), "not JSON at byte"},
      {FileOf("{\"w\":1}", ""), "\"w\": got 1, want an object"},
      {FileOf("{\"w\":" + std::string(1000, '['), ""), "got an array, want an object"},
      {FileOf(absl::StrCat("{", w, ",", w, "}"), "xy"), "\"w\": the name stands twice"},
      {FileOf(R"({"__metadata__":{},"__metadata__":{}})", ""), "stands twice"},
      {FileOf(R"({"__metadata__":{"a":"b","a":"c"}})", ""), "\"a\": stands twice"},
      {FileOf(R"({"__metadata__":{"a":1}})", ""), "got 1, want a string"},
      {FileOf(R"({"__metadata__":null})", ""), "got null, want an object"},
      {one(R"("dtype":"U8","shape":[2])"), "data_offsets: missing"},
      {one(R"("dtype":"U8","data_offsets":[0,2])"), "shape: missing"},
      {one(R"("shape":[2],"data_offsets":[0,2])"), "dtype: missing"},
      {one(R"("dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2])"), "dtype: stands twice"},
      {one(R"("dtype":"U8","shape":[2],"data_offsets":[0,2],"x":1)"), "got key \"x\""},
      {one(R"("dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2])"), "got \"F8_E4M3\""},
      {one(R"("dtype":8)"), "got 8, want dtype as a string"},
      {one(R"("dtype":"U8","shape":4,"data_offsets":[0,4])"), "want shape as an array"},
      {one(R"("dtype":"U8","shape":[-4],"data_offsets":[0,4])"), "got -4, want shape"},
      {one(R"("dtype":"U8","shape":[4.0],"data_offsets":[0,4])"), "got 4.0, want shape"},
      {one(R"("dtype":"U8","shape":["4"],"data_offsets":[0,4])"), "got a string, want shape"},
      {one(R"("dtype":"U8","shape":[[4]],"data_offsets":[0,4])"), "got an array, want shape"},
      {one(R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,4])"), "below 2^63"},
      {one(R"("dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,4])"),
       "got 99999999999"},
      {one(R"("dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4])"), "2^64 bytes"},
      {one(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), "2^64 bytes"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[4])"), "got 1 numbers"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[0,4,4])"), "more than 2 numbers"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":4)"), "want data_offsets"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[-1,3])"), "got -1, want data_offsets"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[4,0])"), "got data_offsets [4, 0], want 4"},
      {one(R"("dtype":"U8","shape":[3],"data_offsets":[0,4])"), "want 3 bytes for U8 [3]"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[0,4])", "xyz"), "file's 3 bytes"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[1,5])", "vxyzw"), "leave a gap"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[0,4])", "xyzwv"), "got 1 bytes after"},
      {FileOf(absl::StrCat("{", w, R"(,"v":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})"),
              "xyz"),
       "overlap"},
      {FileOf(absl::StrCat("{", w, R"(,"v":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})"),
              "xy"),
       "overlap"},
      {FileOf(absl::StrCat("{", w, R"(,"v":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})"),
              "xyzw"),
       "leave a gap"},
  };
  for (const Case& damaged : cases) {
    const auto file = Parse(damaged.file);
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << damaged.want;
    const std::string message(file.status().message());
    EXPECT_THAT(message, HasSubstr(damaged.want));
    EXPECT_THAT(message, HasSubstr("x.safetensors: "));
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST_F(SafetensorsTest, RefusesEveryTruncation) {
  const std::string whole = FileOf(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                   R"("b":{"dtype":"I16","shape":[3],"data_offsets":[4,10]}})",
                                   "0123456789");
  ASSERT_TRUE(Parse(whole).ok());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(Parse(whole.substr(0, size)).ok()) << size;
  }
}

TEST_F(SafetensorsTest, HostileNamesStayOneShortLine) {
  const std::string name = std::string(5000, 'n') + R"(\n)";
  const auto file = Parse(FileOf(absl::StrCat("{\"", name, "\":1}"), ""));
  ASSERT_FALSE(file.ok());
  EXPECT_LT(file.status().message().size(), 400u);
  const auto newline = Parse(FileOf(R"({"a\nb":1})", ""));
  EXPECT_EQ(newline.status().message().find('\n'), absl::string_view::npos);
}

TEST_F(SafetensorsTest, NamesTypesAsTheFormatDoes) {
  EXPECT_EQ(Name(DType::kBF16), "BF16");
  EXPECT_EQ(Name(DType::kBool), "BOOL");
  EXPECT_EQ(SizeOf(DType::kF64), 8u);
  EXPECT_EQ(SizeOf(DType::kBF16), 2u);
  EXPECT_EQ(ShapeString(std::vector<std::int64_t>{60, 2048}), "[60, 2048]");
  EXPECT_EQ(ShapeString({}), "[]");
}

}  // namespace
}  // namespace penstock
