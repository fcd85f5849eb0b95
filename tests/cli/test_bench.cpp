// `fluxion bench` as its users meet it: what it says, not how fast it is.
#include <nlohmann/json.hpp>

#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"
#include "tests/show/well_formed.h"

using namespace fluxion::testing;

namespace {

const std::string quick = " --threads 1 --steps 1 --seconds 0.05 --peak-seconds 0.001";

}  // namespace

TEST_CASE("bench measures every objective of all networks", "[cli][bench]") {
  const auto measured = [](const std::string& arguments) {
    const ProgramRun run = run_program("bench --json" + quick + " " + arguments);
    INFO(arguments << "\n" << run.error);
    REQUIRE(run.code == 0);
    return nlohmann::json::parse(run.out);
  };
  for (const std::string arguments :
       {"--net mlp2d --objective flow-matching --batch 16",
        "--net mlp2d --objective meanflow --batch 16",
        "--net mlp2d --objective meanflow --tangent subset --batch 16",
        "--net dit28 --objective sample --batch 1", "--objective forward --batch 2",
        "--net unet32 --objective sample --batch 1"}) {
    const nlohmann::json result = measured(arguments);
    INFO(arguments << "\n" << result.dump(1));
    for (const char* key :
         {"ms_median", "ms_p10", "ms_p90", "gflop", "gflops", "peak_gflops", "peak_fraction",
          "kernels", "planned_peak_mib", "peak_rss_mib", "samples"})
      CHECK(result.at(key).get<double>() > 0);
    CHECK(result.at("kernel_allocations_per_step") == 0);
    CHECK(result.at("threads") == 1);
  }
  CHECK(measured("--net mlp2d --batch 16").at("params") == 1119234);
}

TEST_CASE("bench prints a readable report with the slowest kernels", "[cli][bench]") {
  const ProgramRun run =
      run_program("bench --net mlp2d --objective flow-matching --batch 8 --profile" + quick);
  INFO(run.error);
  REQUIRE(run.code == 0);
  for (const char* part :
       {"mlp2d, flow-matching, batch 8", "median", "GFLOP/s", "kernels", "allocations", "1,119,234",
        "contract 8 x 512 x 512", "roofline", "roof"})
    CHECK(run.out.find(part) != std::string::npos);
}

TEST_CASE("bench draws the kernels of a step, with or without the table", "[cli][bench]") {
  const ScratchFolder folder;
  const std::string file = (folder / "step.svg").string();
  const ProgramRun run = run_program(
      "bench --net mlp2d --objective flow-matching --batch 8 --timeline " + file + quick);
  INFO(run.error);
  REQUIRE(run.code == 0);
  CHECK(run.out.find("timeline     " + file) != std::string::npos);
  CHECK(run.out.find("kernels by time") == std::string::npos);
  const std::string svg = text_of(file);
  CHECK(xml_fault(svg) == "");
  for (const char* part : {"mlp2d, flow-matching, batch 8", "contract 8 x 512 x 512", "roofline"})
    CHECK(svg.find(part) != std::string::npos);

  const ProgramRun both =
      run_program("bench --json --net mlp2d --batch 8 --profile --timeline " + file + quick);
  INFO(both.error);
  REQUIRE(both.code == 0);
  const nlohmann::json result = nlohmann::json::parse(both.out);
  CHECK(result.at("timeline") == file);
  CHECK(result.at("memory_gbytes").get<double>() > 0);
  for (const nlohmann::json& row : result.at("profile"))
    CHECK(row.at("roofline_ms").get<double>() > 0);

  const std::string nowhere = (folder / "none" / "step.svg").string();
  const ProgramRun missing =
      run_program("bench --net mlp2d --batch 8 --timeline " + nowhere + quick);
  CHECK(missing.code == 1);
  CHECK(missing.error.find("step.svg") != std::string::npos);
}

TEST_CASE("bench refuses what makes no sense", "[cli][bench]") {
  CHECK(run_program("bench --net unet").code == 2);
  CHECK(run_program("bench --batch -1").code == 2);
  CHECK(run_program("bench --steps 0").code == 2);
  const ProgramRun subset = run_program("bench --objective flow-matching --tangent subset");
  CHECK(subset.code == 1);
  CHECK(subset.error.find("--tangent") != std::string::npos);
  const ProgramRun missing = run_program("bench --check nothing.safetensors");
  CHECK(missing.code == 1);
  CHECK(missing.error.find("nothing.safetensors") != std::string::npos);
}
