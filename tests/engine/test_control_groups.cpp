// Limits of control groups, read from folders laid out as the two versions of Linux lay them out.
#include <fstream>

#include "engine/platform/control_group_posix.h"
#include "tests/catch.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;
namespace fs = std::filesystem;

namespace {

void put(const ScratchFolder& system, const std::string& path, const std::string& text) {
  fs::create_directories((system / path).parent_path());
  std::ofstream(system / path) << text << "\n";
}

}  // namespace

TEST_CASE("control groups, version 2: the tightest limit of a group and those around it",
          "[engine][platform]") {
  const ScratchFolder system;
  CHECK(!control_group_memory(system.path()));
  CHECK(!control_group_processors(system.path()));
  put(system, "proc/self/cgroup", "0::/slice/job");
  const std::string job = "sys/fs/cgroup/slice/job/", slice = "sys/fs/cgroup/slice/";
  put(system, job + "memory.max", "max");
  put(system, job + "memory.current", "100");
  put(system, job + "cpu.max", "max 100000");
  CHECK(!control_group_memory(system.path()));
  CHECK(!control_group_processors(system.path()));
  put(system, slice + "memory.max", "1000");
  put(system, slice + "memory.current", "700");
  put(system, slice + "memory.stat", "anon 5\ninactive_file 300\nactive_file 1");
  put(system, slice + "cpu.max", "150000 100000");
  CHECK(control_group_memory(system.path()) == 600u);
  CHECK(control_group_processors(system.path()) == 1.5);
  put(system, job + "memory.max", "150");
  put(system, job + "cpu.max", "50000 100000");
  CHECK(control_group_memory(system.path()) == 50u);
  CHECK(control_group_processors(system.path()) == 0.5);
  put(system, job + "memory.current", "151");
  CHECK(control_group_memory(system.path()) == 0u);
}

TEST_CASE("control groups, version 1: a hierarchy for each resource, seen whole or from the group",
          "[engine][platform]") {
  const ScratchFolder system;
  put(system, "proc/self/cgroup", "7:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n1:name=systemd:/x");
  const std::string memory = "sys/fs/cgroup/memory/", cpu = "sys/fs/cgroup/cpu/";
  // A container sees its own group as the root.
  put(system, memory + "memory.limit_in_bytes", "9223372036854771712");
  put(system, memory + "memory.usage_in_bytes", "100");
  put(system, cpu + "cpu.cfs_quota_us", "-1");
  put(system, cpu + "cpu.cfs_period_us", "100000");
  CHECK(!control_group_memory(system.path()));
  CHECK(!control_group_processors(system.path()));
  put(system, memory + "memory.limit_in_bytes", "5000");
  put(system, cpu + "cpu.cfs_quota_us", "250000");
  CHECK(control_group_memory(system.path()) == 4900u);
  CHECK(control_group_processors(system.path()) == 2.5);
  // The host sees the group in its place.
  put(system, memory + "docker/a/memory.limit_in_bytes", "1000");
  put(system, memory + "docker/a/memory.usage_in_bytes", "400");
  put(system, memory + "docker/a/memory.stat", "total_inactive_file 150\ninactive_file 1");
  put(system, cpu + "docker/a/cpu.cfs_quota_us", "100000");
  put(system, cpu + "docker/a/cpu.cfs_period_us", "100000");
  CHECK(control_group_memory(system.path()) == 750u);
  CHECK(control_group_processors(system.path()) == 1.0);
}

TEST_CASE("control groups: files that hold nonsense are no limit", "[engine][platform]") {
  const ScratchFolder system;
  put(system, "proc/self/cgroup", "\n:\n0::\n3:memory\n0::/../../away\n");
  put(system, "sys/fs/cgroup/memory.max", "-5 many");
  put(system, "sys/fs/cgroup/memory.current", "");
  put(system, "sys/fs/cgroup/cpu.max", "0 0");
  CHECK(!control_group_memory(system.path()));
  CHECK(!control_group_processors(system.path()));
}
