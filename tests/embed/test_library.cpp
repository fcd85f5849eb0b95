// The shared library as a file: what it shows, what it needs, and what it does when it is loaded.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <regex>
#include <set>
#include <sstream>

#include "tests/embed/c_caller.h"
#include "tests/embed/handles.h"
#include "tests/embed/tiny_samplers.h"
#include "tests/faults/faults.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("a C99 program draws", "[embed]") {
  const TinyGenerator tiny = tiny_generator(1);
  const std::vector<float> expected = tiny.sampler.sample(2, 2, 21, {2, 0});
  std::vector<float> samples(expected.size());
  char message[1020];
  const int drawn_in_c =
      draw_in_c(tiny.bytes.data(), tiny.bytes.size(), samples.data(), samples.size(), message);
  INFO(message);
  CHECK(drawn_in_c == 1);
  CHECK(samples == expected);
}

#if defined(__ELF__)

namespace {

std::string said(const std::string& command) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(::popen(command.c_str(), "r"),
                                                             &::pclose);
  REQUIRE(pipe);
  std::string text;
  char part[4096];
  while (const std::size_t size = std::fread(part, 1, sizeof part, pipe.get()))
    text.append(part, size);
  return text;
}

std::set<std::string> declared() {
  const std::string header = text_of(FLUXION_SOURCE_DIR "/embed/fluxion.h");
  const std::regex function("FLUXION_API[^;(]*?(fluxion_[a-z_]+)\\(");
  std::set<std::string> names;
  for (std::sregex_iterator found(header.begin(), header.end(), function), end; found != end;
       ++found)
    names.insert((*found)[1]);
  return names;
}

}  // namespace

TEST_CASE("the library shows the functions of its header and nothing else", "[embed][library]") {
  std::istringstream lines(said("nm -D --defined-only '" FLUXION_RUNTIME_LIBRARY "'"));
  std::set<std::string> shown;
  std::string address, kind, name;
  while (lines >> address >> kind >> name) shown.insert(name);
  CHECK(declared().size() >= 22);
  for (const char* name :
       {"fluxion_vulkan_needs", "fluxion_device_from_vulkan", "fluxion_generate_to_vulkan"})
    CHECK(shown.count(name) == 1);
  CHECK(shown == declared());
}

TEST_CASE("the library needs the language's own libraries alone", "[embed][library]") {
  if (sanitized) return;
  std::istringstream lines(said("readelf -d '" FLUXION_RUNTIME_LIBRARY "'"));
  const std::set<std::string> allowed{
      "libstdc++.so.6", "libm.so.6",       "libgcc_s.so.1",        "libc.so.6",
      "libdl.so.2",     "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"};
  int needed = 0;
  for (std::string line; std::getline(lines, line);) {
    std::smatch found;
    if (!std::regex_search(line, found, std::regex("\\(NEEDED\\).*\\[(.*)\\]"))) continue;
    ++needed;
    CAPTURE(line);
    CHECK(allowed.count(found[1]) == 1);
  }
  CHECK(needed >= 2);
}

TEST_CASE("nothing of the library runs when it is loaded", "[embed][library]") {
  if (sanitized) return;
    // The compiler's own entries: one that every shared library has, and where processors are asked
    // for their instructions, libgcc's.
#if defined(__x86_64__) || defined(__i386__)
  constexpr std::size_t entries = 2;
#else
  constexpr std::size_t entries = 1;
#endif
  const std::string sections = said("readelf -SW '" FLUXION_RUNTIME_LIBRARY "'");
  std::smatch found;
  REQUIRE(std::regex_search(
      sections, found, std::regex("\\.init_array +INIT_ARRAY +[0-9a-f]+ +[0-9a-f]+ +([0-9a-f]+)")));
  CHECK(std::stoul(found[1], nullptr, 16) <= entries * sizeof(void*));
}

#endif
