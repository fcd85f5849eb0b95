// What `fluxion sample` writes: a picture, a folder of them, streams, and the notes in them.
#include <nlohmann/json.hpp>

#include "models/images/decode.h"
#include "models/images/image.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

struct DigitModel {
  ScratchFolder folder;
  DigitModel() {
    REQUIRE(
        run_program("train --data glyphs --image-size 8 --patch 4 --width 8 --depth 1 --heads 1 "
                    "--batch 16 --steps 3 --quiet --threads 1 --out m",
                    folder.path())
            .code == 0);
  }
  ProgramRun sample(const std::string& arguments) const {
    return run_program("sample --threads 1 --model m/model.safetensors " + arguments,
                       folder.path());
  }
  std::vector<std::byte> bytes(const std::string& name) const {
    const std::string text = text_of(folder / name);
    const auto whole = std::as_bytes(std::span(text));
    return {whole.begin(), whole.end()};
  }
};

}  // namespace

TEST_CASE("sample writes a file of each sample into a folder", "[cli]") {
  const DigitModel model;
  const ProgramRun run = model.sample("--count 12 --seed 3 --out each/");
  INFO(run.error);
  REQUIRE(run.code == 0);
  CHECK_THAT(run.out, has_text("pictures each/"));
  for (const char* name : {"each/0000.png", "each/0007.png", "each/0011.png"}) {
    const Image image = decode_image(model.bytes(name));
    CHECK(image.width == 8);
    CHECK(image.height == 8);
  }
  CHECK(!std::filesystem::exists(model.folder / "each/0012.png"));
  const std::vector<ImageText> notes = png_texts(model.bytes("each/0011.png"));
  REQUIRE(notes.size() == 2);
  const nlohmann::json how = nlohmann::json::parse(notes[1].text);
  CHECK(how.at("seed") == 3);
  CHECK(how.at("number") == 11);
  CHECK(how.at("class") == "1");

  // The same sample as by itself, enlarged; the folder is there by now.
  REQUIRE(model.sample("--count 12 --seed 3 --scale 3 --out each").code == 0);
  CHECK(decode_image(model.bytes("each/0007.png")).width == 24);
  const ProgramRun shown = run_program("inspect each/0007.png", model.folder.path());
  REQUIRE(shown.code == 0);
  CHECK_THAT(shown.out, has_text("\"seed\":3"));
  CHECK(nlohmann::json::parse(run_program("inspect each/0007.png --json", model.folder.path()).out)
            .at("notes")
            .contains("fluxion"));
}

TEST_CASE("sample streams to standard output, and refuses names of other formats", "[cli]") {
  const DigitModel model;
  const ProgramRun run = model.sample("--count 3 --out -");
  REQUIRE(run.code == 0);
  CHECK(is_png(std::as_bytes(std::span(run.out))));
  for (const char* two : {"--npy - --json", "--out - --json", "--npy - --out -"})
    check_one_line(model.sample(std::string("--count 3 ") + two), "both go to standard output");
  for (const char* name : {"a.jpg", "a.JPEG", "b.gif", "b.npy"}) {
    check_one_line(model.sample(std::string("--count 3 --out ") + name), "PNG");
    CHECK(!std::filesystem::exists(model.folder / name));
  }
}

TEST_CASE("what can't be written is refused before anything is drawn or made", "[cli]") {
  const DigitModel model;
  REQUIRE(model.sample("--count 1 --out a.png").code == 0);
  for (const std::string option : {"--npy", "--out", "--animate"})
    check_one_line(model.sample("--count 100 " + option + " nothere/x.png"),
                   option + ": writing nothere/x.png: the folder nothere does not exist");
  check_one_line(model.sample("--count 100 --out a.png/"), "the folder can't be made");
  CHECK_FALSE(std::filesystem::exists(model.folder / "nothere"));
  for (const char* command :
       {"export --model m --out", "graph --out", "graph --save", "devices --seconds 1 --report"})
    check_one_line(run_program(std::string(command) + " nothere/x.svg", model.folder.path()),
                   "the folder nothere does not exist");
}

TEST_CASE("a grid holds whole columns of a class and is nearly square", "[cli]") {
  const DigitModel model;
  const auto shape = [&](const std::string& arguments) {
    REQUIRE(model.sample("--scale 1 --out grid.png " + arguments).code == 0);
    const Image image = decode_image(model.bytes("grid.png"));
    return std::pair((image.width - 2) / 10, (image.height - 2) / 10);  // 8 pixels and 2 between
  };
  CHECK(shape("--count 64") == std::pair(10, 7));
  CHECK(shape("--count 400") == std::pair(20, 20));
  CHECK(shape("--count 64 --class 3") == std::pair(8, 8));
  CHECK(shape("--count 64 --columns 4") == std::pair(4, 16));
}

TEST_CASE("sample draws from a sampler file what it draws from the model", "[cli]") {
  const DigitModel model;
  REQUIRE(run_program("export --model m/model.safetensors --out d.fxn", model.folder.path()).code ==
          0);
  const auto from_file = [&](const std::string& arguments) {
    return run_program("sample --threads 1 --model d.fxn " + arguments, model.folder.path());
  };
  for (const std::string chosen : {"", " --class 3", " --class none"}) {
    const std::string arguments = "--count 13 --batch 5 --seed 9 --npy ";
    REQUIRE(model.sample(arguments + "a.npy" + chosen).code == 0);
    const ProgramRun run = from_file(arguments + "b.npy" + chosen);
    INFO(run.error);
    REQUIRE(run.code == 0);
    CHECK(model.bytes("a.npy") == model.bytes("b.npy"));
  }
  REQUIRE(from_file("--count 12 --out f/").code == 0);
  CHECK(std::filesystem::exists(model.folder / "f/0011.png"));
  const nlohmann::json object = nlohmann::json::parse(from_file("--count 2 --json").out);
  CHECK(object.at("evaluations") == 1);
  for (const auto& [arguments, text] :
       {std::pair("--steps 3", "chosen by `fluxion export`"), std::pair("--class x", "the classes"),
        std::pair("--precision bf16", "chosen by `fluxion export`")})
    check_one_line(from_file(arguments), text);
  check_one_line(run_program("eval --model d.fxn", model.folder.path()),
                 "`fluxion sample --model d.fxn --count 2000 --npy samples.npy`");
}
