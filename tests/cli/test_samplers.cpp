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
      {"euler", 6},        {"midpoint", 12},           {"heun", 12},
      {"rk4", 24},         {"ddim --eta 1", 6},        {"edm --churn 5", 11},
      {"dpm-solver++", 6}, {"sde --eta 0.5", 6},       {"predictor-corrector --corrections 2", 18},
      {"meanflow", 6},     {"euler --shift 3", 6},     {"heun --grid karras --sigma-max 20", 12},
      {"edm --rho 5", 11}, {"ddim --grid log-snr", 6}, {"rf++", 6}};
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
  refused("--sampler dopri5 --shift 3", "--shift has no effect on dopri5");
  refused("--sampler dpm-solver++ --shift 3", "--shift is for --grid uniform");
  refused("--sampler heun --sigma-max 10", "--sigma-max is for --grid karras, log-snr");
  refused("--sampler heun --rho 3", "--rho is for --grid karras, and the grid is uniform");
  refused("--guidance-low 0.2", "limit --guidance W");
  const ProgramRun unknown = models.sample("flow-matching", "--sampler magic");
  CHECK(unknown.code == 2);
  CHECK(is_one_line(unknown.error));
  CHECK_THAT(unknown.error, has_text("dpm-solver++"));
}

TEST_CASE("fluxion sample and export find the best steps of euler, and say what they cost",
          "[cli]") {
  const TwoModels models;
  const ProgramRun run = models.sample("flow-matching", "--grid best --steps 3 --json");
  INFO(run.error);
  REQUIRE(run.code == 0);
  const nlohmann::json result = nlohmann::json::parse(run.out);
  CHECK(result.at("evaluations") == 3);
  CHECK(result.at("times").size() == 4);
  CHECK(result.at("times").front() == 1);
  CHECK(result.at("times").back() == 0);
  CHECK(result.at("cost") <= result.at("equal_cost"));
  const std::string drawn = text_of(models.folder / "points.npy");
  CHECK_THAT(models.sample("flow-matching", "--grid best --steps 3").out,
             has_text("steps    from 1, "));
  // The sampler file has the same steps.
  REQUIRE(run_program("export --model flow-matching/model.safetensors --grid best --steps 3 "
                      "--out best.fxn",
                      models.folder.path())
              .code == 0);
  REQUIRE(run_program("sample --model best.fxn --count 4 --threads 1 --npy exported.npy",
                      models.folder.path())
              .code == 0);
  const std::vector<float> own = read_npy(models.folder / "points.npy").values<float>(),
                           exported = read_npy(models.folder / "exported.npy").values<float>();
  CHECK(drawn.size() > 100);
  REQUIRE(own.size() == exported.size());
  for (std::size_t i = 0; i < own.size(); ++i) CHECK(own[i] == Approx(exported[i]).margin(1e-5));
  check_one_line(models.sample("flow-matching", "--grid best --sampler heun"),
                 "take the sampler euler");
  check_one_line(models.sample("flow-matching", "--grid best --steps 500"), "up to 200 steps");
  check_one_line(models.sample("meanflow", "--grid best"), "not meanflow");
}

TEST_CASE("the way may begin in closed form, from the data of the model or others", "[cli]") {
  const TwoModels models;
  const std::string start = "--sampler heun --steps 4 --json --head-start ";
  for (const std::string& arguments : {start + "0.3", start + "0.3 --data moons"}) {
    const ProgramRun run = models.sample("flow-matching", arguments);
    INFO(arguments << run.error);
    REQUIRE(run.code == 0);
    CHECK(nlohmann::json::parse(run.out).at("evaluations") == 8);
  }
  REQUIRE(models.sample("flow-matching", start + "0.3").code == 0);
  const std::vector<float> own = read_npy(models.folder / "points.npy").values<float>();
  REQUIRE(models.sample("flow-matching", start + "0.3 --data moons").code == 0);
  CHECK(own != read_npy(models.folder / "points.npy").values<float>());
  CHECK(run_program("eval --model flow-matching/model.safetensors --sampler heun --steps 3 --count "
                    "32 --metrics energy --draws 0 --threads 1 --head-start 0.2",
                    models.folder.path())
            .code == 0);
  check_one_line(models.sample("flow-matching", "--data moons"), "--head-start takes");
  check_one_line(models.sample("flow-matching", "--head-start 0.2 --data glyphs"),
                 "samples of shape");
  check_one_line(run_program("export --model flow-matching/model.safetensors --head-start 0.2",
                             models.folder.path()),
                 "made of data");
}

TEST_CASE("a flow between two sets is trained, drawn and judged by their names", "[cli]") {
  const ScratchFolder folder;
  const auto run = [&](const std::string& arguments) {
    const ProgramRun result = run_program(arguments, folder.path());
    INFO(arguments << "\n" << result.error);
    CHECK(result.code == 0);
    return result.out;
  };
  const std::string train =
      "train --data moons --width 16 --depth 1 --batch 32 --schedule constant --threads 1 "
      "--source 8gaussians --coupling exact ";
  const std::string start = train + "--method flow-matching --steps ";
  run(start + "9 --out whole");
  run(start + "5 --out run");
  run("train --resume run --steps 9 --threads 1");
  CHECK(text_of(folder / "run/model.safetensors") == text_of(folder / "whole/model.safetensors"));
  CHECK_THAT(run("inspect run/model.safetensors"), has_text("8gaussians, in place of noise"));
  run("sample --model run/model.safetensors --count 5 --threads 1 --npy few.npy");
  run("sample --model run/model.safetensors --count 9 --batch 4 --threads 1 --npy more.npy");
  const std::vector<float> few = read_npy(folder / "few.npy").values<float>(),
                           more = read_npy(folder / "more.npy").values<float>();
  for (std::size_t i = 0; i < few.size(); ++i) CHECK(few[i] == Approx(more[i]).margin(1e-5));
  CHECK_THAT(run("eval --model run/model.safetensors --metrics wasserstein --count 50 --threads 1"),
             has_text("wasserstein"));
  const auto refused = [&](const std::string& arguments, const std::string& text) {
    INFO(arguments);
    check_one_line(run_program(arguments, folder.path()), text);
  };
  const std::string model = "--model run/model.safetensors ";
  refused("export " + model, "begins with points of 8gaussians");
  refused("sample " + model + "--interpolate 1:2", "begins with points of 8gaussians");
  refused("sample " + model + "--sampler sde", "independent of the data");
  refused("eval " + model + "--metrics likelihood", "begins with points of 8gaussians");
  refused(train + "--method edm --steps 2 --out no", "takes no coupling");
  refused("train --data moons --method flow-matching --source glyphs --steps 2 --out no",
          "built-in sets of points");
  refused("train --method reflow --teacher run/model.safetensors --flip --steps 2 --out no",
          "leave out --flip");
  refused("train --method reflow --teacher run/model.safetensors --steps 2 --out no",
          "begins with points of 8gaussians");
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
    check_one_line(sample("flow-matching", arguments), "independent of the data");
  for (const char* arguments : {"", "--sampler heun --steps 4", "--sampler sde --eta 0",
                                "--sampler ddim", "--sampler edm", "--sampler dpm-solver++"}) {
    INFO(arguments);
    CHECK(sample("flow-matching", arguments).code == 0);
  }
  CHECK(sample("scm", "").code == 0);
  check_one_line(sample("scm", "--steps 2"), "of several steps adds noise");
}
