#include "server/progress_bar.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

namespace penstock {
namespace {

constexpr int kWidth = 40;
constexpr double kMegabyte = 1e6;

}  // namespace

ProgressBar::ProgressBar(std::string label)
    : label_(std::move(label)), terminal_(isatty(STDERR_FILENO) != 0) {}

ProgressBar::~ProgressBar() {
  if (drawn_) std::fputc('\n', stderr);
}

void ProgressBar::Update(std::int64_t done_bytes, std::int64_t total_bytes) {
  if (!terminal_ || total_bytes <= 0) return;
  const auto now = std::chrono::steady_clock::now();
  if (drawn_ && done_bytes < total_bytes && now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  drawn_ = true;
  const int filled = static_cast<int>(kWidth * done_bytes / total_bytes);
  std::string bar(filled, '#');
  bar.resize(kWidth, '.');
  std::fprintf(stderr, "\r%s [%s] %3d%% of %.0f MB", label_.c_str(), bar.c_str(),
               static_cast<int>(100 * done_bytes / total_bytes),
               static_cast<double>(total_bytes) / kMegabyte);
  std::fflush(stderr);
}

}  // namespace penstock
