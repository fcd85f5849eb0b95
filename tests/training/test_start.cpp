// Runs that begin with the weights of another model, and dropout.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/data/glyphs.h"
#include "models/data/points.h"
#include "models/networks/scope.h"
#include "models/training/checkpoint.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const Device& start_device() {
  static const Device device = cpu({.threads = 1});
  return device;
}

UnetConfig start_unet() {
  return {.image_size = {8, 8},
          .channels = 1,
          .base = 8,
          .channel_mult = {1, 2},
          .num_res_blocks = 1,
          .attention_ds = {2},
          .norm_groups = 4,
          .num_heads = 2,
          .num_classes = 10};
}

SongUnetConfig start_song() {
  SongUnetConfig config = ncsnpp();
  config.image_size = {8, 8};
  config.channels = 1;
  config.base = 8;
  config.channel_mult = {1, 2};
  config.num_blocks = 1;
  config.num_classes = 10;
  return config;
}

TrainingConfig start_config(const NetworkConfig& network, const std::string& method) {
  TrainingConfig config{.network = network, .method = configure(method), .batch = 4, .seed = 3};
  if (config.method.method->has_schedule) config.total_steps = 8;
  return config;
}

std::vector<std::vector<float>> start_state(const Trainer& trainer) {
  std::vector<std::vector<float>> values;
  for (const Tensor& tensor : leaves(trainer.state()))
    if (tensor.dtype() == DType::f32) values.push_back(tensor.to_host<float>());
  return values;
}

Model trained_model(const TrainingConfig& config, int steps = 3) {
  Trainer trainer(config, glyphs(8), start_device());
  for (int i = 0; i < steps; ++i) trainer.step();
  return trainer.model(Weights::raw);
}

}  // namespace

TEST_CASE("dropout leaves out its share, scales up the rest, and follows its key", "[dropout]") {
  const Tensor ones = full({4, 10, 10, 8}, 1, DType::f32, start_device());
  const auto dropped = [&](double share, std::uint64_t key, std::uint32_t place) {
    return with_dropout(ones, {.dropout = share, .dropout_key = random_key(key, start_device())},
                        place)
        .to_host<float>();
  };
  for (const double share : {0.1, 0.5, 0.9}) {
    INFO(share);
    const std::vector<float> values = dropped(share, 1, 2);
    std::int64_t zero = 0;
    for (const float value : values) {
      if (value == 0)
        ++zero;
      else
        REQUIRE(value == Approx(1 / (1 - share)));
    }
    CHECK(static_cast<double>(zero) / 3200 == Approx(share).margin(0.04));
    CHECK(values == dropped(share, 1, 2));
    CHECK(values != dropped(share, 2, 2));
    CHECK(values != dropped(share, 1, 3));
  }
  CHECK(dropped(0, 1, 2) == ones.to_host<float>());
  for (const NetworkConfig& network : {NetworkConfig(MlpConfig{}), NetworkConfig(DitConfig{})}) {
    CHECK(contains(message_of([&] { with_dropout(network, 0.1, {}); }), "a unet and a song-unet"));
    CHECK_NOTHROW(with_dropout(network, 0, {}));
  }
  for (const double share : {-0.1, 1.0, std::nan("")})
    CHECK(contains(message_of([&] { with_dropout(start_unet(), share, {}); }), "share from 0"));
}

// A method of the test's own looks at what a step's calls leave out.
TEST_CASE("all calls of a step leave out the same, and each step something else", "[dropout]") {
  Method watching = *method_named("flow-matching", built_in_methods());
  watching.name = "watching";
  watching.loss = [](const LossArguments& arguments) {
    const Tensor &x = arguments.x, t = full({x.size(0)}, 0.5, DType::f32, x.device());
    const Times times{.t = t, .r = t};
    const Tensor fixed = full_like(x, 0.3), labels = arguments.labels * 0.0;
    const Tensor a = arguments.velocity(fixed, times, labels),
                 b = arguments.velocity(fixed, times, labels),
                 still = arguments.bind_trained(arguments.state.at("copy"))(fixed, times, labels);
    return LossValue{sum(square(a - b)) + 0.0 * sum(a), sum(square(a - still))};
  };
  watching.copies = {"copy"};
  const MethodTable table = with_method(built_in_methods(), watching);
  for (const NetworkConfig& network : {NetworkConfig(start_unet()), NetworkConfig(start_song())})
    for (const bool recompute : {false, true}) {
      INFO(family(network) << (recompute ? ", recomputed" : ""));
      TrainingConfig config = start_config(network, "flow-matching");
      config.method = configure("watching", {}, SampleKind::images, table);
      config.dropout = 0.4;
      config.recompute = recompute;
      // Weights of which none is zero, as they are at the start.
      Start start;
      std::uint32_t number = 0;
      for (const auto& [name, shape] : network_shapes(config))
        start.parameters[name] =
            normal(fold_in(random_key(9, start_device()), number++), shape, DType::f32) * 0.2;
      Trainer trainer(config, glyphs(8), start_device(), start);
      std::vector<float> errors;
      for (int i = 0; i < 3; ++i) {
        const StepMetrics metrics = trainer.step();
        CHECK(metrics.loss.item<float>() == 0);
        errors.push_back(metrics.error.item<float>());
        CHECK(errors.back() > 1e-4);
      }
      CHECK(errors[0] != errors[1]);
      CHECK(errors[1] != errors[2]);
    }
}

TEST_CASE("a run with dropout goes on bit for bit", "[dropout][resume]") {
  for (const NetworkConfig& network : {NetworkConfig(start_unet()), NetworkConfig(start_song())})
    for (const std::string method : {"ict", "meanflow"}) {
      INFO(family(network) << " " << method);
      const ScratchFolder folder;
      TrainingConfig config = start_config(network, method);
      config.dropout = 0.3;
      const std::shared_ptr<const DataSet> data = glyphs(8);
      Trainer whole(config, data, start_device()), first(config, data, start_device());
      for (int i = 0; i < 5; ++i) CHECK(std::isfinite(whole.step().loss.item<float>()));
      for (int i = 0; i < 3; ++i) first.step();
      write_checkpoint(folder / "c", first, 1);
      CHECK(read_checkpoint_info(folder / "c").config == config);
      Trainer second = resume_trainer(folder / "c", data, start_device());
      for (int i = 0; i < 2; ++i) second.step();
      CHECK(start_state(second) == start_state(whole));
      TrainingConfig none = config;
      none.dropout = 0;
      Trainer other(none, data, start_device());
      for (int i = 0; i < 5; ++i) other.step();
      CHECK(start_state(other) != start_state(whole));
    }
}

TEST_CASE("a run begins with what fits of another model, and says what does not",
          "[training][init]") {
  const Model model = trained_model(start_config(start_unet(), "flow-matching"));
  TrainingConfig config = start_config(start_unet(), "meanflow");
  const auto begin = [&](TrainingConfig& with, const Model& from) {
    return take_start(with, from, "FILE");
  };
  CHECK(begin(config, model) == std::to_string(network_shapes(config).size()) + " of " +
                                    std::to_string(network_shapes(config).size()) + " parameters");
  Trainer same(config, glyphs(8), start_device(), Start{model.parameters});
  for (const auto& [name, tensor] : same.model(Weights::average).parameters)
    CHECK(tensor.to_host<float>() == model.parameters.at(name).to_host<float>());

  UnetConfig deeper = start_unet();
  deeper.num_res_blocks = 2;
  deeper.attention_ds = {};
  config.network = deeper;
  const std::string line = begin(config, model);
  INFO(line);
  CHECK(contains(line, "; not in it: "));
  CHECK(contains(line, "; of another shape: "));
  CHECK(contains(line, " more"));
  CHECK(line.find('\n') == std::string::npos);
  deeper = start_unet();
  deeper.num_classes = 0;
  config.network = deeper;
  CHECK(contains(begin(config, model), " parameters; not used: label_emb.weight"));
  Model others{.info = {}, .parameters = {}};
  others.info.network = MlpConfig{};
  others.parameters = initialise(others.info.network, random_key(1, start_device()));
  CHECK(contains(message_of([&] { begin(config, others); }),
                 "FILE is a mlp none of whose parameters fits the unet"));
}

TEST_CASE("a run takes over what no shape of a model shows", "[training][init]") {
  Model model{.info = {}, .parameters = {}};
  const DitConfig theirs{.image_size = 8,
                         .hidden_size = 16,
                         .depth = 1,
                         .num_heads = 2,
                         .num_classes = 10,
                         .second_time = SecondTime::r,
                         .time_scale = 1000,
                         .gelu = Gelu::erf,
                         .positions = Positions::learned};
  model.info.network = theirs;
  model.parameters = initialise(model.info.network, random_key(1, start_device()));
  DitConfig own{.image_size = 8, .hidden_size = 16, .depth = 1, .num_heads = 4, .num_classes = 10};
  TrainingConfig config = start_config(own, "flow-matching");
  take_start(config, model, "FILE");
  CHECK(config.network == NetworkConfig(theirs));
  // Without its classes, too; a network of another width stays as it is.
  own.num_classes = 0;
  config.network = own;
  take_start(config, model, "FILE");
  CHECK(std::get<DitConfig>(config.network).time_scale == 1000);
  own.hidden_size = 32;
  config.network = own;
  take_start(config, model, "FILE");
  CHECK(config.network == NetworkConfig(own));
}

TEST_CASE("random frequencies come with the weights, and stay over a resume", "[training][init]") {
  const ScratchFolder folder;
  const Model teacher = trained_model(start_config(start_song(), "edm"));
  TrainingConfig config = start_config(start_song(), "flow-matching");
  config.seed = 8;
  const auto frequencies = [](const Trainer& trainer) {
    return trainer.model(Weights::raw).parameters.at("map_noise.freqs").to_host<float>();
  };
  const auto theirs = teacher.parameters.at("map_noise.freqs").to_host<float>();
  Trainer fresh(config, glyphs(8), start_device());
  CHECK(frequencies(fresh) != theirs);
  take_start(config, teacher, "FILE");
  Trainer whole(config, glyphs(8), start_device(), Start{teacher.parameters}),
      first(config, glyphs(8), start_device(), Start{teacher.parameters});
  CHECK(frequencies(whole) == theirs);
  for (int i = 0; i < 4; ++i) whole.step();
  for (int i = 0; i < 2; ++i) first.step();
  write_checkpoint(folder / "c", first, 1);
  Trainer second = resume_trainer(folder / "c", glyphs(8), start_device());
  for (int i = 0; i < 2; ++i) second.step();
  CHECK(frequencies(second) == theirs);
  CHECK(start_state(second) == start_state(whole));

  // A teacher of other frequencies is another network.
  write_model(folder / "teacher", teacher);
  TrainingConfig distilled = start_config(start_song(), "cd");
  distilled.seed = 8;
  distilled.method.options.set("teacher", (folder / "teacher").string());
  CHECK(contains(message_of([&] { Trainer(distilled, glyphs(8), start_device()); }),
                 "has another 'map_noise.freqs'"));
  take_start(distilled, teacher, "FILE");
  Trainer student(distilled, glyphs(8), start_device(), Start{teacher.parameters});
  CHECK(std::isfinite(student.step().loss.item<float>()));
}

TEST_CASE("the program begins with a model, with dropout, and goes on without its file",
          "[cli][init][dropout]") {
  const ScratchFolder folder;
  const auto run = [&](const std::string& line) { return run_program(line, folder.path()); };
  const std::string small =
      "--data glyphs --image-size 8 --net unet --width 8 --channel-mult 1,2 "
      "--batch 4 --threads 1 --schedule constant ";
  REQUIRE(run("train --quiet --steps 3 --method flow-matching --out first " + small).code == 0);
  const std::string next =
      "train --method ict --dropout 0.3 --init first/model.safetensors --warmup 2 " + small;
  const ProgramRun whole = run(next + "--steps 6 --out whole");
  INFO(whole.error);
  REQUIRE(whole.code == 0);
  CHECK(contains(whole.error, " parameters of "));
  check_one_line(run(next + "--steps 2 --heads 2 --out no"), "give --heads 1");
  // A step that is next to nothing leaves the weights as they were.
  REQUIRE(run("train --method flow-matching --init first --steps 1 --lr 1e-12 --warmup 0 --quiet "
              "--seed 5 --out same " +
              small)
              .code == 0);
  const Parameters begun =
      read_model(folder / "same/model-raw.safetensors", start_device()).parameters;
  for (const auto& [name, tensor] : read_model(folder / "first", start_device()).parameters)
    CHECK(max(abs(begun.at(name) - tensor)).item<float>() < 1e-9f);
  REQUIRE(run(next + "--steps 6 --checkpoint-every 1steps --minutes 1e6 --quiet --out run").code ==
          0);
  CHECK(text_of(folder / "run/model.safetensors") == text_of(folder / "whole/model.safetensors"));
  std::filesystem::remove_all(folder / "first");
  std::filesystem::copy_file(folder / "run/checkpoint-previous.safetensors",
                             folder / "run/checkpoint.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  const ProgramRun resumed = run("train --resume run --quiet");
  INFO(resumed.error);
  CHECK(resumed.code == 0);
  CHECK(text_of(folder / "run/model.safetensors") == text_of(folder / "whole/model.safetensors"));
  CHECK(contains(run("train --data glyphs --net dit --dropout 0.1 --out no").error,
                 "--dropout belongs to --net unet and --net song-unet"));
  CHECK(run("train --data glyphs --init none --out no").code == 1);
}
