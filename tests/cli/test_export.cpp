// `fluxion export` and what `fluxion inspect` says of its files.
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "engine/export/stored_sampler.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("fluxion export writes a sampler, and inspect shows it", "[cli]") {
  const ScratchFolder folder;
  REQUIRE(run_program("train --data 8gaussians --width 16 --depth 1 --batch 32 --steps 5 --quiet "
                      "--threads 1 --out m --method flow-matching",
                      folder.path())
              .code == 0);
  const std::string model = "export --model m/model.safetensors ";
  const ProgramRun plain = run_program(model + "--out a.fxn", folder.path());
  INFO(plain.error);
  REQUIRE(plain.code == 0);
  CHECK_THAT(plain.out, has_text("euler, 50 steps, 50 network evaluations each sample"));
  CHECK_THAT(plain.out, has_text("a.fxn"));

  const ProgramRun run = run_program(
      model + "--sampler heun --steps 4 --dtype int8-weights --out b.fxn --json", folder.path());
  REQUIRE(run.code == 0);
  const nlohmann::json object = nlohmann::json::parse(run.out);
  CHECK(object.at("sampler") == "heun");
  CHECK(object.at("steps") == 4);
  CHECK(object.at("evaluations") == 8);
  CHECK(object.at("bytes") == std::filesystem::file_size(folder / "b.fxn"));
  CHECK(load_sampler(folder / "b.fxn").steps.size() == 4);

  const ProgramRun shown = run_program("inspect b.fxn", folder.path());
  REQUIRE(shown.code == 0);
  CHECK_THAT(shown.out, has_text("4 steps of 1 form"));
  CHECK_THAT(shown.out, has_text("int8["));
  const ProgramRun json = run_program("inspect b.fxn --json", folder.path());
  REQUIRE(json.code == 0);
  CHECK(nlohmann::json::parse(json.out).at("parameters") == object.at("parameters"));
  // How it was made.
  CHECK_THAT(shown.out, has_text("model m/model.safetensors"));
  CHECK_THAT(shown.out, has_text("sampler heun"));
  const nlohmann::json origin = nlohmann::json::parse(json.out).at("sampler").at("origin");
  CHECK(origin.at("sampler") == "heun");
  CHECK(origin.at("steps") == 4);
  CHECK(origin.at("method") == "flow-matching");
  CHECK(origin.at("training steps") == 5);
  CHECK(!origin.contains("guidance"));
}

TEST_CASE("inspect shows whatever text a sampler file has of its origin", "[cli]") {
  const ScratchFolder folder;
  REQUIRE(run_program("train --data 8gaussians --width 16 --depth 1 --batch 32 --steps 5 --quiet "
                      "--threads 1 --out m",
                      folder.path())
              .code == 0);
  REQUIRE(run_program("export --model m --out a.fxn", folder.path()).code == 0);
  StoredSampler sampler = load_sampler(folder / "a.fxn");
  const auto shown = [&](const std::string& origin) {
    sampler.origin = origin;
    save_sampler(folder / "b.fxn", sampler);
    const ProgramRun run = run_program("inspect b.fxn", folder.path()),
                     json = run_program("inspect b.fxn --json", folder.path());
    CHECK(run.code == 0);
    CHECK(json.code == 0);
    CHECK(run.out.find('\x1b') == std::string::npos);
    CHECK(run.out.size() < 10'000);
    return std::pair(run.out, nlohmann::json::parse(json.out).at("sampler").at("origin"));
  };
  CHECK(shown("by hand\x1b[2J").second == "by hand\x1b[2J");
  CHECK_THAT(shown("by hand").first, has_text("origin       by hand\n"));
  CHECK_THAT(shown(R"({"a": 1, "b": [2, "x"]})").first, has_text("a 1, b [2,\"x\"]"));
  CHECK(shown("[1, 2]").second == "[1, 2]");
  CHECK(shown(std::string(1'000, '[')).second.is_string());
  CHECK(shown(std::string(100'000, 'x')).second.is_string());
  CHECK_THAT(shown("").first, !has_text("origin"));
  CHECK(shown("").second.is_null());
}

TEST_CASE("fluxion export refuses in one line and leaves no file", "[cli]") {
  const ScratchFolder folder;
  REQUIRE(run_program("train --data 8gaussians --width 16 --depth 1 --batch 32 --steps 5 --quiet "
                      "--threads 1 --out m",
                      folder.path())
              .code == 0);
  const std::string model = "export --model m/model.safetensors --out a.fxn ";
  check_one_line(run_program(model + "--sampler dopri5", folder.path()), "chooses its steps");
  check_one_line(run_program(model + "--guidance 2", folder.path()), "classes");
  CHECK(run_program(model + "--dtype f8", folder.path()).code == 2);
  check_one_line(run_program("export --model none.safetensors", folder.path()), "none.safetensors");
  CHECK(!std::filesystem::exists(folder / "a.fxn"));
  REQUIRE(run_program("export --model m/model.safetensors --out b.fxn", folder.path()).code == 0);
  check_one_line(run_program("export --model b.fxn", folder.path()), "it is a sampler file");
  check_one_line(
      run_program("export --model m/model.safetensors --out nowhere/a.fxn", folder.path()),
      "nowhere");
  check_one_line(run_program("import m/model.safetensors --predicts velocity", folder.path()),
                 "needs no import");
}

TEST_CASE("no command writes over what it reads", "[cli]") {
  const ScratchFolder folder;
  const std::string train =
      "train --data 8gaussians --width 16 --depth 1 --batch 32 --steps 5 "
      "--quiet --threads 1 --method flow-matching ";
  REQUIRE(run_program(train + "--out m", folder.path()).code == 0);
  const std::filesystem::path model = folder / "m/model.safetensors";
  std::filesystem::create_symlink(model, folder / "link");
  std::filesystem::copy_file(model, folder / "model.safetensors");
  const std::string before = text_of(model);
  const auto refused = [&](const std::string& command, const std::string& words) {
    CAPTURE(command);
    check_one_line(run_program(command, folder.path()), words);
    CHECK(text_of(model) == before);
    CHECK(text_of(folder / "model.safetensors") == before);
  };
  refused("export --model m/model.safetensors --out m/../m/model.safetensors",
          "--out m/../m/model.safetensors is what is read as --model");
  refused("export --model link --out m/model.safetensors", "is what is read as --model");
  refused("sample --model m/model.safetensors --count 1 --npy m/model.safetensors", "--npy");
  refused("sample --model m/model.safetensors --count 1 --out m/model.safetensors", "--out");
  refused("sample --model m/model.safetensors --animate m/model.safetensors", "--animate");
  refused("sample --model m/model.safetensors --out a.png --animate a.png",
          "--animate a.png is the file of --out");
  refused("import model.safetensors --predicts velocity", "is what is read as FILE");
  refused("eval --model m/model.safetensors --neighbours m/model.safetensors", "--neighbours");
  refused("eval --model m/model.safetensors --retrain --classifier m/model.safetensors",
          "--classifier");
  refused("graph --model m/model.safetensors --out m/model.safetensors", "--out");
  refused("train --method reflow --teacher m/model.safetensors --steps 5 --out m",
          "is what is read as --teacher");
  refused(train + "--init m/model.safetensors --out m", "is what is read as --init");
  refused(train + "--init m/model-raw.safetensors --out m", "is what is read as --init");
  // By the name of its folder.
  refused("export --model m --out m/model.safetensors", "is what is read as --model");
  refused("sample --model m --count 1 --npy m/model.safetensors", "is what is read as --model");
  refused(train + "--init m --out m", "is what is read as --init");
  refused("train --method reflow --teacher m --steps 5 --out m", "is what is read as --teacher");
  // Nothing can be written over there.
  CHECK(run_program("sample --model m --count 2 --npy /dev/null --out /dev/null", folder.path())
            .code == 0);
}

TEST_CASE("fluxion export --free-guidance leaves the scale to fluxion sample", "[cli]") {
  const ScratchFolder folder;
  REQUIRE(
      run_program("train --data glyphs --image-size 8 --patch 4 --width 16 --depth 1 --batch 16 "
                  "--steps 3 --quiet --threads 1 --method flow-matching --out m",
                  folder.path())
          .code == 0);
  const std::string steps = "--sampler heun --steps 2 ";
  REQUIRE(
      run_program(
          "export --model m/model.safetensors --guidance 2 --free-guidance --out free.fxn " + steps,
          folder.path())
          .code == 0);
  REQUIRE(run_program("export --model m/model.safetensors --guidance 2 --out fixed.fxn " + steps,
                      folder.path())
              .code == 0);
  const auto drawn = [&](const std::string& arguments) {
    const ProgramRun run =
        run_program("sample --threads 1 --count 5 --npy x.npy " + arguments, folder.path());
    INFO(run.error);
    REQUIRE(run.code == 0);
    std::ifstream file(folder / "x.npy", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const std::string usual = drawn("--model free.fxn");
  CHECK(usual == drawn("--model fixed.fxn"));
  CHECK(usual == drawn("--model m/model.safetensors --guidance 2 " + steps));
  const std::string stronger = drawn("--model free.fxn --guidance 5");
  CHECK(stronger != usual);
  CHECK(stronger == drawn("--model m/model.safetensors --guidance 5 " + steps));
  check_one_line(run_program("sample --model fixed.fxn --guidance 5", folder.path()),
                 "--free-guidance");
  CHECK_THAT(run_program("inspect free.fxn", folder.path()).out,
             has_text("guidance     2, or as a call says"));
  CHECK_THAT(run_program("inspect fixed.fxn", folder.path()).out, has_text("guidance 2, "));
}
