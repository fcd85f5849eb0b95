// `fluxion sample` and `fluxion eval` with every sampler.
#include <nlohmann/json.hpp>

#include "models/files/npy.h"
#include "models/samplers/sampler_options.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// A folder with a small model of each kind of objective: flow.safetensors, mean.safetensors.
struct TwoModels {
  ScratchFolder folder;
  TwoModels() {
    for (const char* objective : {"flow-matching", "meanflow"})
      REQUIRE(run_program(std::string("train --data 8gaussians --width 16 --depth 1 --batch 32 "
                                      "--steps 5 --quiet --threads 1 --out ") +
                              objective + " --method " + objective,
                          folder.path())
                  .code == 0);
  }
  ProgramRun sample(const std::string& objective, const std::string& arguments) const {
    return run_program("sample --model " + objective + "/model.safetensors --count 4 --threads 1 " +
                           "--npy points.npy " + arguments,
                       folder.path());
  }
};

}  // namespace

TEST_CASE("fluxion sample runs every sampler and counts its evaluations", "[cli]") {
  const TwoModels models;
  const std::vector<std::pair<std::string, int>> rows = {
      {"euler", 6},        {"midpoint", 12},          {"heun", 12},
      {"rk4", 24},         {"ddim --eta 1", 6},       {"edm --churn 5", 11},
      {"dpm-solver++", 6}, {"sde --eta 0.5", 6},      {"predictor-corrector --corrections 2", 18},
      {"meanflow", 6},     {"euler --shift 3", 6},    {"heun --grid karras --sigma-max 20", 12},
      {"edm --rho 5", 11}, {"ddim --grid log-snr", 6}};
  for (const std::string objective : {"flow-matching", "meanflow"})
    for (const auto& [sampler, evaluations] : rows) {
      INFO(objective << " " << sampler);
      const ProgramRun run =
          models.sample(objective, "--steps 6 --json --sampler " + std::string(sampler));
      INFO(run.error);
      REQUIRE(run.code == 0);
      CHECK(nlohmann::json::parse(run.out).at("evaluations") == evaluations);
    }
  const ProgramRun multistep = models.sample("meanflow", "--sampler consistency --json");
  REQUIRE(multistep.code == 0);
  CHECK(nlohmann::json::parse(multistep.out).at("evaluations") == 2);
  const ProgramRun adaptive = models.sample("flow-matching", "--sampler dopri5 --json");
  REQUIRE(adaptive.code == 0);
  CHECK(nlohmann::json::parse(adaptive.out).at("evaluations").get<double>() >= 14);
}

TEST_CASE("samplers refuse what they can't do in one line", "[cli]") {
  const TwoModels models;
  const auto refused = [&](const std::string& arguments, const std::string& text) {
    INFO(arguments);
    check_one_line(models.sample("flow-matching", arguments), text);
  };
  refused("--sampler euler --eta 1", "--eta is for --sampler ddim, sde, not for euler");
  refused("--churn 1", "--churn is for --sampler edm, not for euler");
  refused("--sampler ddim --eta 2", "eta of ddim must be in [0, 1]");
  refused("--sampler consistency", "this network predicts velocity");
  refused("--sampler dopri5 --steps 2 --tolerance 1e-9", "after 2 tries");
  refused("--sampler dopri5 --grid karras", "--grid has no meaning for dopri5");
  refused("--sampler edm --sigma-min 9 --sigma-max 3", "sigma_min < sigma_max");
  const ProgramRun unknown = models.sample("flow-matching", "--sampler magic");
  CHECK(unknown.code == 2);
  CHECK(is_one_line(unknown.error));
  CHECK_THAT(unknown.error, has_text("dpm-solver++"));
}

TEST_CASE("fluxion eval draws with any sampler", "[cli]") {
  const TwoModels models;
  const ProgramRun run = run_program(
      "eval --model flow-matching/model.safetensors --sampler heun --steps 3 --count 32 "
      "--metrics energy --draws 1 --threads 1",
      models.folder.path());
  INFO(run.error);
  CHECK(run.code == 0);
  CHECK_THAT(run.out, has_text("6 network evaluations each"));
  check_one_line(
      run_program("eval --model flow-matching/model.safetensors --churn 1", models.folder.path()),
      "eval: --churn is for --sampler edm");
}

TEST_CASE("a model of coupled noise is not drawn by samplers that add noise", "[cli]") {
  const ScratchFolder folder;
  for (const char* method : {"flow-matching", "scm"})
    REQUIRE(
        run_program(std::string("train --data 8gaussians --width 16 --depth 1 --batch 32 --steps "
                                "5 --quiet --threads 1 --coupling exact --method ") +
                        method + " --out " + method,
                    folder.path())
            .code == 0);
  const auto sample = [&](const std::string& method, const std::string& arguments) {
    return run_program("sample --count 4 --threads 1 --npy points.npy --model " + method +
                           "/model.safetensors " + arguments,
                       folder.path());
  };
  for (const char* arguments : {"--sampler sde", "--sampler predictor-corrector",
                                "--sampler ddim --eta 0.5", "--sampler edm --churn 1"})
    check_one_line(sample("flow-matching", arguments), "noise coupled to the data");
  for (const char* arguments : {"", "--sampler heun --steps 4", "--sampler sde --eta 0",
                                "--sampler ddim", "--sampler edm", "--sampler dpm-solver++"}) {
    INFO(arguments);
    CHECK(sample("flow-matching", arguments).code == 0);
  }
  CHECK(sample("scm", "").code == 0);
  check_one_line(sample("scm", "--steps 2"), "of several steps adds noise");
}
