#include "routers/package/safetensors_header.h"

#include <array>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "routers/package/quote.h"

namespace penstock {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

std::optional<DType> DTypeByName(std::string_view name) {
  for (DType dtype : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32,
                      DType::kI16, DType::kI8, DType::kU8, DType::kBool}) {
    if (Name(dtype) == name) return dtype;
  }
  return std::nullopt;
}

// Walks {name: {"dtype": string, "shape": [u64…], "data_offsets": [u64, u64]}, "__metadata__":
// {string: string}}. A callback that returns false ends the parse; error() then says why.
class HeaderHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderHandler(std::string_view file, SafetensorsHeader* header) : file_(file), header_(header) {}

  const std::string& error() const { return error_; }
  bool complete() const { return state_ == State::kDone; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(std::int64_t value) override { return Unexpected(absl::StrCat(value)); }
  bool number_float(double, const std::string& text) override { return Unexpected(text); }
  bool binary(binary_t&) override { return Unexpected("binary"); }

  bool number_unsigned(std::uint64_t value) override {
    if (state_ == State::kShapeElement) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        return Fail(absl::StrCat("shape: got ", value, ", want below 2^63"));
      }
      entry_.shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (state_ == State::kOffset) {
      if (offsets_ == 2) return Fail("data_offsets: got more than 2 numbers, want [begin, end]");
      (offsets_++ == 0 ? entry_.begin : entry_.end) = value;
      return true;
    }
    return Unexpected(absl::StrCat(value));
  }

  bool string(std::string& value) override {
    if (state_ == State::kDType) {
      const std::optional<DType> dtype = DTypeByName(value);
      if (!dtype) {
        return Fail(absl::StrCat("dtype: got ", Quote(value),
                                 ", want one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL"));
      }
      entry_.dtype = *dtype;
      state_ = State::kField;
      return true;
    }
    if (state_ == State::kMetadataValue) {
      header_->metadata[metadata_key_] = value;
      state_ = State::kMetadataEntry;
      return true;
    }
    return Unexpected("a string");
  }

  bool start_object(std::size_t) override {
    switch (state_) {
      case State::kStart:
        state_ = State::kEntry;
        return true;
      case State::kTensor:
        entry_ = {};
        seen_ = {};
        state_ = State::kField;
        return true;
      case State::kMetadata:
        state_ = State::kMetadataEntry;
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool key(std::string& key) override {
    switch (state_) {
      case State::kEntry:
        name_ = key;
        if (key == kMetadataKey) {
          if (std::exchange(has_metadata_, true))
            return Fail("the name stands twice in the header");
          state_ = State::kMetadata;
          return true;
        }
        if (header_->tensors.contains(key)) return Fail("the name stands twice in the header");
        state_ = State::kTensor;
        return true;
      case State::kField:
        for (std::size_t i = 0; i < kFields.size(); ++i) {
          if (key != kFields[i].name) continue;
          if (std::exchange(seen_[i], true)) return Fail(absl::StrCat(key, ": stands twice"));
          state_ = kFields[i].state;
          return true;
        }
        return Fail(absl::StrCat("got key ", Quote(key), ", want dtype, shape and data_offsets"));
      case State::kMetadataEntry:
        if (header_->metadata.contains(key))
          return Fail(absl::StrCat(Quote(key), ": stands twice"));
        metadata_key_ = key;
        state_ = State::kMetadataValue;
        return true;
      default:
        return Unexpected("a key");
    }
  }

  bool end_object() override {
    switch (state_) {
      case State::kField:
        for (std::size_t i = 0; i < kFields.size(); ++i) {
          if (!seen_[i]) return Fail(absl::StrCat(kFields[i].name, ": missing"));
        }
        header_->tensors.emplace(name_, std::move(entry_));
        state_ = State::kEntry;
        return true;
      case State::kMetadataEntry:
        state_ = State::kEntry;
        return true;
      case State::kEntry:
        state_ = State::kDone;
        return true;
      default:
        return Unexpected("the end of an object");
    }
  }

  bool start_array(std::size_t) override {
    if (state_ == State::kShape) {
      state_ = State::kShapeElement;
      return true;
    }
    if (state_ == State::kOffsets) {
      state_ = State::kOffset;
      offsets_ = 0;
      return true;
    }
    return Unexpected("an array");
  }

  bool end_array() override {
    if (state_ == State::kOffset && offsets_ != 2) {
      return Fail(absl::StrCat("data_offsets: got ", offsets_, " numbers, want [begin, end]"));
    }
    state_ = State::kField;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    error_ = absl::StrCat(file_, ": header: not JSON at byte ", position);
    return false;
  }

 private:
  enum class State {
    kStart,
    kEntry,   // in the outermost object
    kTensor,  // after a tensor's name
    kField,   // in a tensor's object
    kDType,
    kShape,
    kShapeElement,
    kOffsets,
    kOffset,
    kMetadata,  // after "__metadata__"
    kMetadataEntry,
    kMetadataValue,
    kDone,
  };
  struct Field {
    const char* name;
    State state;
  };
  static constexpr std::array<Field, 3> kFields = {
      {{"dtype", State::kDType}, {"shape", State::kShape}, {"data_offsets", State::kOffsets}}};

  bool Fail(std::string_view what) {
    error_ = absl::StrCat(file_, ": header: ");
    if (state_ != State::kStart) absl::StrAppend(&error_, Quote(name_), ": ");
    absl::StrAppend(&error_, std::string(what));
    return false;
  }

  bool Unexpected(std::string_view got) {
    const auto want = [this]() -> const char* {
      switch (state_) {
        case State::kStart:
        case State::kTensor:
        case State::kMetadata:
          return "want an object";
        case State::kDType:
          return "want dtype as a string";
        case State::kShape:
        case State::kShapeElement:
          return "want shape as an array of unsigned numbers";
        case State::kOffsets:
        case State::kOffset:
          return "want data_offsets as an array of two unsigned numbers";
        case State::kMetadataValue:
          return "want a string";
        default:
          return "want nothing here";
      }
    };
    return Fail(absl::StrCat("got ", std::string(got), ", ", want()));
  }

  const std::string file_;
  SafetensorsHeader* const header_;
  State state_ = State::kStart;
  std::string name_, metadata_key_;
  SafetensorsHeader::Entry entry_;
  std::array<bool, kFields.size()> seen_ = {};
  int offsets_ = 0;
  bool has_metadata_ = false;
  std::string error_;
};

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view file,
                                                         std::string_view json) {
  // The format asks for '{' as the first byte, which also rules out a byte order mark; and the JSON
  // parser would take a NUL byte for the end of its input.
  const std::string name(file);
  if (!json.starts_with('{')) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": header: want a JSON object"));
  }
  if (const std::size_t nul = json.find('\0'); nul != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": header: not JSON at byte ", nul + 1));
  }
  SafetensorsHeader header;
  HeaderHandler handler(file, &header);
  const bool parsed = nlohmann::json::sax_parse(json.begin(), json.end(), &handler);
  if (!parsed || !handler.complete()) return absl::InvalidArgumentError(handler.error());
  return header;
}

}  // namespace penstock
