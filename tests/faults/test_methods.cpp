// Every training method under the hardest fault: its process is killed, and what goes on from its
// last checkpoint ends with the bits of a run that nobody touched.
#include <signal.h>
#include <sys/wait.h>

#include "models/files/safetensors.h"
#include "models/methods/method.h"
#include "models/training/checkpoint.h"
#include "tests/catch.h"
#include "tests/faults/faults.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace fs = std::filesystem;

namespace {

// The command that trains so many steps of it, with the models that it may learn from beside it.
std::string training_of(const Method& method, int steps) {
  std::string command = "train --method " + method.name +
                        " --width 8 --depth 1 --batch 8 --schedule constant --device cpu:1 "
                        "--quiet --ema 0.9 --steps " +
                        std::to_string(steps);
  if (method.needs_pairs) return command + " --teacher flow/model.safetensors --pairs 100";
  if (!method.teacher_option.empty())
    command += " --" + method.teacher_option + " edm/model.safetensors";
  return command + " --data 8gaussians";
}

// Starts a run and kills it after its first checkpoint. False where it was faster than that.
bool killed_on_its_way(const std::string& command, const fs::path& folder) {
  fs::remove_all(folder / "killed");
  Process process(words(command + " --checkpoint-every 5steps --out killed"), folder);
  wait_for(
      [&] { return fs::exists(folder / "killed/checkpoint.safetensors") || !process.running(); });
  process.signal(SIGKILL);
  process.wait();
  return WIFSIGNALED(process.status());
}

// Every tensor of a file, bit for bit.
std::map<std::string, std::vector<std::byte>> tensors_of(const fs::path& path) {
  const SafetensorsFile file(path);
  std::map<std::string, std::vector<std::byte>> tensors;
  for (const SafetensorsEntry& entry : file.entries())
    tensors[entry.name].assign(entry.bytes.begin(), entry.bytes.end());
  return tensors;
}

}  // namespace

TEST_CASE("a run of any method that is killed goes on with the bits of one that was not",
          "[cli][faults][methods][kill]") {
  const ScratchFolder folder;
  const auto done = [&](const std::string& command) {
    const Ending ending = run(words(command), folder.path());
    INFO(command << "\n" << ending.error);
    REQUIRE(ending.code == 0);
  };
  for (const auto& method : built_in_methods())
    if (method->name == "flow-matching")
      done(training_of(*method, 5) + " --out flow");
    else if (method->name == "edm")
      done(training_of(*method, 5) + " --out edm");
  for (const auto& method : built_in_methods()) {
    INFO(method->name);
    int steps = 200;
    while (!killed_on_its_way(training_of(*method, steps), folder.path())) {
      REQUIRE(steps < 100000);
      steps *= 4;  // a machine so fast that it had ended
    }
    const std::int64_t before = read_checkpoint_info(folder / "killed/checkpoint.safetensors").step;
    CHECK(before < steps);
    done("train --resume killed --device cpu:1 --quiet");
    done(training_of(*method, steps) + " --out whole");
    for (const char* name :
         {"checkpoint.safetensors", "model.safetensors", "model-raw.safetensors"}) {
      INFO(name);
      const auto expected = tensors_of(folder / "whole" / name);
      CHECK_FALSE(expected.empty());
      CHECK((tensors_of(folder / "killed" / name) == expected));
    }
    fs::remove_all(folder / "whole");
  }
}
