// --precision as users of `fluxion` meet it.
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu.h"
#include "models/data/points.h"
#include "models/files/npy.h"
#include "models/training/checkpoint.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const std::string mixed_run =
    "train --data 8gaussians --width 16 --depth 2 --batch 32 --threads 1 --schedule constant "
    "--quiet ";

}  // namespace

TEST_CASE("a run in 16 bits is resumed with the same bits, in its precision alone",
          "[cli][precision][resume]") {
  const ScratchFolder folder;
  const auto run = [&](const std::string& arguments) {
    const ProgramRun done = run_program(arguments, folder.path());
    INFO(arguments << "\n" << done.error);
    CHECK(done.code == 0);
  };
  for (const std::string precision : {"bf16", "f16", "bf16/bf16/bf16"}) {
    INFO(precision);
    const std::string start = mixed_run + "--precision " + precision;
    run(start + " --steps 30 --out whole");
    run(start + " --steps 17 --out parts");
    run("train --quiet --resume parts --steps 30");
    for (const char* name : {"model.safetensors", "model-raw.safetensors", "samples.png"})
      CHECK(text_of(folder / "whole" / name) == text_of(folder / "parts" / name));
    const auto config = nlohmann::json::parse(text_of(folder / "parts/config.json"));
    CHECK(config.at("precision") == precision);
    const ProgramRun other =
        run_program("train --quiet --resume parts --steps 40 --precision f32", folder.path());
    CHECK(other.code == 1);
    CHECK(other.error.find("--precision f32 (the checkpoint has " + precision + ")") !=
          std::string::npos);
    const ProgramRun shown = run_program("inspect whole/model.safetensors", folder.path());
    CHECK(shown.out.find("trained in " + precision) != std::string::npos);
    const ProgramRun json = run_program("inspect --json whole/model.safetensors", folder.path());
    CHECK(nlohmann::json::parse(json.out).at("model").at("precision") == precision);
  }
  CHECK(text_of(folder / "whole/log.csv").find("loss_scale") == std::string::npos);
}

TEST_CASE("a checkpoint from before there was a precision goes on in f32",
          "[cli][precision][resume]") {
  const ScratchFolder folder;
  REQUIRE(run_program(mixed_run + "--steps 20 --out whole", folder.path()).code == 0);
  REQUIRE(run_program(mixed_run + "--steps 10 --out run", folder.path()).code == 0);
  const auto path = folder / "run/checkpoint.safetensors";
  const CheckpointInfo info = read_checkpoint_info(path);
  nlohmann::json settings = nlohmann::json::parse(info.settings);
  CHECK(settings.erase("precision") == 1);
  write_checkpoint(path, resume_trainer(path, eight_gaussians(), cpu({.threads = 1})), info.seconds,
                   settings.dump(), info.since_row);
  REQUIRE(
      run_program("train --quiet --resume run --steps 20 --precision f32", folder.path()).code ==
      0);
  CHECK(text_of(folder / "run/model.safetensors") == text_of(folder / "whole/model.safetensors"));
}

TEST_CASE("a run that f16 can't hold leaves a model, which another precision goes on with",
          "[cli][precision]") {
  const ScratchFolder folder;
  std::vector<float> points;
  for (int i = 0; i < 640; ++i) points.push_back(0.01f * static_cast<float>(i - 320));
  points[100] = 3e19f;  // once in 20 batches of 16, so that each time halves the scale
  write_npy(folder / "points.npy", points, {320, 2});
  const std::string small = "--width 16 --depth 1 --batch 16 --threads 1 --schedule constant ";
  const ProgramRun f16 = run_program(
      "train --data points.npy --precision f16 --steps 400 --out run " + small, folder.path());
  INFO(f16.error);
  CHECK(f16.code == 1);
  CHECK(f16.error.find("--precision bf16 has the range of f32: --init ") != std::string::npos);
  CHECK(f16.error.find("run/model-raw.safetensors goes on in it") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(folder / "run/samples.png"));
  const ProgramRun bf16 = run_program(
      "train --data 8gaussians --init run/model-raw.safetensors --precision bf16 --steps 2 "
      "--quiet --out other " +
          small,
      folder.path());
  INFO(bf16.error);
  CHECK(bf16.code == 0);
}

TEST_CASE("samples are drawn and judged in f32 unless asked otherwise", "[cli][precision]") {
  const ScratchFolder folder;
  REQUIRE(run_program(mixed_run + "--precision bf16 --steps 20 --out run", folder.path()).code ==
          0);
  const auto samples = [&](const std::string& options) {
    const ProgramRun run = run_program(
        "sample --model run/model.safetensors --count 9 --npy s.npy " + options, folder.path());
    INFO(run.error);
    REQUIRE(run.code == 0);
    return text_of(folder / "s.npy");
  };
  const std::string plain = samples("");
  CHECK(samples("--precision f32") == plain);
  CHECK(samples("--precision bf16") != plain);
  CHECK(samples("--precision bf16") != samples("--precision f16"));
  const auto judged = [&](const std::string& options) {
    const ProgramRun run = run_program(
        "eval --model run/model.safetensors --metrics energy --count 200 --json " + options,
        folder.path());
    INFO(run.error);
    REQUIRE(run.code == 0);
    return run.out.substr(0, run.out.find("seconds"));
  };
  CHECK(judged("") == judged("--precision f32"));
  CHECK(judged("") != judged("--precision bf16"));
}

TEST_CASE("a precision that there is not is refused, by every command that takes one",
          "[cli][precision]") {
  const ScratchFolder folder;
  for (const std::string command :
       {"train --data moons", "sample --model m", "eval --model m", "bench"})
    for (const std::string precision : {"fp8", "BF16", "bf16/f32", "16"}) {
      const ProgramRun run = run_program(command + " --precision " + precision, folder.path());
      INFO(command << " " << precision << "\n" << run.error);
      CHECK(run.code == 2);
      CHECK(run.error.find("precision '" + precision + "'") != std::string::npos);
      CHECK(run.error.find("'bf16'") != std::string::npos);
    }
  const ProgramRun both =
      run_program("eval --samples s.npy --data moons --precision bf16", folder.path());
  CHECK(both.code == 2);
}

TEST_CASE("bench measures steps in 16 bits", "[cli][precision][bench]") {
  const ProgramRun run = run_program(
      "bench --net mlp2d --objective flow-matching --batch 4 --threads 1 --steps 1 --seconds 0.05 "
      "--peak-seconds 0.001 --precision f16");
  INFO(run.error);
  REQUIRE(run.code == 0);
  CHECK(run.out.find("batch 4, f16,") != std::string::npos);
}
