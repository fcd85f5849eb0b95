// U-Nets through the program: trained on square and oblong images, with every objective, resumed,
// sampled, evaluated.
#include <nlohmann/json.hpp>

#include "models/files/npy.h"
#include "models/model_file.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using nlohmann::json;

const std::string tiny_unet =
    "train --data glyphs --image-size 8 --net unet --batch 8 --threads 1 --quiet ";

json unet_config_of(const std::filesystem::path& folder) {
  return json::parse(text_of(folder / "config.json"));
}

void write_oblong_images(const std::filesystem::path& path) {
  std::vector<float> pixels(16 * 12 * 20);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<float>(i % 11) / 5 - 1;
  write_npy(path, pixels, {16, 12, 20, 1});
}

}  // namespace

TEST_CASE(
    "train makes U-Nets, which are resumed, sampled, inspected and evaluated like other networks",
    "[cli][unet]") {
  const ScratchFolder folder;
  const auto ran = [&](const std::string& arguments) {
    const ProgramRun run = run_program(arguments, folder.path());
    INFO("fluxion " << arguments << "\n" << run.error);
    REQUIRE(run.code == 0);
    return run.out;
  };
  ran(tiny_unet + "--width 8 --steps 4 --out whole");
  ran(tiny_unet + "--width 8 --steps 2 --out part");
  ran("train --resume part --steps 4 --quiet");
  CHECK(text_of(folder / "whole/model.safetensors") == text_of(folder / "part/model.safetensors"));
  CHECK(text_of(folder / "whole/samples.png").size() > 100);

  const json config = unet_config_of(folder / "whole");
  CHECK(config.at("net") == "unet");
  CHECK(config.at("channel-mult") == json({1}));  // 8 x 8 is not worth halving
  CHECK(config.at("attention") == json({1}));
  CHECK(config.at("depth") == 1);
  CHECK(config.at("heads") == 1);
  CHECK_FALSE(config.contains("patch"));
  const auto network =
      std::get<UnetConfig>(read_model_info(folder / "whole/model.safetensors").network);
  CHECK(network.num_classes == 10);
  CHECK(network.norm_groups == 2);

  ran("train --config whole/config.json --out again --quiet");
  CHECK(text_of(folder / "whole/model.safetensors") == text_of(folder / "again/model.safetensors"));
  CHECK(contains(ran("inspect whole/model.safetensors"), "unet"));
  ran("sample --model whole/model.safetensors --class 7 --count 4 --out sevens.png --threads 1");
  CHECK(contains(ran("eval --model whole/model.safetensors --data glyphs --metrics energy --count "
                     "20 --draws 0 --threads 1"),
                 "energy"));
}

TEST_CASE("every objective trains a U-Net", "[cli][unet]") {
  const ScratchFolder folder;
  for (const std::string objective :
       {"--objective meanflow", "--objective meanflow --tangent all",
        "--objective meanflow --direction network", "--objective flow-matching",
        "--objective split-meanflow", "--kappa 0.5"}) {
    const ProgramRun run =
        run_program(tiny_unet + objective +
                        " --width 4 --channel-mult 1,2 --attention 0 --heads 2 --steps 2 --out run",
                    folder.path());
    INFO(objective << "\n" << run.error);
    REQUIRE(run.code == 0);
    const auto network =
        std::get<UnetConfig>(read_model_info(folder / "run/model.safetensors").network);
    CHECK(network.channel_mult == std::vector<std::int64_t>{1, 2});
    CHECK(network.attention_ds.empty());
    CHECK(network.num_heads == 2);
  }
}

TEST_CASE("oblong images get a U-Net, with as many levels as they can be halved", "[cli][unet]") {
  const ScratchFolder folder;
  write_oblong_images(folder / "oblong.npy");
  const std::string train =
      "train --data oblong.npy --width 4 --batch 4 --steps 2 --threads 1 --quiet --out run ";
  const ProgramRun run = run_program(train, folder.path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  CHECK(unet_config_of(folder / "run").at("net") == "unet");
  const auto network =
      std::get<UnetConfig>(read_model_info(folder / "run/model.safetensors").network);
  CHECK(network.image_size == std::array<std::int64_t, 2>{12, 20});
  CHECK(network.channel_mult == std::vector<std::int64_t>{1, 2, 2});  // 12 x 20, 6 x 10, 3 x 5
  CHECK(network.attention_ds == std::vector<std::int64_t>{2, 4});     // at most 16 x 16
  CHECK(run_program("sample --model run/model.safetensors --count 2 --out two.png --threads 1",
                    folder.path())
            .code == 0);
  CHECK(contains(run_program(train + "--net dit", folder.path()).error, "--net unet"));
}

TEST_CASE("the features of time of an NCSN++ are those of its method", "[cli][unet]") {
  const ScratchFolder folder;
  const auto scale_of = [&](const std::string& method) {
    const ProgramRun run = run_program(
        "train --data glyphs --image-size 8 --net song-unet --architecture ncsn++ --width 8 "
        "--depth 1 --channel-mult 1 --batch 4 --steps 1 --threads 1 --quiet --out run --method " +
            method,
        folder.path());
    INFO(run.error);
    CHECK(run.code == 0);
    return std::get<SongUnetConfig>(read_model_info(folder / "run/model.safetensors").network)
        .time_scale;
  };
  CHECK(scale_of("edm") == 1);
  CHECK(scale_of("ict") == Approx(0.02 / 16));
  CHECK(scale_of("scm") == Approx(0.02 / 16));
}

TEST_CASE("settings of other networks and impossible U-Nets are refused by name", "[cli][unet]") {
  const ScratchFolder folder;
  struct Case {
    std::string arguments, says;
  };
  for (const Case& wrong :
       {Case{"--net unet --patch 4", "--patch belongs to --net dit"},
        Case{"--net unet --frequencies 3", "--net mlp"},
        Case{"--net dit --channel-mult 1,2", "--channel-mult belongs to --net unet"},
        Case{"--net dit --attention 1", "--attention belongs to --net unet"},
        Case{"--net unet --attention 3", "--attention 3"},
        Case{"--net unet --attention 0,1", "--attention 0"},
        Case{"--net unet --attention 1,1,2", "--attention names 3"},
        Case{"--net unet --channel-mult 1,1,1,1,1,1", "multiples of 32"},
        Case{"--net unet --channel-mult 1,1,1,1,1,1,1,1,1,1,1,1,1", "--channel-mult has 13 levels"},
        Case{"--net unet --width 32 --heads 5", "--heads 5 does not divide the 32 channels"},
        Case{"--net unet --width 6 --channel-mult 1,2 --attention 1 --heads 4",
             "--heads 4 does not divide the 6 channels"},
        Case{"--net unet --width 7 --heads 2", "--heads 2"}}) {
    const ProgramRun run = run_program(
        "train --data glyphs --steps 1 --out run --quiet " + wrong.arguments, folder.path());
    INFO(wrong.arguments << "\n" << run.error);
    CHECK(run.code == 1);
    CHECK(contains(run.error, wrong.says));
    for (const char* internal : {"attention_ds", "channel_mult", "image_size", "num_heads"})
      CHECK_FALSE(contains(run.error, internal));
  }
}
