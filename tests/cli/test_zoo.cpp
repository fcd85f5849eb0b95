// `fluxion zoo`: every method on one page.
#include <signal.h>

#include <nlohmann/json.hpp>

#include "models/files/npy.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

constexpr const char* small =
    "zoo --device cpu:1 --width 8 --depth 1 --batch 16 --count 50 --out z ";

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("the zoo trains each method, teachers first, and writes a page of its own", "[cli]") {
  const ScratchFolder folder;
  const std::string arguments =
      std::string(small) + "--steps 4 --methods cd,flow-matching,edm,reflow,ict --json";
  const ProgramRun run = run_program(arguments, folder.path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  const nlohmann::json result = nlohmann::json::parse(run.out);
  const nlohmann::json& methods = result.at("methods");
  REQUIRE(methods.size() == 5);
  std::vector<std::string> names;
  for (const nlohmann::json& method : methods) {
    names.push_back(method.at("method"));
    CHECK(method.at("failure") == "");
    CHECK(method.at("steps") == 4);
    REQUIRE(method.at("draws").size() >= 4);
    for (const std::size_t i : {0, 1, 2, 3})
      CHECK(method.at("draws")[i].at("steps") == std::size_t{1} << i);
  }
  // Those that learn from a model come last, from the first that they can take.
  CHECK(names == std::vector<std::string>{"flow-matching", "edm", "ict", "cd", "reflow"});
  CHECK(methods[3].at("teacher") == "edm");
  CHECK(methods[4].at("teacher") == "flow-matching");
  CHECK(result.at("floor").at("energy distance") > 0);

  const std::string page = text_of(folder / "z/index.html");
  CHECK(count(page, "<article") == 5);
  CHECK(count(page, "</article>") == 5);
  std::size_t draws = 0;
  for (const nlohmann::json& method : methods) draws += method.at("draws").size();
  CHECK(count(page, "data:image/png;base64,") == 1 + 5 + draws);
  CHECK(count(page, "data:image/svg+xml;base64,") == 5);
  for (const char* outside : {"http:", "https:", "<script", "<link"})
    CHECK(count(page, outside) == 0);

  // The same command again trains nothing; another setting does.
  const auto written = [&] {
    return std::filesystem::last_write_time(folder / "z/ict/checkpoint.safetensors");
  };
  const auto before = written();
  REQUIRE(run_program(arguments, folder.path()).code == 0);
  CHECK(written() == before);
  REQUIRE(run_program(std::string(small) + "--steps 5 --methods ict", folder.path()).code == 0);
  CHECK(written() != before);
}

TEST_CASE("a zoo that was stopped goes on, and a method that fails keeps the page", "[cli]") {
  const ScratchFolder folder;
  {
    Process process(
        {"zoo", "--device", "cpu:1", "--width", "8", "--depth", "1", "--batch", "16", "--count",
         "50", "--out", "z", "--steps", "100000000", "--methods", "flow-matching"},
        folder.path());
    wait_for([&] { return std::filesystem::exists(folder / "z/flow-matching/log.csv"); });
    process.signal(SIGINT);
    process.wait();
    CHECK_THAT(text_of(folder / "stderr"), has_text("the same command goes on"));
  }
  CHECK_THAT(text_of(folder / "z/flow-matching/zoo.json"), has_text("\"ended\": false"));

  // No model that consistency distillation could learn from.
  const ProgramRun run = run_program(
      std::string(small) + "--minutes 0.02 --methods flow-matching,cd,ict", folder.path());
  CHECK(run.code == 1);
  CHECK_THAT(run.error, has_text("zoo: cd failed"));
  const std::string page = text_of(folder / "z/index.html");
  CHECK(count(page, "<article") == 3);
  CHECK_THAT(page, has_text("It learns from a trained model"));
  CHECK_THAT(page, has_text("such as edm."));
  CHECK_THAT(run_program(std::string(small) + "--steps 1 --methods reflow", folder.path()).out,
             has_text("such as flow-matching."));
  // By time, a schedule gets the number of updates that fit into it.
  CHECK(nlohmann::json::parse(text_of(folder / "z/ict/zoo.json")).at("updates") > 0);

  check_one_line(run_program(std::string(small) + "--methods nothing", folder.path()), "nothing");
  check_one_line(run_program(std::string(small) + "--methods ict,ict", folder.path()), "twice");
  check_one_line(run_program(std::string(small) + "--data glyphs", folder.path()),
                 "points of the plane");
}

TEST_CASE("the zoo goes on with no run of other settings", "[cli]") {
  const ScratchFolder folder;
  const auto methods_of = [&](const std::string& arguments) {
    const ProgramRun run = run_program(std::string(small) + arguments + " --json", folder.path());
    INFO(run.error);
    return nlohmann::json::parse(run.out).at("methods");
  };
  const std::string both = "--methods flow-matching,reflow --steps ";
  for (const int steps : {5, 6}) {
    const nlohmann::json methods = methods_of(both + std::to_string(steps));
    REQUIRE(methods.size() == 2);
    for (const nlohmann::json& method : methods) {
      CHECK(method.at("failure") == "");
      CHECK(method.at("steps") == steps);
    }
  }
  // What another model taught is learned again.
  const auto written = [&] {
    return std::filesystem::last_write_time(folder / "z/reflow/checkpoint.safetensors");
  };
  const auto before = written();
  REQUIRE(methods_of(both + "6").size() == 2);
  CHECK(written() == before);
  std::filesystem::copy(folder / "z/flow-matching/model-raw.safetensors",
                        folder / "z/flow-matching/model.safetensors",
                        std::filesystem::copy_options::overwrite_existing);
  CHECK(methods_of(both + "6").at(1).at("failure") == "");
  CHECK(written() != before);

  // A run that fails before it begins leaves none that the next would take for it.
  const std::filesystem::path samples = folder / "z/flow-matching/samples";
  std::filesystem::remove_all(samples);
  std::ofstream(samples) << "in the way";
  const std::string other = "--methods flow-matching --steps 7 --seed 1";
  CHECK(methods_of(other).at(0).at("failure") != "");
  std::filesystem::remove(samples);
  const nlohmann::json again = methods_of(other).at(0);
  CHECK(again.at("failure") == "");
  CHECK(again.at("steps") == 7);
  CHECK(std::filesystem::exists(folder / "z/flow-matching/checkpoint-before.safetensors"));
}

TEST_CASE("the zoo trains over no run that is not its own", "[cli]") {
  const ScratchFolder folder;
  REQUIRE(
      run_program("train --data 8gaussians --method flow-matching --width 8 --depth 1 --batch 16 "
                  "--steps 3 --quiet --device cpu:1 --out z/flow-matching",
                  folder.path())
          .code == 0);
  const std::string model = text_of(folder / "z/flow-matching/model.safetensors");
  check_one_line(
      run_program(std::string(small) + "--steps 2 --methods flow-matching", folder.path()),
      "z/flow-matching holds a run that the zoo has not made");
  CHECK(text_of(folder / "z/flow-matching/model.safetensors") == model);
}

TEST_CASE("the zoo trains anew when the data of a file have changed", "[cli]") {
  const ScratchFolder folder;
  const std::string command =
      std::string(small) + "--data 'my points.npy' --methods flow-matching --steps 2 --json";
  const auto run_with = [&](float shift) {
    std::vector<float> values;
    for (int i = 0; i < 100; ++i) values.push_back(static_cast<float>(i * 37 % 100) / 50 - shift);
    write_npy(folder / "my points.npy", values, {50, 2});
    const ProgramRun run = run_program(command, folder.path());
    INFO(run.error);
    REQUIRE(run.code == 0);
    return run.error;
  };
  CHECK_THAT(run_with(1), has_text("have learned them by heart"));
  const std::filesystem::path model = folder / "z/flow-matching/model.safetensors";
  const std::string before = text_of(model);
  CHECK(run_with(1).find("trained anew") == std::string::npos);
  CHECK(text_of(model) == before);
  CHECK_THAT(run_with(3), has_text("flow-matching is trained anew"));
  CHECK(text_of(model) != before);
  // And where its model is gone.
  std::filesystem::remove(model);
  run_with(3);
  CHECK(std::filesystem::exists(model));
  const std::string page = text_of(folder / "z/index.html");
  CHECK_THAT(page, has_text("--methods flow-matching --steps 2"));
  CHECK_THAT(page, has_text("--count 25"));
  CHECK_THAT(page, has_text("my points.npy"));
}

TEST_CASE("the zoo's floor is of samples that share none with those compared", "[cli]") {
  const ScratchFolder folder;
  std::vector<float> values;
  for (int i = 0; i < 100; ++i) values.push_back(static_cast<float>(i * 37 % 100) / 50 - 1);
  write_npy(folder / "points.npy", values, {50, 2});
  const ProgramRun run =
      run_program(std::string(small) + "--data points.npy --methods flow-matching --steps 2 --json",
                  folder.path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  CHECK_THAT(run.error, has_text("points.npy holds 50 samples: 25 are compared"));
  CHECK(nlohmann::json::parse(run.out).at("floor").at("energy distance") > 1e-3);
  CHECK_THAT(text_of(folder / "z/index.html"), has_text("between 25 samples"));
}
