// `fluxion sample` from a picture, between seeds and classes, and as a moving picture.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "models/files/npy.h"
#include "models/images/decode.h"
#include "models/images/image.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"
#include "tests/worst.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

struct TaskCase {
  ScratchFolder folder;
  TaskCase() {
    train("m", "--steps 3 --data glyphs --image-size 8 --patch 4 --heads 1");
    // Bright above, dark below; the mask is white on the right.
    write("picture.png", [](int, int y) { return y < 4 ? 255 : 0; });
    write("mask.png", [](int x, int) { return x < 4 ? 0 : 255; });
    write(
        "small.png", [](int, int y) { return y < 2 ? 255 : 0; }, 4);
    write(
        "large.png", [](int, int y) { return y < 12 ? 255 : 0; }, 24);
  }
  void train(const std::string& name, const std::string& options) const {
    REQUIRE(run_program("train --quiet --threads 1 --width 8 --depth 1 --batch 16 --out " + name +
                            " " + options,
                        folder.path())
                .code == 0);
  }
  template <class Level>
  void write(const std::string& name, const Level& level, int side = 8) const {
    Image image(side, side, 1);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) *image.at(x, y) = static_cast<std::uint8_t>(level(x, y));
    write_png(folder / name, image);
  }
  ProgramRun sample(const std::string& arguments, const std::string& model = "m") const {
    return run_program("sample --threads 1 --model " + model + "/model.safetensors " + arguments,
                       folder.path());
  }
  std::vector<float> numbers(const std::string& arguments, const std::string& model = "m") const {
    const ProgramRun run = sample("--npy x.npy " + arguments, model);
    INFO(run.error);
    REQUIRE(run.code == 0);
    return read_npy(folder / "x.npy").values<float>();
  }
  std::vector<std::byte> bytes(const std::string& name) const {
    const std::string text = text_of(folder / name);
    const auto whole = std::as_bytes(std::span(text));
    return {whole.begin(), whole.end()};
  }
};

// Sample i of an array of samples of 8 x 8.
std::vector<float> at(const std::vector<float>& samples, std::size_t i) {
  const auto begin = samples.begin() + static_cast<std::ptrdiff_t>(64 * i);
  return {begin, begin + 64};
}

}  // namespace

TEST_CASE("the way between two seeds begins and ends with their samples", "[cli]") {
  const TaskCase c;
  const std::vector<float> way = c.numbers("--interpolate 3:8 --count 5 --class 2");
  REQUIRE(way.size() == 5 * 64);
  CHECK(at(way, 0) == c.numbers("--seed 3 --count 1 --class 2"));
  CHECK(at(way, 4) == c.numbers("--seed 8 --count 1 --class 2"));
  CHECK(at(way, 2) != at(way, 0));
  CHECK(at(c.numbers("--interpolate 18446744073709551615:8 --count 2 --class 2"), 0) ==
        c.numbers("--seed 18446744073709551615 --count 1 --class 2"));
  REQUIRE(c.sample("--interpolate 3:8 --count 2 --out way.png").code == 0);
  const nlohmann::json how = nlohmann::json::parse(png_texts(c.bytes("way.png")).at(1).text);
  CHECK(how.at("interpolate") == "3:8");
  CHECK(!how.contains("seed"));
  // A row for each class; the file alone does it too.
  const std::vector<float> all = c.numbers("--interpolate 3:8 --count 5");
  REQUIRE(all.size() == 10 * 5 * 64);
  for (std::size_t i = 0; i < 5; ++i) CHECK(at(all, 10 + i) == at(way, i));
  REQUIRE(run_program("export --model m/model.safetensors --out m.fxn", c.folder.path()).code == 0);
  const ProgramRun run = run_program(
      "sample --threads 1 --model m.fxn --interpolate 3:8 --count 5 --class 2 --npy y.npy",
      c.folder.path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  CHECK(read_npy(c.folder / "y.npy").values<float>() == way);
  check_one_line(run_program("sample --model m.fxn --init-image picture.png", c.folder.path()),
                 "wants a model");
  check_one_line(run_program("sample --model m.fxn --animate a.gif", c.folder.path()),
                 "wants a model");
}

TEST_CASE("the way between two classes begins and ends with their samples", "[cli]") {
  const TaskCase c;
  // Long enough that classes differ.
  c.train("flow",
          "--method flow-matching --steps 60 --lr 0.01 --data glyphs --image-size 8 --patch 4 "
          "--heads 1");
  for (const std::string guidance : {"", " --guidance 2"}) {
    const std::string flow = " --steps 3 --seed 4" + guidance;
    const std::vector<float> way = c.numbers("--class 2 --to-class 7 --count 4" + flow, "flow");
    REQUIRE(way.size() == 4 * 64);
    const auto near = [](const std::vector<float>& a, const std::vector<float>& b) {
      double largest = 0;
      for (std::size_t i = 0; i < a.size(); ++i)
        largest = testing::worse_of(largest, std::abs(a[i] - b[i]));
      return largest < 1e-5;
    };
    CHECK(near(at(way, 0), c.numbers("--count 1 --class 2" + flow, "flow")));
    CHECK(near(at(way, 3), c.numbers("--count 1 --class 7" + flow, "flow")));
    CHECK(!near(at(way, 1), at(way, 0)));
    for (const char* batch : {"1", "3"})
      CHECK(near(c.numbers("--class 2 --to-class 7 --count 4 --batch " + std::string(batch) + flow,
                           "flow"),
                 way));
  }
  // Nor need there be room for all at once.
  CHECK(c.sample("--class 2 --to-class 7 --count 20000 --memory-limit 0.05 --npy x.npy").code == 0);
  check_one_line(c.sample("--to-class 3"), "wants --class");
  check_one_line(c.sample("--class 2 --to-class eleven"), "eleven");
}

TEST_CASE("samples begin with a picture, and agree with one", "[cli]") {
  const TaskCase c;
  const auto mean_of = [](const std::vector<float>& x, const auto& counts) {
    double sum = 0, count = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
      if (counts(i / 8 % 8, i % 8)) sum += static_cast<double>(x[i]), ++count;
    return sum / count;
  };
  const auto above = [](std::size_t y, std::size_t) { return y < 4; };
  const auto below = [](std::size_t y, std::size_t) { return y >= 4; };
  for (const char* picture : {"picture.png", "large.png"}) {
    const std::vector<float> x =
        c.numbers(std::string("--strength 0.05 --count 3 --init-image ") + picture);
    CHECK(mean_of(x, above) > 0.8);
    CHECK(mean_of(x, below) < -0.8);
  }
  // Nothing of the picture is left at strength 1.
  CHECK(c.numbers("--strength 1 --count 3 --init-image picture.png") == c.numbers("--count 3"));

  for (const std::string steering : {"", " --steering flowchef --steering-scale 0.5"}) {
    const std::vector<float> x =
        c.numbers("--inpaint picture.png --mask mask.png --count 3" + steering);
    const std::vector<float> free = c.numbers("--count 3 --steps 50");
    for (std::size_t i = 0; i < x.size(); ++i)
      if (i % 8 < 4) CHECK(x[i] == (i / 8 % 8 < 4 ? 1.0f : -1.0f));
    CHECK(x != free);
  }
  const std::vector<float> enlarged = c.numbers("--enlarge small.png --count 3");
  CHECK(mean_of(enlarged, above) > 0.9);
  CHECK(mean_of(enlarged, below) < -0.9);
  const std::vector<float> sharp = c.numbers("--deblur picture.png --blur 1 --count 3");
  CHECK(mean_of(sharp, above) > 0.7);
  CHECK(mean_of(sharp, below) < -0.7);

  // What a picture was made of is noted in it.
  REQUIRE(c.sample("--init-image picture.png --strength 0.5 --count 2 --out a.png").code == 0);
  const nlohmann::json how = nlohmann::json::parse(png_texts(c.bytes("a.png")).at(1).text);
  CHECK(how.at("init image") == "picture.png");
  CHECK(how.at("strength") == 0.5);

  // A folder may hold what is read, but not under the name of a sample.
  std::filesystem::create_directory(c.folder / "pictures");
  for (const char* name : {"pictures/0001.png", "pictures/mine.png"})
    std::filesystem::copy_file(c.folder / "picture.png", c.folder / name);
  check_one_line(c.sample("--init-image pictures/0001.png --count 2 --out pictures"), "0001.png");
  CHECK(c.bytes("pictures/0001.png") == c.bytes("picture.png"));
  CHECK(c.sample("--init-image pictures/0001.png --count 1 --out pictures").code == 0);
  CHECK(c.sample("--init-image pictures/mine.png --count 2 --out pictures").code == 0);
}

TEST_CASE("samples move from noise to data, and between seeds", "[cli]") {
  const TaskCase c;
  REQUIRE(c.sample("--animate a.gif --frames 5 --count 4").code == 0);
  CHECK(text_of(c.folder / "a.gif").substr(0, 6) == "GIF89a");
  CHECK(!std::filesystem::exists(c.folder / "samples.png"));
  // The last frame of one file is the picture of the other.
  REQUIRE(c.sample("--animate a.png --frames 2 --count 4 --out b.png").code == 0);
  const Image first = decode_image(c.bytes("a.png")), last = decode_image(c.bytes("b.png"));
  CHECK(first.width == last.width);
  CHECK(first.height == last.height);
  CHECK(first.pixels != last.pixels);
  // Nor do frames depend on the batch.
  for (const char* batch : {"1", "3"})
    REQUIRE(
        c.sample(std::string("--animate ") + batch + ".gif --frames 3 --count 4 --batch " + batch)
            .code == 0);
  CHECK(text_of(c.folder / "1.gif") == text_of(c.folder / "3.gif"));
  const ProgramRun run = c.sample("--animate w.png --interpolate 1:2 --frames 3 --json");
  REQUIRE(run.code == 0);
  CHECK(nlohmann::json::parse(run.out).at("count") == 30);
  CHECK(nlohmann::json::parse(run.out).at("animation") == "w.png");

  c.train("flow", "--steps 3 --data 8gaussians --method flow-matching");
  REQUIRE(c.sample("--animate p.gif --steps 7 --count 50", "flow").code == 0);
  // Between two seeds, too, all frames have the same axes: the first, of the sample of seed 3, has
  // those of where the way leads.
  std::set<std::vector<std::uint8_t>> first_frames;
  for (const char* to : {"8", "9", "10", "11"}) {
    REQUIRE(
        c.sample("--animate w.png --frames 3 --interpolate 3:" + std::string(to), "flow").code ==
        0);
    first_frames.insert(decode_image(c.bytes("w.png")).pixels);
  }
  CHECK(first_frames.size() > 1);
  // Of dopri5, by its dense output: as many frames, whatever steps it takes.
  CHECK(c.sample("--animate p.gif --frames 7 --sampler dopri5", "flow").code == 0);
  CHECK(text_of(c.folder / "p.gif").starts_with("GIF"));
  check_one_line(c.sample("--init-image picture.png", "flow"), "models of grey or RGB images");
}

TEST_CASE("what can't be drawn from a picture is refused in a line", "[cli]") {
  const TaskCase c;
  c.write("black.png", [](int, int) { return 0; });
  c.write(
      "odd.png", [](int, int) { return 0; }, 5);
  for (const auto& [arguments, text] :
       {std::pair("--strength 0.5", "--strength is for --init-image"),
        std::pair("--inpaint picture.png", "with --mask"),
        std::pair("--mask mask.png", "--mask is for --inpaint"),
        std::pair("--blur 2", "--blur is for --deblur"),
        std::pair("--steering flowchef", "--inpaint, --enlarge or --deblur"),
        std::pair("--inpaint picture.png --mask mask.png --steering-scale 1", "flowchef"),
        std::pair("--inpaint picture.png --mask black.png", "black everywhere"),
        std::pair("--inpaint picture.png --mask mask.png --deblur picture.png", "one at a time"),
        std::pair("--enlarge odd.png", "whole fraction"),
        std::pair("--enlarge small.png --steering replacement", "wants known pixels"),
        std::pair("--init-image nothing.png", "nothing.png"),
        std::pair("--init-image m/model.safetensors", "m/model.safetensors"),
        std::pair("--interpolate 3", "two seeds"),
        std::pair("--interpolate 3:x", "two seeds"),
        std::pair("--interpolate 3:3", "two that differ"),
        std::pair("--interpolate 18446744073709551616:1", "two seeds"),
        std::pair("--interpolate 1:2 --seed 3", "--seed has no effect on --interpolate"),
        std::pair("--interpolate 1:2 --animate a.png --frames 20 --count 3",
                  "--count and --frames both"),
        std::pair("--class none --guidance 5", "--class none leaves it open"),
        std::pair("--animate a.gif --count 400 --frames 400 --memory-limit 0.3",
                  "of memory with their noise and pictures"),
        std::pair("--interpolate 1:2 --animate a.gif --frames 200 --scale 64 --memory-limit 0.3",
                  "of memory with their noise and pictures"),
        std::pair("--count 20000 --scale 64", "too large for one picture"),
        std::pair("--animate a.mp4", ".gif or .png"),
        std::pair("--frames 3", "--animate")})
    check_one_line(c.sample(arguments), text);
}
