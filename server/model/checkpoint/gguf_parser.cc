#include <bit>
#include <cstring>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "routers/package/quote.h"
#include "routers/package/safetensors.h"
#include "server/base/status_macros.h"
#include "server/model/checkpoint/gguf.h"

namespace penstock {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian");

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::uint32_t kVersion = 3;
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::uint32_t kMaxAxes = 4;  // GGML_MAX_DIMS
constexpr int kMaxArrayDepth = 8;
constexpr std::size_t kMaxName = 65535;  // of keys; tensors' are shorter

enum ValueType : std::uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

// A tensor type by its place in ggml's enum; empty: removed or not yet known.
constexpr std::string_view kTensorTypes[] = {
    "F32",     "F16",   "Q4_0",   "Q4_1",  "",      "",       "Q5_0", "Q5_1",    "Q8_0",
    "Q8_1",    "Q2_K",  "Q3_K",   "Q4_K",  "Q5_K",  "Q6_K",   "Q8_K", "IQ2_XXS", "IQ2_XS",
    "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",   "I16",     "I32",
    "I64",     "F64",   "IQ1_M",  "BF16",  "",      "",       "",     "TQ1_0",   "TQ2_0",
};

struct BlockSize {
  std::uint64_t elements, bytes;
};

std::optional<BlockSize> BlockOf(std::uint32_t type) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kF32:
      return BlockSize{1, 4};
    case GgufType::kF16:
      return BlockSize{1, 2};
    case GgufType::kQ4_1:
      return BlockSize{32, 20};
    case GgufType::kQ8_0:
      return BlockSize{32, 34};
  }
  return std::nullopt;
}

}  // namespace

// Reads untrusted bytes front to back; every read is checked against the end.
class GgufParser {
 public:
  GgufParser(GgufFile* file, std::span<const std::byte> bytes) : file_(file), bytes_(bytes) {}

  absl::Status Run() {
    PENSTOCK_ASSIGN_OR_RETURN(const auto magic, Read<std::uint32_t>());
    if (magic != kMagic) return Refuse("want a GGUF file: it does not start with \"GGUF\"");
    PENSTOCK_ASSIGN_OR_RETURN(const auto version, Read<std::uint32_t>());
    if (version != kVersion) {
      return Refuse(absl::StrCat("got GGUF version ", version, ", want ", kVersion));
    }
    PENSTOCK_ASSIGN_OR_RETURN(const auto tensors, Read<std::uint64_t>());
    PENSTOCK_ASSIGN_OR_RETURN(const auto entries, Read<std::uint64_t>());
    for (std::uint64_t i = 0; i < entries; ++i) PENSTOCK_RETURN_IF_ERROR(ReadEntry());
    PENSTOCK_ASSIGN_OR_RETURN(const std::uint64_t alignment, Alignment());
    std::vector<std::pair<std::string, std::uint64_t>> offsets;
    for (std::uint64_t i = 0; i < tensors; ++i) {
      PENSTOCK_ASSIGN_OR_RETURN(auto offset, ReadTensor(alignment));
      offsets.push_back(std::move(offset));
    }
    // The tensors' bytes begin at the next aligned position, which a file without tensors need not
    // have.
    const std::uint64_t begin = (position_ + alignment - 1) / alignment * alignment;
    for (const auto& [name, offset] : offsets) {
      PENSTOCK_RETURN_IF_ERROR(Place(name, begin, offset));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Refuse(const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(file_->path_, ": ", what));
  }

  absl::StatusOr<std::span<const std::byte>> Take(std::uint64_t size) {
    if (size > bytes_.size() - position_) {
      return Refuse(absl::StrCat("got ", bytes_.size(), " bytes, want ", size, " more at byte ",
                                 position_, ": the file is cut short or damaged"));
    }
    const auto taken = bytes_.subspan(position_, size);
    position_ += size;
    return taken;
  }

  template <typename T>
  absl::StatusOr<T> Read() {
    PENSTOCK_ASSIGN_OR_RETURN(const auto taken, Take(sizeof(T)));
    T value;
    std::memcpy(&value, taken.data(), sizeof(T));
    return value;
  }

  absl::StatusOr<std::string_view> ReadString() {
    PENSTOCK_ASSIGN_OR_RETURN(const auto size, Read<std::uint64_t>());
    PENSTOCK_ASSIGN_OR_RETURN(const auto taken, Take(size));
    return std::string_view(reinterpret_cast<const char*>(taken.data()), taken.size());
  }

  absl::StatusOr<std::string> ReadName() {
    PENSTOCK_ASSIGN_OR_RETURN(const std::string_view name, ReadString());
    if (name.empty() || name.size() > kMaxName) {
      return Refuse(absl::StrCat("got a name of ", name.size(), " bytes, want 1 to ", kMaxName));
    }
    return std::string(name);
  }

  template <typename T, typename Wide>
  absl::StatusOr<GgufValue> ReadScalar() {
    PENSTOCK_ASSIGN_OR_RETURN(const auto value, Read<T>());
    return GgufValue(std::in_place_type<Wide>, static_cast<Wide>(value));
  }

  absl::StatusOr<GgufValue> ReadValue(std::uint32_t type) {
    switch (type) {
      case kUint8:
        return ReadScalar<std::uint8_t, std::uint64_t>();
      case kUint16:
        return ReadScalar<std::uint16_t, std::uint64_t>();
      case kUint32:
        return ReadScalar<std::uint32_t, std::uint64_t>();
      case kUint64:
        return ReadScalar<std::uint64_t, std::uint64_t>();
      case kInt8:
        return ReadScalar<std::int8_t, std::int64_t>();
      case kInt16:
        return ReadScalar<std::int16_t, std::int64_t>();
      case kInt32:
        return ReadScalar<std::int32_t, std::int64_t>();
      case kInt64:
        return ReadScalar<std::int64_t, std::int64_t>();
      case kFloat32:
        return ReadScalar<float, double>();
      case kFloat64:
        return ReadScalar<double, double>();
      case kBool: {
        PENSTOCK_ASSIGN_OR_RETURN(const bool value, ReadBool());
        return GgufValue(value);
      }
      case kString: {
        PENSTOCK_ASSIGN_OR_RETURN(const std::string_view value, ReadString());
        return GgufValue(value);
      }
      case kArray: {
        PENSTOCK_ASSIGN_OR_RETURN(GgufArray value, ReadArray(1));
        return GgufValue(std::move(value));
      }
      default:
        return Refuse(absl::StrCat("got value type ", type, ", want 0 to ",
                                   static_cast<std::uint32_t>(kFloat64)));
    }
  }

  absl::StatusOr<bool> ReadBool() {
    PENSTOCK_ASSIGN_OR_RETURN(const auto value, Read<std::uint8_t>());
    if (value > 1) return Refuse(absl::StrCat("got ", value, " for a boolean, want 0 or 1"));
    return value == 1;
  }

  // Grows as elements are read: what an array claims to hold allocates nothing.
  template <typename Wide, typename ReadElement>
  absl::StatusOr<GgufArray> ReadElements(std::uint64_t count, ReadElement read) {
    std::vector<Wide> values;
    for (std::uint64_t i = 0; i < count; ++i) {
      PENSTOCK_ASSIGN_OR_RETURN(auto value, read());
      values.push_back(static_cast<Wide>(std::move(value)));
    }
    return GgufArray{std::move(values)};
  }

  absl::StatusOr<GgufArray> ReadArray(int depth) {
    if (depth > kMaxArrayDepth) {
      return Refuse(absl::StrCat("got arrays nested deeper than ", kMaxArrayDepth));
    }
    PENSTOCK_ASSIGN_OR_RETURN(const auto type, Read<std::uint32_t>());
    PENSTOCK_ASSIGN_OR_RETURN(const auto count, Read<std::uint64_t>());
    switch (type) {
      case kUint8:
        return ReadElements<std::uint64_t>(count, [this] { return Read<std::uint8_t>(); });
      case kUint16:
        return ReadElements<std::uint64_t>(count, [this] { return Read<std::uint16_t>(); });
      case kUint32:
        return ReadElements<std::uint64_t>(count, [this] { return Read<std::uint32_t>(); });
      case kUint64:
        return ReadElements<std::uint64_t>(count, [this] { return Read<std::uint64_t>(); });
      case kInt8:
        return ReadElements<std::int64_t>(count, [this] { return Read<std::int8_t>(); });
      case kInt16:
        return ReadElements<std::int64_t>(count, [this] { return Read<std::int16_t>(); });
      case kInt32:
        return ReadElements<std::int64_t>(count, [this] { return Read<std::int32_t>(); });
      case kInt64:
        return ReadElements<std::int64_t>(count, [this] { return Read<std::int64_t>(); });
      case kFloat32:
        return ReadElements<double>(count, [this] { return Read<float>(); });
      case kFloat64:
        return ReadElements<double>(count, [this] { return Read<double>(); });
      case kBool:
        return ReadElements<bool>(count, [this] { return ReadBool(); });
      case kString:
        return ReadElements<std::string_view>(count, [this] { return ReadString(); });
      case kArray:
        return ReadElements<GgufArray>(count, [this, depth] { return ReadArray(depth + 1); });
      default:
        return Refuse(absl::StrCat("got an array of value type ", type, ", want 0 to ",
                                   static_cast<std::uint32_t>(kFloat64)));
    }
  }

  absl::Status ReadEntry() {
    PENSTOCK_ASSIGN_OR_RETURN(const std::string key, ReadName());
    PENSTOCK_ASSIGN_OR_RETURN(const auto type, Read<std::uint32_t>());
    PENSTOCK_ASSIGN_OR_RETURN(GgufValue value, ReadValue(type));
    if (!file_->metadata_.emplace(key, std::move(value)).second) {
      return Refuse(absl::StrCat("key ", Quote(key), ": stands twice"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::uint64_t> Alignment() const {
    constexpr char kKey[] = "general.alignment";
    if (!file_->metadata_.contains(kKey)) return kDefaultAlignment;
    PENSTOCK_ASSIGN_OR_RETURN(const std::int64_t alignment, file_->Integer(kKey, 1, 1 << 20));
    if (!std::has_single_bit(static_cast<std::uint64_t>(alignment))) {
      return Refuse(absl::StrCat(kKey, ": got ", alignment, ", want a power of two"));
    }
    return static_cast<std::uint64_t>(alignment);
  }

  absl::StatusOr<std::pair<std::string, std::uint64_t>> ReadTensor(std::uint64_t alignment) {
    PENSTOCK_ASSIGN_OR_RETURN(std::string name, ReadName());
    const auto refuse = [&](const std::string& what) {
      return Refuse(absl::StrCat("tensor ", Quote(name), ": ", what));
    };
    PENSTOCK_ASSIGN_OR_RETURN(const auto axes, Read<std::uint32_t>());
    if (axes > kMaxAxes)
      return refuse(absl::StrCat("got ", axes, " axes, want at most ", kMaxAxes));
    GgufTensor tensor;
    for (std::uint32_t i = 0; i < axes; ++i) {
      PENSTOCK_ASSIGN_OR_RETURN(const auto extent, Read<std::uint64_t>());
      if (extent == 0 ||
          extent > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        return refuse(absl::StrCat("got extent ", extent, ", want 1 to 2^63 - 1"));
      }
      tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(extent));
    }
    PENSTOCK_ASSIGN_OR_RETURN(const auto type, Read<std::uint32_t>());
    if (!BlockOf(type)) {
      const bool known = type < std::size(kTensorTypes) && !kTensorTypes[type].empty();
      return refuse(absl::StrCat("got type ",
                                 known ? std::string(kTensorTypes[type]) : absl::StrCat(type),
                                 ", want F32, F16, Q4_1 or Q8_0: others are not supported"));
    }
    tensor.type = static_cast<GgufType>(type);
    PENSTOCK_ASSIGN_OR_RETURN(const auto offset, Read<std::uint64_t>());
    if (offset % alignment != 0) {
      return refuse(absl::StrCat("got offset ", offset, ", want a multiple of ", alignment));
    }
    if (!file_->tensors_.emplace(name, std::move(tensor)).second) return refuse("stands twice");
    return std::pair(std::move(name), offset);
  }

  // Gives the tensor its bytes, at `offset` from `begin`.
  absl::Status Place(const std::string& name, std::uint64_t begin, std::uint64_t offset) {
    GgufTensor& tensor = file_->tensors_.at(name);
    const BlockSize block = *BlockOf(static_cast<std::uint32_t>(tensor.type));
    const auto refuse = [&](const std::string& what) {
      return Refuse(absl::StrCat("tensor ", Quote(name), ": ", what));
    };
    const std::uint64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (row % block.elements != 0) {
      return refuse(absl::StrCat("got rows of ", row, ", want a multiple of ", block.elements,
                                 " for ", std::string(Name(tensor.type))));
    }
    std::uint64_t size = row / block.elements;
    bool fits = !__builtin_mul_overflow(size, block.bytes, &size);
    for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) {
      fits =
          fits && !__builtin_mul_overflow(size, static_cast<std::uint64_t>(tensor.shape[i]), &size);
    }
    if (!fits || begin > bytes_.size() || offset > bytes_.size() - begin ||
        size > bytes_.size() - begin - offset) {
      return refuse(absl::StrCat("got ", ShapeString(tensor.shape), " at offset ", offset,
                                 ", want within the file's ", bytes_.size(),
                                 " bytes: the file is cut short or damaged"));
    }
    tensor.bytes = bytes_.subspan(begin + offset, size);
    return absl::OkStatus();
  }

  GgufFile* const file_;
  const std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
};

absl::StatusOr<std::unique_ptr<const GgufFile>> GgufFile::Open(const std::string& path) {
  PENSTOCK_ASSIGN_OR_RETURN(std::unique_ptr<const MappedFile> mapping, MappedFile::Open(path));
  std::unique_ptr<GgufFile> file(new GgufFile());
  file->path_ = path;
  file->mapping_ = std::move(mapping);
  PENSTOCK_RETURN_IF_ERROR(GgufParser(file.get(), file->mapping_->bytes()).Run());
  return file;
}

absl::StatusOr<std::unique_ptr<const GgufFile>> GgufFile::Parse(std::string name,
                                                                std::span<const std::byte> bytes) {
  std::unique_ptr<GgufFile> file(new GgufFile());
  file->path_ = std::move(name);
  PENSTOCK_RETURN_IF_ERROR(GgufParser(file.get(), bytes).Run());
  return file;
}

}  // namespace penstock
