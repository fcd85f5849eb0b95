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
#include "tests/faults/faults.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace fs = std::filesystem;

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
