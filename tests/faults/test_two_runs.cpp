// Two runs in one folder, runs that diverge and go on, runs that are killed.
#include <signal.h>

#include <chrono>
#include <cstdint>
#include <limits>
#include <random>
#include <thread>

#include "backends/cpu/cpu.h"
#include "engine/platform/file.h"
#include "models/files/npy.h"
#include "models/files/safetensors.h"
#include "models/model_file.h"
#include "models/training/checkpoint.h"
#include "models/training/run.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/faults/faults.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace fs = std::filesystem;

TEST_CASE("a second run in one folder is refused by the name of the first, which goes on",
          "[cli][faults]") {
  const ScratchFolder folder;
  Process first(words(tiny_training + "--steps 100000000 --checkpoint-every 50steps --out run"),
                folder / "");
  wait_for([&] { return fs::exists(folder / "run/checkpoint.safetensors"); });
  const std::string holder = text_of(folder / "run/.lock");
  REQUIRE(holder.starts_with("process "));
  const ScratchFolder elsewhere;
  for (const std::string& command :
       {tiny_training + "--steps 2 --out " + (folder / "run").string(),
        "train --device cpu:1 --steps 1000000000 --resume " + (folder / "run").string()}) {
    const Ending second = run(words(command), elsewhere.path());
    INFO(command << "\n" << second.error);
    CHECK(second.code == 1);
    CHECK(contains(last_line(second.error), "in use by " + holder.substr(0, holder.find('\n'))));
    CHECK(contains(last_line(second.error), (folder / "run").string()));
  }
  CHECK(first.running());
  const std::int64_t step = read_checkpoint_info(folder / "run/checkpoint.safetensors").step;
  wait_for([&] { return read_checkpoint_info(folder / "run/checkpoint.safetensors").step > step; });
  first.signal(SIGINT);
  CHECK(ended(first, folder.path()).code == 128 + SIGINT);
  CHECK_FALSE(fs::exists(folder / "run/.lock"));
  check_whole_files(folder.path());
}

TEST_CASE("a run that was killed leaves its folder to the next, which clears away what it left",
          "[cli][faults]") {
  const ScratchFolder folder;
  {
    Process killed(words(tiny_training + "--steps 100000000 --checkpoint-every 20steps --out run"),
                   folder.path());
    wait_for([&] { return fs::exists(folder / "run/checkpoint.safetensors"); });
    killed.signal(SIGKILL);
    killed.wait();
  }
  std::ofstream(folder / "run/.samples.png.1-2-3.part") << "half";
  // One that a process is writing, by this test.
  ReplacementFile living(folder / "run/model.safetensors");
  living.write("half");
  const std::int64_t step = read_checkpoint_info(folder / "run/checkpoint.safetensors").step;
  const Ending next =
      run(words("train --device cpu:1 --resume run --steps " + std::to_string(step + 3)),
          folder.path());
  INFO(next.error);
  CHECK(next.code == 0);
  CHECK_FALSE(fs::exists(folder / "run/.samples.png.1-2-3.part"));
  CHECK_NOTHROW(living.commit());
  CHECK(read_checkpoint_info(folder / "run/checkpoint.safetensors").step == step + 3);
}

TEST_CASE("weights that explode end the run, the checkpoints before stay and go on at a lower rate",
          "[cli][faults]") {
  const ScratchFolder folder;
  copy_trained(folder / "run");
  const Ending exploded = run(words("train --device cpu:1 --resume run --lr 1e6 --steps 60 "
                                    "--checkpoint-every 1steps"),
                              folder.path());
  INFO(exploded.error);
  CHECK(exploded.code == 1);
  CHECK(contains(exploded.error, "a learning rate of 1e+06, which was 0.005"));
  const std::string why = last_line(exploded.error);
  CHECK(contains(why, "no longer finite"));
  CHECK(contains(why, "smaller learning rate"));
  CHECK(contains(why, "the last good checkpoint, after step "));
  CHECK(contains(why, "run/checkpoint.safetensors"));
  CHECK(contains(why, "run/checkpoint-previous.safetensors"));
  check_whole_files(folder.path());
  const std::int64_t last = read_checkpoint_info(folder / "run/checkpoint.safetensors").step,
                     previous =
                         read_checkpoint_info(folder / "run/checkpoint-previous.safetensors").step;
  CHECK(previous == last - 1);
  const Ending again =
      run(words("train --device cpu:1 --lr 1e-9 --clip 0.5 --out again --steps " +
                std::to_string(previous + 1) + " --resume run/checkpoint-previous.safetensors"),
          folder.path());
  INFO(again.error);
  CHECK(again.code == 0);
  CHECK(read_checkpoint_info(folder / "again/checkpoint.safetensors").step == previous + 1);
}

TEST_CASE("a checkpoint that can't be written leaves the two before it", "[cli][faults]") {
  const ScratchFolder folder;
  copy_trained(folder / "run");
  const auto go_on = [&](int steps, const std::function<void()>& prepare = {}) {
    return run(words("train --device cpu:1 --checkpoint-every 1steps --resume run --steps " +
                     std::to_string(steps)),
               folder.path(), prepare);
  };
  REQUIRE(go_on(4).code == 0);
  const fs::path last = folder / "run/checkpoint.safetensors",
                 previous = folder / "run/checkpoint-previous.safetensors";
  const auto steps = [&] {
    return std::pair(read_checkpoint_info(previous).step, read_checkpoint_info(last).step);
  };
  REQUIRE(steps() == std::pair<std::int64_t, std::int64_t>{3, 4});
  const Ending full = go_on(5, file_limit(2048));
  INFO(full.error);
  CHECK(full.code == 1);
  CHECK(contains(full.error, "after step 4"));
  CHECK(steps() == std::pair<std::int64_t, std::int64_t>{3, 4});
  check_whole_files(folder.path());
}

TEST_CASE("a run that fails before it has saved says what it began with", "[cli][faults]") {
  const ScratchFolder folder;
  copy_trained(folder / "run");
  REQUIRE(run(words("train --device cpu:1 --checkpoint-every 1steps --resume run --steps 4"),
              folder.path())
              .code == 0);
  const Ending exploded =
      run(words("train --device cpu:1 --resume run/checkpoint-previous.safetensors --lr 1e6 "
                "--steps 60 --checkpoint-every 100steps"),
          folder.path());
  INFO(exploded.error);
  CHECK(exploded.code == 1);
  CHECK(contains(exploded.error,
                 "no checkpoint was written yet; the run began with run/checkpoint-previous"));
}

TEST_CASE("weights that are not finite are never saved", "[faults][training]") {
  const ScratchFolder folder;
  TrainingConfig config{
      .network = MlpConfig{.hidden = {8}}, .schedule = {.learning_rate = 3e38}, .batch = 8};
  config.optimiser.weight_decay = 1e10;
  Trainer trainer(config, make_data_set("8gaussians"), cpu({.threads = 1}));
  const std::string why =
      message_of<Error>([&] { run_training(trainer, {.steps = 1}, {.folder = folder / "run"}); });
  INFO(why);
  CHECK(contains(why, "no longer finite"));
  CHECK(contains(why, "no checkpoint was written yet"));
  for (const char* name :
       {"checkpoint.safetensors", "model.safetensors", "model-raw.safetensors", "samples.png"})
    CHECK_FALSE(fs::exists(folder / "run" / name));
}

TEST_CASE("data that are too large are said to be that", "[cli][faults]") {
  const ScratchFolder folder;
  write_npy(folder / "huge.npy", std::vector<float>(200, 1e30f), {100, 2});
  const Ending ending = run(words("train --data huge.npy --width 8 --depth 1 --batch 8 --steps 5 "
                                  "--schedule constant --device cpu:1 --out run"),
                            folder.path());
  INFO(ending.error);
  CHECK(ending.code == 1);
  CHECK(contains(last_line(ending.error), "the data hold numbers as large as 1e+30"));
}

TEST_CASE("points of any dimension are trained on and drawn", "[cli][faults]") {
  const ScratchFolder folder;
  for (const std::int64_t dim : {1, 3, 5}) {
    std::vector<float> points;
    for (int i = 0; i < 300; ++i) points.push_back(0.01f * static_cast<float>(i - 150));
    write_npy(folder / "points.npy", points, {300 / dim, dim});
    const Ending trained = run(words("train --data points.npy --width 8 --depth 1 --batch 8 "
                                     "--steps 3 --schedule constant --device cpu:1 --out run"),
                               folder.path());
    INFO(dim << " dimensions\n" << trained.error);
    CHECK(trained.code == 0);
    CHECK(fs::exists(folder / "run/samples.png"));
    const Ending sampled = run(words("sample --model run/model.safetensors --count 20 --out a.png "
                                     "--npy a.npy --device cpu:1"),
                               folder.path());
    INFO(sampled.error);
    CHECK(sampled.code == 0);
    check_whole_files(folder.path());
    fs::remove_all(folder / "run");
  }
}

namespace {

// Samples of a run, trained for so many steps in parts that are killed at random moments.
void kill_and_go_on(std::uint64_t seed, int kills) {
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const ScratchFolder folder;
  const std::vector<int> signals = {SIGKILL, SIGINT, SIGTERM, SIGHUP, SIGKILL};
  for (int i = 0; i < kills; ++i) {
    const bool goes_on = fs::exists(folder / "run/checkpoint.safetensors");
    const std::string command =
        goes_on ? "train --device cpu:1 --steps 100000000 --resume run"
                : tiny_training + "--steps 100000000 --checkpoint-every 3steps --out run";
    Process process(words(command), folder.path());
    // The first goes on until there is something to lose.
    if (i == 0) wait_for([&] { return fs::exists(folder / "run/checkpoint.safetensors"); });
    // Early moments as often as late ones.
    const auto milliseconds = static_cast<int>(1 << (random() % 10));
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    const int number = signals[random() % signals.size()];
    process.signal(number);
    const Ending ending = ended(process, folder.path());
    INFO("signal " << number << " after " << milliseconds << " ms: " << ending.code << "\n"
                   << ending.error);
    CHECK((ending.code == 128 + number || ending.code == -number));
    if (!fs::exists(folder / "run")) continue;
    for (const auto& entry : fs::directory_iterator(folder / "run"))
      if (entry.path().extension() == ".safetensors" &&
          !entry.path().filename().string().starts_with('.'))
        CHECK_NOTHROW(SafetensorsFile(entry.path()).check_content());
    if (fs::exists(folder / "run/checkpoint.safetensors"))
      CHECK_NOTHROW(read_checkpoint_info(folder / "run/checkpoint.safetensors"));
  }
  REQUIRE(fs::exists(folder / "run/checkpoint.safetensors"));
  const std::int64_t step = read_checkpoint_info(folder / "run/checkpoint.safetensors").step;
  const Ending last = run(
      words("train --device cpu:1 --resume run --out again --steps " + std::to_string(step + 5)),
      folder.path());
  INFO(last.error);
  CHECK(last.code == 0);
  // As a run that was never stopped.
  const Ending whole = run(
      words(tiny_training + "--steps " + std::to_string(step + 5) + " --out whole"), folder.path());
  REQUIRE(whole.code == 0);
  const Device device = cpu({.threads = 1});
  const Model a = read_model(folder / "again/model.safetensors", device),
              b = read_model(folder / "whole/model.safetensors", device);
  for (const auto& [name, tensor] : a.parameters)
    CHECK(tensor.to_host<float>() == b.parameters.at(name).to_host<float>());
}

}  // namespace

TEST_CASE("runs that are killed at random moments go on as if they had not been", "[cli][faults]") {
  kill_and_go_on(20261129, 4);
}

TEST_CASE("runs that are killed at random moments go on, many times", "[.][faults]") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) kill_and_go_on(seed, 10);
}
