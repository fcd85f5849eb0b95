// Memory that runs out, and files that can't be made, written, flushed, closed and renamed, at each
// moment of a command's life: a slice in every run, the whole in hidden test cases.
#include <algorithm>
#include <map>
#include <sstream>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/files/safetensors.h"
#include "models/networks/network.h"
#include "models/training/checkpoint.h"
#include "tests/catch.h"
#include "tests/faults/faults.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace fs = std::filesystem;

namespace {

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

// A command, and the files that it makes, with the same bytes each time.
struct Command {
  std::string text;
  std::vector<const char*> makes = {};
};

// What its files are after a run without a fault. Before each other they are taken away: a fault
// that is swallowed must not pass for success over the files of the run before.
class Made {
 public:
  Made(const Command& command, const fs::path& folder) {
    for (const char* name : command.makes) whole_[folder / name] = text_of(folder / name);
    for (const auto& [path, text] : whole_) REQUIRE(!text.empty());
  }
  void take_away() const {
    for (const auto& [path, text] : whole_) fs::remove(path);
  }
  void check(const Ending& ending) const {
    if (ending.code != 0) return;
    for (const auto& [path, text] : whole_) CHECK(text_of(path) == text);
  }

 private:
  std::map<fs::path, std::string> whole_;
};

// Lets the memory of the command run out at some moments, once and for good.
void sweep_memory(const Command& of, const fs::path& folder, long most) {
  const std::string& command = of.text;
  const Counts counts = count_calls(words(command), folder);
  const Made made(of, folder);
  for (const long n : sweep(counts.memory, most))
    for (const char* after : {"", "+"}) {
      const std::string text = "memory:" + std::to_string(n) + after;
      made.take_away();
      const Ending ending = run(words(command), folder, fault(text));
      INFO(command << ", " << text << " of " << counts.memory);
      check_ended_well(ending);
      made.check(ending);
      check_whole_files(folder);
    }
}

// Lets each call fail that makes, writes, flushes or renames a file.
void sweep_files(const Command& of, const fs::path& folder, long most) {
  const std::string& command = of.text;
  const Counts counts = count_calls(words(command), folder);
  REQUIRE(counts.file > 0);
  const Made made(of, folder);
  for (const long n : sweep(counts.file, most)) {
    made.take_away();
    const Ending ending = run(words(command), folder, fault("file:" + std::to_string(n)));
    INFO(command << ", file call " << n << " of " << counts.file);
    check_ended_well(ending);
    made.check(ending);
    check_whole_files(folder);
  }
}

void sweep_all(long memory, long files) {
  const ScratchFolder folder;
  copy_trained(folder / "run");
  const std::string model = (trained() / "model.safetensors").string();
  const Command training{tiny_training + "--steps 2 --out new", {"new/model.safetensors"}},
      resumed{"train --resume run --steps 4 --device cpu:1 --out again",
              {"again/model.safetensors"}},
      sampling{"sample --count 3 --device cpu:1 --out a.png --npy a.npy --model " + model,
               {"a.png", "a.npy"}};
  // A checkpoint as another program would write it: parameters, and nothing of ours.
  const NetworkConfig dit =
      DitConfig{.image_size = 4, .patch_size = 2, .hidden_size = 16, .depth = 1, .num_heads = 1};
  const Device device = cpu({.threads = 1});
  const fs::path public_dit = folder / "dit.safetensors";
  save_tensors(public_dit, initialise(dit, random_key(0, device)));
  const Command inspecting{"inspect --json " + model},
      importing{"import " + public_dit.string() +
                    " --heads 1 --predicts velocity --out imported.safetensors",
                {"imported.safetensors"}},
      judging{
          "eval --data 8gaussians --count 100 --metrics energy --draws 1 --device cpu:1 --model " +
          model};
  for (const Command& command : {training, resumed, sampling, inspecting, importing, judging})
    sweep_memory(command, folder.path(), memory);
  for (const Command& command :
       {training, resumed, sampling, importing, Command{"graph softmax --out a.svg", {"a.svg"}}})
    sweep_files(command, folder.path(), files);
  CHECK(read_checkpoint_info(folder / "run/checkpoint.safetensors").step == 2);
}

}  // namespace

TEST_CASE("memory that runs out and writes that fail end the program with a line, files whole",
          "[cli][faults]") {
  if (!sanitized) sweep_all(8, 12);
}

TEST_CASE("memory that runs out and writes that fail, at every moment", "[.][faults]") {
  if (!sanitized) sweep_all(2000, 1000);
}
