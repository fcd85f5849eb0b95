// Data sets on disk, as the program takes them.
#include "engine/platform/file.h"
#include "models/files/npy.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/data/pictures.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

ProgramRun train(const ScratchFolder& folder, const std::string& options) {
  return run_program(
      "train --patch 4 --width 16 --heads 2 --depth 1 --steps 2 --batch 4 --threads 2 --out out " +
          options,
      folder.path());
}

}  // namespace

TEST_CASE("fluxion train: a folder of images, with its classes, and a word on what was left out",
          "[data][cli]") {
  const ScratchFolder folder;
  for (const std::string name : {"cat", "dog"}) {
    std::filesystem::create_directories(folder / ("pets/" + name));
    for (int i = 0; i < 3; ++i)
      replace_file(folder / ("pets/" + name + "/" + std::to_string(i) + ".png"),
                   grey_square(12, 100));
  }
  for (int i = 0; i < 8; ++i)
    replace_file(folder / ("pets/cat/bad\x1b" + std::to_string(i) + ".jpg"),
                 std::string_view("no image"));
  const ProgramRun run = train(folder, "--data pets --flip --image-size 8 --channels 3");
  CHECK(run.code == 0);
  CHECK(contains(run.error, "[8, 8, 3], 2 classes"));
  CHECK(contains(run.error, "bad\\x1b0.jpg: neither a PNG nor a JPEG"));
  CHECK(contains(run.error, "3 more like these"));
  CHECK_FALSE(contains(run.error, "\x1b"));
  CHECK_FALSE(contains(train(folder, "--data pets --no-labels").error, "classes"));
}

TEST_CASE("fluxion train: arrays, and what is wrong with a set", "[data][cli]") {
  const ScratchFolder folder;
  write_npy(folder / "faces.npy", std::vector<std::uint8_t>(5 * 8 * 8, 10), {5, 8, 8});
  write_npy(folder / "cut.npy", std::vector<std::uint8_t>(5, 10), {5});
  CHECK(train(folder, "--data faces.npy").code == 0);
  const auto refused = [&](const std::string& options, const std::string& why) {
    const ProgramRun run = train(folder, options);
    INFO(run.error);
    CHECK(run.code != 0);
    CHECK(contains(run.error, why));
  };
  refused("--data cut.npy", "[count, dimensions]");
  refused("--data faces.npy --channels 2", "--channels");
  refused("--data moons --flip", "flip");
  std::filesystem::create_directory(folder / "empty");
  refused("--data empty", "holds no images");
}
