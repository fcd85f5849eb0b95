#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <locale>
#include <sstream>
#include <string>

#include "engine/platform/usage.h"

namespace fluxion {

std::optional<double> machine_busy_seconds() {
  std::ifstream file("/proc/stat");
  file.imbue(std::locale::classic());
  std::string name;
  double user = 0, nice = 0, system = 0, idle = 0, wait = 0, interrupts = 0, soft_interrupts = 0,
         stolen = 0;
  if (!(file >> name >> user >> nice >> system >> idle >> wait >> interrupts >> soft_interrupts >>
        stolen))
    return std::nullopt;
  return (user + nice + system + interrupts + soft_interrupts + stolen) /
         static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double process_busy_seconds() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::optional<ResidentMemory> resident_memory() {
  ResidentMemory memory;
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    words.imbue(std::locale::classic());
    std::string name;
    std::uint64_t kibibytes = 0;
    if (!(words >> name >> kibibytes)) continue;
    if (name == "VmRSS:") memory.now = kibibytes * 1024;
    if (name == "VmHWM:") memory.peak = kibibytes * 1024;
    if (name == "RssAnon:") memory.own = kibibytes * 1024;
  }
  if (memory.peak == 0) return std::nullopt;
  return memory;
}

}  // namespace fluxion
