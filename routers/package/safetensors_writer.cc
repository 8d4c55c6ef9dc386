#include "routers/package/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "routers/package/quote.h"
#include "routers/package/safetensors_header.h"

namespace penstock {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are little-endian in files");

struct Header {
  std::string bytes;       // length prefix, JSON, padding
  std::uint64_t size = 0;  // of the tensors that follow
};

// The JSON string of `text`; nullopt unless it is UTF-8.
std::optional<std::string> JsonString(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    return std::nullopt;
  }
}

// Bytes of a tensor; nullopt on negative extents and on overflow.
std::optional<std::uint64_t> BytesOf(const TensorLayout& tensor) {
  std::uint64_t size = SizeOf(tensor.dtype);
  for (std::int64_t extent : tensor.shape) {
    if (extent < 0 || __builtin_mul_overflow(size, static_cast<std::uint64_t>(extent), &size)) {
      return std::nullopt;
    }
  }
  return size;
}

absl::StatusOr<Header> MakeHeader(const std::string& path, std::span<const TensorLayout> tensors,
                                  const std::map<std::string, std::string>& metadata) {
  const auto refuse = [&path](const std::string& name, const std::string& what) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": cannot write tensor ", Quote(name), ": ", what));
  };
  std::vector<std::string> fields;
  if (!metadata.empty()) {
    try {
      fields.push_back(absl::StrCat("\"__metadata__\":", nlohmann::json(metadata).dump()));
    } catch (const nlohmann::json::type_error&) {
      return refuse("__metadata__", "want UTF-8");
    }
  }
  std::set<std::string_view> names = {"__metadata__"};
  Header header;
  for (const TensorLayout& tensor : tensors) {
    const std::optional<std::string> name = JsonString(tensor.name);
    if (!name) return refuse(tensor.name, "want a name in UTF-8");
    if (!names.insert(tensor.name).second) {
      return refuse(tensor.name, "the name is reserved or stands twice");
    }
    const std::uint64_t begin = header.size;
    const std::optional<std::uint64_t> size = BytesOf(tensor);
    if (!size || __builtin_add_overflow(begin, *size, &header.size)) {
      return refuse(tensor.name, absl::StrCat("got shape ", ShapeString(tensor.shape),
                                              ", want extents from 0 whose product fits 64 bits"));
    }
    fields.push_back(absl::StrCat(*name, ":{\"dtype\":\"", std::string(Name(tensor.dtype)),
                                  "\",\"shape\":[", absl::StrJoin(tensor.shape, ","),
                                  "],\"data_offsets\":[", begin, ",", header.size, "]}"));
  }
  std::string json = absl::StrCat("{", absl::StrJoin(fields, ","), "}");
  // Spaces, so that the tensors start aligned.
  json.append((8 - json.size() % 8) % 8, ' ');
  if (json.size() > kSafetensorsMaxHeader) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": cannot write: got a header of ",
                                                   json.size(), " bytes, want at most ",
                                                   kSafetensorsMaxHeader));
  }
  const std::uint64_t length = json.size();
  header.bytes.assign(reinterpret_cast<const char*>(&length), sizeof(length));
  header.bytes += json;
  return header;
}

// A name that no other process and no other thread of this one uses.
std::string TemporaryName(const std::string& path) {
  static std::atomic<int> count{0};
  return absl::StrCat(path, ".", ::getpid(), ".", count.fetch_add(1), ".tmp");
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::span<const TensorLayout> tensors,
    const std::map<std::string, std::string>& metadata) {
  absl::StatusOr<Header> header = MakeHeader(path, tensors, metadata);
  if (!header.ok()) return header.status();
  std::string temporary = TemporaryName(path);
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat(temporary, ": cannot create"));
  std::unique_ptr<SafetensorsWriter> writer(
      new SafetensorsWriter(path, std::move(temporary), file, header->size));
  absl::Status written = writer->WriteAll(std::as_bytes(std::span(header->bytes)));
  if (!written.ok()) return written;
  return writer;
}

SafetensorsWriter::SafetensorsWriter(std::string path, std::string temporary, int file,
                                     std::uint64_t remaining)
    : path_(std::move(path)),
      temporary_(std::move(temporary)),
      file_(file),
      remaining_(remaining) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
}

absl::Status SafetensorsWriter::Append(std::span<const std::byte> bytes) {
  if (bytes.size() > remaining_) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": got ", bytes.size(), " bytes more, want at most ", remaining_));
  }
  absl::Status written = WriteAll(bytes);
  if (written.ok()) remaining_ -= bytes.size();
  return written;
}

absl::Status SafetensorsWriter::WriteAll(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, absl::StrCat(temporary_, ": cannot write"));
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Finish() {
  if (remaining_ != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": ", remaining_, " bytes of tensors are missing"));
  }
  // Synced before the rename: after a crash the name stands for the old file or for the whole new
  // one.
  if (::fsync(file_) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(temporary_, ": cannot sync"));
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(temporary_, ": cannot rename to ", path_));
  }
  ::close(file_);
  file_ = -1;
  return absl::OkStatus();
}

}  // namespace penstock
