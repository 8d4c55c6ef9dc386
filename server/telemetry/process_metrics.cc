#include "server/telemetry/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>

namespace penstock {
namespace {

// Seconds since the epoch at which the machine started; 0 if unknown.
double BootTime() {
  std::ifstream stat("/proc/stat");
  for (std::string line; std::getline(stat, line);) {
    if (line.starts_with("btime ")) return std::stod(line.substr(6));
  }
  return 0;
}

void AddStat(Exposition* exposition) {
  std::ifstream stream("/proc/self/stat");
  std::string line;
  if (!std::getline(stream, line)) return;
  // The second field, the program's name in brackets, may hold anything: what follows starts after
  // its last bracket.
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return;
  std::istringstream fields(line.substr(name_end + 1));
  // proc(5): state is the third field, utime 14, stime 15, starttime 22, vsize 23, rss 24.
  std::string ignored;
  double utime = 0, stime = 0, start = 0, virtual_bytes = 0, resident_pages = 0;
  for (int field = 3; field < 14; ++field) fields >> ignored;
  fields >> utime >> stime;
  for (int field = 16; field < 22; ++field) fields >> ignored;
  if (!(fields >> start >> virtual_bytes >> resident_pages)) return;

  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  exposition->Add(metrics::kCpuSeconds, {}, (utime + stime) / ticks);
  exposition->Add(metrics::kResidentMemory, {},
                  resident_pages * static_cast<double>(sysconf(_SC_PAGESIZE)));
  exposition->Add(metrics::kVirtualMemory, {}, virtual_bytes);
  if (const double boot = BootTime(); boot > 0) {
    exposition->Add(metrics::kStartTime, {}, boot + start / ticks);
  }
}

void AddFileDescriptors(Exposition* exposition) {
  std::error_code error;
  std::filesystem::directory_iterator it("/proc/self/fd", error), end;
  int open = -1;  // less the one that reads the folder
  for (; !error && it != end; it.increment(error)) ++open;
  if (!error) exposition->Add(metrics::kOpenFds, {}, open);
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    exposition->Add(metrics::kMaxFds, {}, static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace

void AddProcessMetrics(Exposition* exposition) {
  AddStat(exposition);
  AddFileDescriptors(exposition);
}

}  // namespace penstock
