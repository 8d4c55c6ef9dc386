#include "routers/package/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "routers/package/mapped_file.h"
#include "routers/package/quote.h"
#include "routers/package/safetensors_header.h"
#include "routers/package/safetensors_writer.h"

namespace penstock {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are little-endian in files");

// Bytes of a tensor; nullopt on overflow.
std::optional<std::uint64_t> BytesOf(const SafetensorsHeader::Entry& entry) {
  std::uint64_t size = SizeOf(entry.dtype);
  for (std::int64_t extent : entry.shape) {
    if (__builtin_mul_overflow(size, static_cast<std::uint64_t>(extent), &size)) {
      return std::nullopt;
    }
  }
  return size;
}

class LoadedSafetensors final : public SafetensorsFile {
 public:
  LoadedSafetensors(std::string name, std::unique_ptr<const MappedFile> mapping)
      : mapping_(std::move(mapping)) {
    path_ = std::move(name);
  }

  absl::Status Load(std::span<const std::byte> bytes) {
    absl::StatusOr<std::string_view> json = HeaderText(bytes);
    if (!json.ok()) return json.status();
    absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(path_, *json);
    if (!header.ok()) return header.status();
    const std::span<const std::byte> body = bytes.subspan(kSafetensorsPrefix + json->size());
    for (auto& [name, entry] : header->tensors) {
      absl::Status checked = CheckEntry(name, entry, body.size());
      if (!checked.ok()) return checked;
      tensors_.emplace_hint(
          tensors_.end(), name,
          TensorView{entry.dtype, entry.shape, body.subspan(entry.begin, entry.end - entry.begin)});
    }
    metadata_ = std::move(header->metadata);
    return CheckCovered(*header, body.size());
  }

 private:
  absl::Status Refuse(const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": ", what));
  }

  absl::StatusOr<std::string_view> HeaderText(std::span<const std::byte> bytes) const {
    if (bytes.size() < kSafetensorsPrefix) {
      return Refuse(absl::StrCat("got ", bytes.size(), " bytes, want a safetensors header"));
    }
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    if (length > kSafetensorsMaxHeader) {
      return Refuse(absl::StrCat("got a header of ", length, " bytes, want at most ",
                                 kSafetensorsMaxHeader, " (is this a safetensors file?)"));
    }
    if (length > bytes.size() - kSafetensorsPrefix) {
      return Refuse(absl::StrCat("got ", bytes.size(), " bytes, want ", kSafetensorsPrefix + length,
                                 " for the header alone: the file is cut short"));
    }
    return std::string_view(reinterpret_cast<const char*>(bytes.data()) + kSafetensorsPrefix,
                            length);
  }

  absl::Status CheckEntry(const std::string& name, const SafetensorsHeader::Entry& entry,
                          std::uint64_t body) const {
    const std::optional<std::uint64_t> size = BytesOf(entry);
    if (!size) {
      return Refuse(absl::StrCat("tensor ", Quote(name), ": got shape ", ShapeString(entry.shape),
                                 ", want a size below 2^64 bytes"));
    }
    if (entry.begin > entry.end || entry.end - entry.begin != *size) {
      return Refuse(absl::StrCat("tensor ", Quote(name), ": got data_offsets [", entry.begin, ", ",
                                 entry.end, "], want ", *size, " bytes for ",
                                 std::string(Name(entry.dtype)), " ", ShapeString(entry.shape)));
    }
    if (entry.end > body) {
      return Refuse(absl::StrCat("tensor ", Quote(name), ": got data_offsets [", entry.begin, ", ",
                                 entry.end, "], want within the file's ", body,
                                 " bytes of tensors: the file is cut short or damaged"));
    }
    return absl::OkStatus();
  }

  // The tensors, in order of offset, must follow each other without overlap or gap, and end with
  // the file.
  absl::Status CheckCovered(const SafetensorsHeader& header, std::uint64_t body) const {
    std::vector<std::pair<const std::string*, const SafetensorsHeader::Entry*>> order;
    order.reserve(header.tensors.size());
    for (const auto& [name, entry] : header.tensors) order.emplace_back(&name, &entry);
    std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
      return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
    });
    std::uint64_t covered = 0;
    for (const auto& [name, entry] : order) {
      if (entry->begin != covered) {
        return Refuse(absl::StrCat("tensor ", Quote(*name), ": got data_offsets from ",
                                   entry->begin, ", want from ", covered, ": tensors ",
                                   entry->begin < covered ? "overlap" : "leave a gap"));
      }
      covered = entry->end;
    }
    if (covered != body) {
      return Refuse(absl::StrCat("got ", body - covered,
                                 " bytes after the last tensor, want the file to end there"));
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<const MappedFile> mapping_;  // null for bytes in memory
};

}  // namespace

std::size_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  __builtin_unreachable();
}

std::string_view Name(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "F64";
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kI64:
      return "I64";
    case DType::kI32:
      return "I32";
    case DType::kI16:
      return "I16";
    case DType::kI8:
      return "I8";
    case DType::kU8:
      return "U8";
    case DType::kBool:
      return "BOOL";
  }
  __builtin_unreachable();
}

std::int64_t TensorView::NumElements() const {
  std::int64_t count = 1;
  for (std::int64_t extent : shape) count *= extent;
  return count;
}

std::string ShapeString(std::span<const std::int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape.begin(), shape.end(), ", "), "]");
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  absl::StatusOr<std::unique_ptr<const MappedFile>> mapping = MappedFile::Open(path);
  if (!mapping.ok()) return mapping.status();
  const std::span<const std::byte> bytes = (*mapping)->bytes();
  auto file = std::make_shared<LoadedSafetensors>(path, *std::move(mapping));
  absl::Status loaded = file->Load(bytes);
  if (!loaded.ok()) return loaded;
  return file;
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Parse(
    std::string name, std::span<const std::byte> bytes) {
  auto file = std::make_shared<LoadedSafetensors>(std::move(name), nullptr);
  absl::Status loaded = file->Load(bytes);
  if (!loaded.ok()) return loaded;
  return file;
}

absl::Status WriteSafetensors(const std::string& path,
                              std::span<const std::pair<std::string, TensorView>> tensors,
                              const std::map<std::string, std::string>& metadata) {
  std::vector<TensorLayout> layout;
  layout.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    layout.push_back({.name = name, .dtype = tensor.dtype, .shape = tensor.shape});
  }
  absl::StatusOr<std::unique_ptr<SafetensorsWriter>> writer =
      SafetensorsWriter::Create(path, layout, metadata);
  if (!writer.ok()) return writer.status();
  for (const auto& [name, tensor] : tensors) {
    const std::uint64_t want =
        static_cast<std::uint64_t>(tensor.NumElements()) * SizeOf(tensor.dtype);
    if (tensor.bytes.size() != want) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": cannot write tensor ", Quote(name),
                                                     ": got ", tensor.bytes.size(), " bytes, want ",
                                                     want, " for ", std::string(Name(tensor.dtype)),
                                                     " ", ShapeString(tensor.shape)));
    }
    absl::Status appended = (*writer)->Append(tensor.bytes);
    if (!appended.ok()) return appended;
  }
  return (*writer)->Finish();
}

}  // namespace penstock
