// Importing DDPM++ and NCSN++ of others. The files were written by
// tests/models/public_song_unet.py: weights of small networks of public code, in 16 bits under
// their names behind "module.model.", and what that code makes of some input ("value.*").
#include "models/samplers/default_sampler.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/models/public_file.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const ImportOptions usual_song{.fill = {Fill::second_time}, .prediction = Prediction::F};

SongUnetConfig public_config(const std::string& name) {
  SongUnetConfig config = name == "public_ncsnpp.safetensors" ? ncsnpp() : SongUnetConfig{};
  config.image_size = {8, 8};
  config.channels = 2;
  config.base = 8;
  config.channel_mult = {1, 2};
  config.num_blocks = 1;
  config.num_classes = 3;
  return config;
}

}  // namespace

TEST_CASE("public SongUNets give the outputs that their own code computed", "[import][song-unet]") {
  for (const std::string name : {"public_ddpmpp.safetensors", "public_ncsnpp.safetensors"}) {
    INFO(name);
    const PublicFile file(name);
    const ImportedModel imported = file.import(file.weights, usual_song);
    const ModelInfo& info = imported.model.info;
    CHECK(std::get<SongUnetConfig>(info.network) == public_config(name));
    CHECK(info.wrapping == Wrapping::edm);
    // Its null class is no label at all, and its public code trains with labels alone.
    CHECK_FALSE(info.open_class);
    ImportOptions open = usual_song;
    open.open_class = true;
    CHECK(file.import(file.weights, open).model.info.open_class);
    CHECK(info.sampling == DefaultSampling{.sampler = "edm", .steps = 18});
    CHECK(default_sampler(info).sigma_max == 80);
    const Tensor expected = file.values.at("out"), t = file.values.at("t");
    CHECK(largest_difference(file.output(imported.model, t, t), expected) < 2e-5);
    CHECK(largest_difference(file.output(imported.model, t, 0.5 * t), expected) < 2e-5);
    CHECK(max(abs(expected)).item<double>() > 0.5);
    CHECK(std::ranges::any_of(
        imported.notes, [](const std::string& note) { return contains(note, "map_augment"); }));
  }
}

TEST_CASE("SongUNets that do not fit are refused by name", "[import][song-unet]") {
  const PublicFile file("public_ncsnpp.safetensors");
  CHECK(contains(file.refusal(file.weights, {}), "fill second-time"));
  ImportOptions options = usual_song;
  options.data_at_one = true;
  CHECK(contains(file.refusal(file.weights, options), "data_at_one"));
  options = usual_song;
  options.fill.insert(Fill::null_class);
  CHECK(contains(file.refusal(file.weights, options), "null-class"));
  options = usual_song;
  options.image_size = 8;
  CHECK(contains(file.refusal(file.weights, options), "leave them out"));
  const auto changed = [&](const std::function<void(TensorMap&)>& change) {
    TensorMap weights = file.weights;
    change(weights);
    return file.refusal(weights, usual_song);
  };
  const auto name_with = [&](const std::string& end) {
    for (const auto& [name, tensor] : file.weights)
      if (name.ends_with(end)) return name;
    return std::string();
  };
  CHECK(contains(changed([&](TensorMap& weights) { weights.erase(name_with("8x8_conv.weight")); }),
                 "enc.HxW_conv.weight"));
  CHECK(contains(changed([&](TensorMap& weights) { weights.erase(name_with("in1.conv0.bias")); }),
                 "missing"));
  CHECK(contains(changed([&](TensorMap& weights) {
                   Tensor& filter = weights.at(name_with("_up.conv0.resample_filter"));
                   filter = filter.to(DType::f32) + 0.5;
                 }),
                 "unexpected"));
  CHECK(contains(changed([&](TensorMap& weights) {
                   weights.at(name_with("_up.conv0.resample_filter")) =
                       full({1, 1, 2, 2}, 0.25, DType::f32, file.device);
                 }),
                 "two kinds of filters"));
}

TEST_CASE("a SongUNet of concatenated times is refused", "[import][song-unet]") {
  const PublicFile file("public_ddpmpp.safetensors");
  TensorMap weights = file.weights;
  for (auto& [name, tensor] : weights)
    if (name.ends_with("map_layer0.weight")) tensor = concat({tensor, tensor}, 1);
  for (const Prediction prediction :
       {Prediction::average_velocity, Prediction::velocity, Prediction::F}) {
    ImportOptions options = usual_song;
    options.prediction = prediction;
    const std::string message = file.refusal(weights, options);
    INFO(message);
    CHECK(contains(message, "takes 2 times the 8 features of one time"));
    CHECK(contains(message, "second time"));
  }
  ImportOptions options = usual_song;
  options.prediction = Prediction::average_velocity;
  CHECK(contains(file.refusal(file.weights, options), "second time"));
}

TEST_CASE("the program imports a SongUNet, draws of it and trains one", "[cli][song-unet]") {
  const ScratchFolder folder;
  const PublicFile file("public_ddpmpp.safetensors");
  save_tensors(folder / "edm.safetensors", file.weights, {});
  const auto run = [&](const std::string& line) { return run_program(line, folder.path()); };
  const ProgramRun imported =
      run("import edm.safetensors --predicts F --fill second-time --out teacher.safetensors");
  INFO(imported.error);
  REQUIRE(imported.code == 0);
  const ProgramRun drawn =
      run("sample --model teacher.safetensors --count 3 --npy x.npy --steps 4 --threads 1");
  INFO(drawn.error);
  CHECK(drawn.code == 0);
  const std::string train =
      "train --data glyphs --image-size 8 --net song-unet --batch 4 --threads 1 --schedule "
      "constant ";
  for (const std::string architecture : {"", "--architecture ncsn++ --recompute "}) {
    const std::string settings = train + "--width 8 --channel-mult 1,2 " + architecture;
    const ProgramRun whole = run(settings + "--steps 4 --out whole");
    INFO(whole.error);
    REQUIRE(whole.code == 0);
    CHECK(contains(whole.error, "song-unet"));
    REQUIRE(run(settings + "--steps 2 --quiet --out run").code == 0);
    REQUIRE(run("train --resume run --steps 4 --quiet").code == 0);
    CHECK(text_of(folder / "run/model.safetensors") == text_of(folder / "whole/model.safetensors"));
  }
  const auto& network =
      std::get<SongUnetConfig>(read_model_info(folder / "run/model.safetensors").network);
  CHECK(network.embedding == SongEmbedding::fourier);
  CHECK(network.num_classes == 10);
  struct Case {
    std::string arguments, says;
  };
  for (const Case& wrong : {Case{"--heads 2", "--heads belongs to --net dit and --net unet"},
                            Case{"--width 6", "--width 6 is no multiple of 4"},
                            Case{"--width 36 --channel-mult 1,4", "a multiple"},
                            Case{"--channel-mult 1,1,1,1,1", "multiples of 16"},
                            Case{"--attention 3", "--attention 3"}}) {
    const ProgramRun refused = run(train + "--steps 1 --out no " + wrong.arguments);
    INFO(wrong.arguments << "\n" << refused.error);
    CHECK(refused.code == 1);
    if (wrong.says != "a multiple") CHECK(contains(refused.error, wrong.says));
    CHECK_FALSE(contains(refused.error, "channel_mult"));
  }
  CHECK(contains(run("train --data glyphs --net unet --architecture ddpm++ --out no").error,
                 "--architecture belongs to --net song-unet"));
}
