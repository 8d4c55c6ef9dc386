#include "clients/cpp/terminal/progress_line.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace penstock::client {
namespace {

constexpr long long kWidth = 24;
constexpr absl::Duration kInterval = absl::Milliseconds(100);

}  // namespace

ProgressLine::ProgressLine(Terminal& terminal, std::string unit, long long total)
    : terminal_(terminal),
      unit_(std::move(unit)),
      total_(std::max(1LL, total)),
      start_(absl::Now()) {}

ProgressLine::~ProgressLine() {
  if (drawn_ != absl::InfinitePast()) terminal_.err << "\r\x1b[K" << std::flush;
}

void ProgressLine::Update(long long done) {
  if (!terminal_.err_is_terminal) return;
  const absl::Time now = absl::Now();
  if (done < total_ && now - drawn_ < kInterval) return;
  drawn_ = now;
  std::string bar;
  for (long long i = 0; i < kWidth; ++i) bar += i * total_ < done * kWidth ? "█" : "░";
  std::string left;
  if (done > 0 && done < total_) {
    const absl::Duration rest = (now - start_) * (total_ - done) / done;
    left = absl::StrCat(", ", absl::FormatDuration(absl::Ceil(rest, absl::Seconds(1))), " left");
  }
  terminal_.err << "\r\x1b[K" << bar << " " << done << " of " << total_ << " " << unit_ << left
                << std::flush;
}

}  // namespace penstock::client
