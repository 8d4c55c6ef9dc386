// GGUF files made by hand, for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace penstock {

// Value types and tensor types as the format numbers them.
enum GgufValueType : std::uint32_t {
  kGgufUint8,
  kGgufInt8,
  kGgufUint16,
  kGgufInt16,
  kGgufUint32,
  kGgufInt32,
  kGgufFloat32,
  kGgufBool,
  kGgufString,
  kGgufArray,
  kGgufUint64,
  kGgufInt64,
  kGgufFloat64,
};

template <typename T>
std::string RawBytes(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

inline std::string GgufText(const std::string& text) {
  return RawBytes<std::uint64_t>(text.size()) + text;
}

inline std::string GgufTextArray(const std::vector<std::string>& texts) {
  std::string bytes = RawBytes<std::uint32_t>(kGgufString) + RawBytes<std::uint64_t>(texts.size());
  for (const std::string& text : texts) bytes += GgufText(text);
  return bytes;
}

template <typename T>
std::string GgufNumberArray(GgufValueType type, const std::vector<T>& numbers) {
  std::string bytes = RawBytes<std::uint32_t>(type) + RawBytes<std::uint64_t>(numbers.size());
  for (T number : numbers) bytes += RawBytes(number);
  return bytes;
}

// Public members: a test damages what it likes before it asks for the bytes.
struct GgufBytes {
  struct Entry {
    std::string key;
    std::uint32_t type;
    std::string value;
  };
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> extents;  // the fastest first, as stored
    std::uint32_t type;
    std::string bytes;
    std::int64_t shift = 0;  // added to the offset: a fault
  };
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::vector<Entry> entries;
  std::vector<Tensor> tensors;
  std::uint64_t alignment = 32;

  std::string Make() const {
    std::string file = magic + RawBytes(version) + RawBytes<std::uint64_t>(tensors.size()) +
                       RawBytes<std::uint64_t>(entries.size());
    for (const Entry& entry : entries)
      file += GgufText(entry.key) + RawBytes(entry.type) + entry.value;
    std::string body;
    for (const Tensor& tensor : tensors) {
      file += GgufText(tensor.name) + RawBytes<std::uint32_t>(tensor.extents.size());
      for (std::uint64_t extent : tensor.extents) file += RawBytes(extent);
      file += RawBytes(tensor.type) + RawBytes<std::uint64_t>(body.size() + tensor.shift);
      body += tensor.bytes;
      body.append((alignment - body.size() % alignment) % alignment, '\0');
    }
    file.append((alignment - file.size() % alignment) % alignment, '\0');
    return file + body;
  }
};

}  // namespace penstock
