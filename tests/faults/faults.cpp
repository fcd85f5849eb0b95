#include "tests/faults/faults.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <sstream>

#include "models/files/npy.h"
#include "models/files/safetensors.h"
#include "models/images/image.h"
#include "tests/catch.h"
#include "tests/files/scratch.h"

namespace fluxion::testing {

namespace fs = std::filesystem;

Arguments words(const std::string& text) {
  std::istringstream stream(text);
  Arguments result;
  for (std::string word; stream >> word;) result.push_back(word);
  return result;
}

Ending ended(Process& process, const fs::path& folder) {
  const int status = process.wait();
  Ending result{WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
                text_of(folder / "stdout"), text_of(folder / "stderr")};
  fs::remove(folder / "stdout");
  fs::remove(folder / "stderr");
  return result;
}

Ending run(const Arguments& arguments, const fs::path& folder,
           const std::function<void()>& prepare) {
  Process process(arguments, folder, prepare);
  return ended(process, folder);
}

std::string last_line(const std::string& text) {
  const std::size_t end = text.find_last_not_of('\n');
  if (end == text.npos) return "";
  const std::size_t begin = text.find_last_of('\n', end);
  return text.substr(begin == text.npos ? 0 : begin + 1,
                     end - (begin == text.npos ? 0 : begin + 1) + 1);
}

void check_ended_well(const Ending& ending) {
  INFO("exit code " << ending.code << "\n" << ending.error);
  CHECK((ending.code == 0 || ending.code == 1));
  if (ending.code == 1) CHECK(last_line(ending.error).starts_with("fluxion: "));
}

void check_whole_files(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    INFO(entry.path().string());
    CHECK_FALSE(name.ends_with(".part"));
    if (name.ends_with(".safetensors")) CHECK_NOTHROW(SafetensorsFile(entry.path()));
    if (name.ends_with(".npy")) CHECK_NOTHROW(read_npy(entry.path()));
    if (name.ends_with(".png")) CHECK(text_of(entry.path()).ends_with("IEND\xae\x42\x60\x82"));
    if (name.ends_with(".svg")) CHECK(text_of(entry.path()).ends_with("</svg>\n"));
    if (name.ends_with(".json") || name.ends_with(".csv"))
      CHECK(text_of(entry.path()).ends_with("\n"));
  }
}

std::function<void()> file_limit(rlim_t bytes) {
  return [bytes] {
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  };
}

namespace {

// The library that lets calls fail, under a name without a space: LD_PRELOAD is a list of names
// with spaces or colons between them.
const std::string& failing_calls() {
  static const ScratchFolder folder;
  static const std::string link = [] {
    const fs::path place = folder / "fluxion-failing-calls.so";
    REQUIRE(place.string().find_first_of(" :") == std::string::npos);
    fs::create_symlink(program_path().parent_path() / "fluxion-failing-calls.so", place);
    return place.string();
  }();
  return link;
}

}  // namespace

std::function<void()> fault(const std::string& text, const fs::path& counts) {
  return [text, counts, library = failing_calls()] {
    ::setenv("LD_PRELOAD", library.c_str(), 1);
    ::setenv("FLUXION_FAULT", text.c_str(), 1);
    if (!counts.empty()) ::setenv("FLUXION_FAULT_COUNTS", counts.c_str(), 1);
  };
}

Counts count_calls(const Arguments& arguments, const fs::path& folder) {
  const Ending ending = run(arguments, folder, fault("none", folder / "counts"));
  INFO(ending.error);
  REQUIRE(ending.code == 0);
  Counts result;
  std::istringstream(text_of(folder / "counts")) >> result.memory >> result.thread >> result.file;
  REQUIRE(result.memory > 0);
  return result;
}

const fs::path& trained() {
  static const ScratchFolder folder;
  static const bool made = [] {
    const Ending ending = run(words(tiny_training + "--steps 2 --quiet --out run"), folder.path());
    INFO(ending.error);
    REQUIRE(ending.code == 0);
    return true;
  }();
  static const fs::path place = made ? folder / "run" : fs::path();
  return place;
}

void copy_trained(const fs::path& to) {
  fs::create_directories(to.parent_path());
  fs::copy(trained(), to, fs::copy_options::recursive);
}

void write_images(const fs::path& folder, int count) {
  fs::create_directories(folder);
  Image image(8, 8, 1);
  for (int k = 0; k < count; ++k) {
    for (std::size_t i = 0; i < 64; ++i)
      image.pixels[i] = static_cast<std::uint8_t>(i * static_cast<std::size_t>(k + 1));
    write_png(folder / (std::to_string(k) + ".png"), image);
  }
}

}  // namespace fluxion::testing
