// What the system does to the program: signals, closed pipes, full disks, memory and threads that
// run out, files that are cut short. Whatever comes, the program ends with a line and an exit code
// of its own, files are whole, and the last good checkpoint goes on.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <thread>

#include "models/files/npy.h"
#include "models/files/safetensors.h"
#include "models/images/image.h"
#include "models/model_file.h"
#include "models/training/checkpoint.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

Arguments words(const std::string& text) {
  std::istringstream stream(text);
  Arguments result;
  for (std::string word; stream >> word;) result.push_back(word);
  return result;
}

const std::string tiny_training =
    "train --data 8gaussians --width 8 --depth 1 --batch 8 --schedule constant --device cpu:1 ";

// How a program ended: its exit code, or minus the signal that ended it, and what it said.
struct Ending {
  int code = 0;
  std::string out, error;
};

Ending ended(Process& process, const fs::path& folder) {
  const int status = process.wait();
  Ending result{WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
                text_of(folder / "stdout"), text_of(folder / "stderr")};
  fs::remove(folder / "stdout");
  fs::remove(folder / "stderr");
  return result;
}

Ending run(const Arguments& arguments, const fs::path& folder,
           const std::function<void()>& prepare = {}) {
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

// Done, or failed with a line that says why.
void check_ended_well(const Ending& ending) {
  INFO("exit code " << ending.code << "\n" << ending.error);
  CHECK((ending.code == 0 || ending.code == 1));
  if (ending.code == 1) CHECK(last_line(ending.error).starts_with("fluxion: "));
}

// Every file below the folder that has a format is whole, and nothing half written lies about.
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

// Lets writes beyond this size fail, as a full disk does. The program ignores the signal by itself.
std::function<void()> file_limit(rlim_t bytes) {
  return [bytes] {
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  };
}

// Lets calls fail (tests/cli/faults).
std::function<void()> fault(const std::string& text, const fs::path& counts = {}) {
  return [text, counts] {
    const std::string library =
        (program_path().parent_path() / "fluxion-failing-calls.so").string();
    ::setenv("LD_PRELOAD", library.c_str(), 1);
    ::setenv("FLUXION_FAULT", text.c_str(), 1);
    if (!counts.empty()) ::setenv("FLUXION_FAULT_COUNTS", counts.c_str(), 1);
  };
}

struct Counts {
  long memory = 0, thread = 0, file = 0;
};
Counts count_calls(const Arguments& arguments, const fs::path& folder) {
  const Ending ending = run(arguments, folder, fault("none", folder / "counts"));
  INFO(ending.error);
  REQUIRE(ending.code == 0);
  Counts result;
  std::istringstream(text_of(folder / "counts")) >> result.memory >> result.thread >> result.file;
  REQUIRE(result.memory > 0);
  return result;
}

// `most` numbers below `end`: the first few, then ever sparser, and the last.
std::vector<long> sweep(long end, long most) {
  std::vector<long> result;
  for (long n = 0; n < end && static_cast<long>(result.size()) < most / 4; ++n) result.push_back(n);
  const long rest = most - static_cast<long>(result.size());
  for (long k = 1; k <= rest; ++k)
    result.push_back(static_cast<long>(result.size()) < end ? (end - 1) * k / rest : end - 1);
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  std::erase_if(result, [&](long n) { return n < 0 || n >= end; });
  return result;
}

// A model and a checkpoint of two steps, made once.
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

}  // namespace

TEST_CASE("a signal ends the program with a line and its own code, whatever it is doing",
          "[cli][faults]") {
  const ScratchFolder folder;
  write_images(folder / "images", 300);
  // Reading a folder; planning and compiling a step; training; training a classifier.
  const std::vector<std::string> commands = {
      "train --data images --image-size 16 --steps 100000 --out run",
      "train --data glyphs --image-size 16 --depth 12 --batch 4 --steps 100000 --out run",
      tiny_training + "--steps 100000000 --out run",
      "eval --samples images --data glyphs --image-size 8 --metrics classifier --class 1 "
      "--classifier judge.safetensors"};
  const std::vector<int> signals = {SIGINT, SIGTERM, SIGHUP};
  std::size_t turn = 0;
  for (const std::string& command : commands)
    for (const int delay : {0, 3, 10, 30, 100, 300, 700}) {
      const int number = signals[turn++ % signals.size()];
      fs::remove_all(folder / "run");
      Process process(words(command), folder.path());
      std::this_thread::sleep_for(std::chrono::milliseconds(delay));
      process.signal(number);
      const Ending ending = ended(process, folder.path());
      INFO(command << ", signal " << number << " after " << delay << " ms: " << ending.code << "\n"
                   << ending.error);
      if (ending.code == -number) {
        CHECK(ending.error.empty());  // before main began
        continue;
      }
      CHECK(ending.code == 128 + number);
      CHECK((contains(last_line(ending.error), "interrupted") ||
             contains(last_line(ending.error), "fluxion: ended by SIG")));
      check_whole_files(folder.path());
      if (fs::exists(folder / "run/checkpoint.safetensors"))
        CHECK_NOTHROW(read_checkpoint_info(folder / "run/checkpoint.safetensors"));
    }
}

TEST_CASE("a signal that is ignored from outside stays ignored", "[cli][faults]") {
  const ScratchFolder folder;
  Process process(words(tiny_training + "--steps 100000000 --quiet --out run"), folder.path(),
                  [] { ::signal(SIGHUP, SIG_IGN); });
  wait_for([&] { return contains(text_of(folder / "run/log.csv"), "\n20,"); });
  process.signal(SIGHUP);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  CHECK(process.running());
  process.signal(SIGTERM);
  CHECK(ended(process, folder.path()).code == 128 + SIGTERM);
}

TEST_CASE("a closed pipe is an error of what goes into it, and training goes on without its lines",
          "[cli][faults]") {
  const ScratchFolder folder;
  const auto closed = [](int descriptor) {
    return [descriptor] {
      int ends[2];
      if (::pipe(ends) != 0) ::_exit(125);
      ::close(ends[0]);
      ::dup2(ends[1], descriptor);
      ::close(ends[1]);
    };
  };
  for (const std::string& command :
       {"inspect " + (trained() / "model.safetensors").string(), std::string("graph --list"),
        std::string("train --help"), std::string("graph softmax --format text")}) {
    const Ending ending = run(words(command), folder.path(), closed(STDOUT_FILENO));
    INFO(command << "\n" << ending.error);
    CHECK(ending.code == 1);
    CHECK(contains(last_line(ending.error), "standard output"));
  }
  CHECK(run(words(tiny_training + "--steps 12 --out run"), folder.path(), closed(STDERR_FILENO))
            .code == 0);
  CHECK(read_checkpoint_info(folder / "run/checkpoint.safetensors").step == 12);
  CHECK(run(words("inspect nothing"), folder.path(), closed(STDERR_FILENO)).code == 1);
}

TEST_CASE("a standard stream that is closed gets no file of the program's", "[cli][faults]") {
  const ScratchFolder folder;
  const auto without = [](std::vector<int> descriptors) {
    return [descriptors] {
      for (const int descriptor : descriptors) ::close(descriptor);
    };
  };
  const Ending no_output =
      run(words(tiny_training + "--steps 2 --out run"), folder.path(), without({0, 1}));
  INFO(no_output.error);
  CHECK(no_output.code == 1);
  CHECK(contains(last_line(no_output.error), "standard output"));
  check_whole_files(folder / "run");
  CHECK(run(words(tiny_training + "--steps 2 --quiet --out run"), folder.path(), without({0, 1, 2}))
            .code == 0);
  check_whole_files(folder / "run");
  CHECK(read_checkpoint_info(folder / "run/checkpoint.safetensors").step == 2);
}

TEST_CASE("a disk that is full leaves each kind of file as it was, and is named", "[cli][faults]") {
  const ScratchFolder folder;
  copy_trained(folder / "run");
  const std::string model = (folder / "run/model.safetensors").string();
  struct Case {
    std::string command, file;
    rlim_t bytes;
  };
  for (const Case& full :
       {Case{"sample --count 400 --model " + model + " --npy out.npy", "out.npy", 1024},
        Case{"sample --count 400 --model " + model + " --out out.png", "out.png", 1024},
        Case{"graph softmax --out out.svg", "out.svg", 1024},
        Case{"graph softmax --save out.graph", "out.graph", 16},
        Case{"train --resume run --steps 4", "checkpoint.safetensors", 2048},
        Case{tiny_training + "--steps 2 --out new", "config.json", 64},
        Case{tiny_training + "--steps 2 --out new", "log.csv", 0}}) {
    const fs::path target = folder / full.file;
    if (full.file.starts_with("out.")) std::ofstream(target) << "before";
    const Ending ending = run(words(full.command), folder.path(), [&] {
      // What the program says may be longer.
      const int pipe = ::open("/dev/null", O_WRONLY);
      ::dup2(pipe, STDOUT_FILENO);
      file_limit(full.bytes)();
    });
    INFO(full.command << ", " << full.bytes << " bytes\n" << ending.error);
    CHECK(ending.code == 1);
    if (full.file.starts_with("out.")) CHECK(text_of(target) == "before");
    fs::remove(target);
    fs::remove_all(folder / "new");
    check_whole_files(folder.path());
    CHECK(read_checkpoint_info(folder / "run/checkpoint.safetensors").step == 2);
  }
  for (const std::string& command : {"sample --count 400 --model " + model + " --npy /dev/full",
                                     "sample --count 400 --model " + model + " --out /dev/full",
                                     std::string("graph softmax --out /dev/full --format svg"),
                                     std::string("graph softmax --save /dev/full")}) {
    const Ending ending = run(words(command), folder.path());
    INFO(command << "\n" << ending.error);
    CHECK(ending.code == 1);
    CHECK(contains(ending.error, "/dev/full"));
  }
}

TEST_CASE("an output folder that is removed under a run is made again", "[cli][faults]") {
  const ScratchFolder folder;
  Process process(words(tiny_training + "--steps 100000000 --checkpoint-every 50steps --out run"),
                  folder.path());
  wait_for([&] { return fs::exists(folder / "run/checkpoint.safetensors"); });
  std::error_code busy;
  while (fs::exists(folder / "run/log.csv")) fs::remove_all(folder / "run", busy);
  wait_for([&] { return fs::exists(folder / "run/checkpoint.safetensors"); });
  process.signal(SIGINT);
  const Ending ending = ended(process, folder.path());
  INFO(ending.error);
  CHECK(ending.code == 128 + SIGINT);
  check_whole_files(folder / "run");
  const std::string log = text_of(folder / "run/log.csv");
  CHECK(log.starts_with("step,"));
  CHECK(contains(log, "\n1,"));
  CHECK(contains(log, "\n10,"));
  CHECK(fs::exists(folder / "run/config.json"));
  CHECK(fs::exists(folder / "run/model.safetensors"));
}

TEST_CASE("an output folder that can't be used is refused before anything runs", "[cli][faults]") {
  const ScratchFolder folder;
  std::ofstream(folder / "file") << "x";
  for (const std::string& place : {std::string("file/run"), std::string("/proc/run"),
                                   std::string("/dev/null"), std::string("file")}) {
    const Ending ending = run(words(tiny_training + "--steps 2 --out " + place), folder.path());
    INFO(place << "\n" << ending.error);
    CHECK(ending.code == 1);
    CHECK(contains(last_line(ending.error), place));
  }
}

TEST_CASE("a data file that is cut short while it is mapped ends the run with its name",
          "[cli][faults]") {
  const ScratchFolder folder;
  constexpr std::int64_t count = 1 << 16;
  write_npy(folder / "points.npy", std::vector<float>(2 * count, 0.5f), {count, 2});
  for (const std::uintmax_t left : {std::uintmax_t{4096}, std::uintmax_t{2 * 4 * count - 100}}) {
    Process process(
        words("train --data points.npy --width 8 --depth 1 --batch 64 --steps 100000000 "
              "--schedule constant --device cpu:1 --checkpoint-every 10steps --out run"),
        folder.path());
    wait_for([&] { return fs::exists(folder / "run/checkpoint.safetensors"); });
    fs::resize_file(folder / "points.npy", left);
    const Ending ending = ended(process, folder.path());
    INFO(ending.error);
    CHECK(ending.code == 1);
    CHECK(contains(last_line(ending.error), "points.npy"));
    CHECK(contains(last_line(ending.error), "cut short"));
    check_whole_files(folder / "run");
    CHECK_NOTHROW(read_checkpoint_info(folder / "run/checkpoint.safetensors"));
    fs::remove_all(folder / "run");
    write_npy(folder / "points.npy", std::vector<float>(2 * count, 0.5f), {count, 2});
  }
}

TEST_CASE("a program that may open few files says so", "[cli][faults]") {
  if (sanitized) return;  // the undefined-behaviour sanitizer looks at memory through a pipe
  const ScratchFolder folder;
  write_images(folder / "images", 40);
  for (const std::string& command :
       {tiny_training + "--steps 2 --out run", std::string("graph softmax --out a.svg"),
        std::string("train --data images --width 8 --heads 1 --depth 1 --batch 4 --steps 2 "
                    "--device cpu:1 --out run")})
    for (const rlim_t files : {3, 4, 5, 6, 7, 8, 10, 12}) {
      const Ending ending = run(words(command), folder.path(), [files] {
        const rlimit limit{files, files};
        ::setrlimit(RLIMIT_NOFILE, &limit);
      });
      // The loader finds no libraries.
      if (ending.code == 127 && contains(ending.error, "shared libraries")) continue;
      INFO(command << " with " << files << " files");
      check_ended_well(ending);
      check_whole_files(folder.path());
    }
}

TEST_CASE("a program that gets no more threads works with those that it has", "[cli][faults]") {
  if (sanitized) return;
  const ScratchFolder folder;
  write_images(folder / "images", 40);
  const std::string training =
      "train --data images --width 8 --heads 1 --depth 1 --batch 4 --steps 3 --quiet --device "
      "cpu:2 ";
  REQUIRE(run(words(training + "--out whole"), folder.path()).code == 0);
  for (const int threads : {0, 1, 2, 3}) {
    INFO(threads << " threads");
    const Ending ending = run(words(training + "--out run"), folder.path(),
                              fault("thread:" + std::to_string(threads)));
    INFO(ending.error);
    CHECK(ending.code == 0);
    CHECK(read_model_info(folder / "run/model.safetensors").step == 3);
    const Ending judged =
        run(words("eval --samples images --data images --metrics sliced-wasserstein --draws 1"),
            folder.path(), fault("thread:" + std::to_string(threads)));
    INFO(judged.error);
    CHECK(judged.code == 0);
  }
}

namespace {

// Lets the memory of the command run out at some moments, once and for good.
void sweep_memory(const std::string& command, const fs::path& folder, long most) {
  const Counts counts = count_calls(words(command), folder);
  for (const long n : sweep(counts.memory, most))
    for (const char* after : {"", "+"}) {
      const std::string text = "memory:" + std::to_string(n) + after;
      const Ending ending = run(words(command), folder, fault(text));
      INFO(command << ", " << text << " of " << counts.memory);
      check_ended_well(ending);
      check_whole_files(folder);
    }
}

// Lets each call fail that makes, writes, flushes or renames a file.
void sweep_files(const std::string& command, const fs::path& folder, long most) {
  const Counts counts = count_calls(words(command), folder);
  for (const long n : sweep(counts.file, most)) {
    const Ending ending = run(words(command), folder, fault("file:" + std::to_string(n)));
    INFO(command << ", file call " << n << " of " << counts.file);
    check_ended_well(ending);
    check_whole_files(folder);
  }
}

void sweep_all(long memory, long files) {
  const ScratchFolder folder;
  copy_trained(folder / "run");
  const std::string model = (trained() / "model.safetensors").string();
  const std::string training = tiny_training + "--steps 2 --out new",
                    resumed = "train --resume run --steps 4 --device cpu:1 --out again",
                    sampling =
                        "sample --count 3 --device cpu:1 --out a.png --npy a.npy --model " + model;
  for (const std::string& command : {training, sampling})
    sweep_memory(command, folder.path(), memory);
  for (const std::string& command :
       {training, resumed, sampling, std::string("graph softmax --out a.svg")})
    sweep_files(command, folder.path(), files);
  CHECK(read_checkpoint_info(folder / "run/checkpoint.safetensors").step == 2);
}

}  // namespace

TEST_CASE("memory that runs out and writes that fail end the program with a line, files whole",
          "[cli][faults]") {
  if (!sanitized) sweep_all(20, 12);
}

TEST_CASE("memory that runs out and writes that fail, at every moment", "[.][faults]") {
  if (!sanitized) sweep_all(2000, 1000);
}
