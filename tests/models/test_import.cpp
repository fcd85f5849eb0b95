// Importing checkpoints of others. The file was written by tests/models/public_dit.py: a diffusion
// transformer with two times and a predicted variance, its 16-bit weights under the names of the
// public code behind "module.", and what it makes of some input ("value.*").
#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>
#include <set>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/files/safetensors.h"
#include "models/samplers/default_sampler.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"
#include "tests/models/public_file.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const ImportOptions usual{.num_heads = 2, .drop_variance = true};

TensorMap without(TensorMap tensors, const std::string& prefix) {
  std::erase_if(tensors, [&](const auto& entry) { return entry.first.starts_with(prefix); });
  return tensors;
}

bool has(const std::vector<Mismatch>& mismatches, Mismatch::Kind kind, const std::string& key,
         const std::string& detail) {
  return std::any_of(mismatches.begin(), mismatches.end(), [&](const Mismatch& m) {
    return m.kind == kind && m.key == key && contains(m.detail, detail);
  });
}

}  // namespace

TEST_CASE("a public checkpoint gives the outputs that PyTorch computed", "[import]") {
  const PublicFile file("public_dit.safetensors");
  TensorMap wrapped;
  for (const auto& [name, tensor] : file.weights) wrapped.emplace("module." + name, tensor);
  const ImportedModel imported = file.import(wrapped, usual);
  const auto& config = std::get<DitConfig>(imported.model.info.network);
  CHECK(config.image_size == 4);
  CHECK(config.channels == 2);
  CHECK(config.patch_size == 2);
  CHECK(config.hidden_size == 16);
  CHECK(config.depth == 2);
  CHECK(config.num_classes == 3);
  CHECK(config.mlp_width() == 64);
  CHECK(imported.model.info.ema);
  CHECK(imported.model.info.step == 42);
  // f32 against f64, over a hundred operations deep; outputs are of size 1.
  CHECK(largest_difference(file.output(imported.model, file.values.at("t"), file.values.at("r")),
                           file.values.at("both")) < 1e-5);

  // What was imported is a model like any other.
  write_model(file.folder / "model.safetensors", imported.model);
  CHECK(read_model(file.folder / "model.safetensors", file.device).info == imported.model.info);
}

TEST_CASE("tensors of other types beside the weights are named, and --ignore leaves them out",
          "[import]") {
  const PublicFile file("public_dit.safetensors");
  const std::filesystem::path with_more = file.folder / "more.safetensors";
  const std::vector<std::uint64_t> counts{3, 4};
  // The same file, and a counter of a type that no tensor has here.
  const auto write = [&](const TensorMap& weights) {
    save_tensors(file.path(), weights, file.metadata);
    const SafetensorsFile plain(file.path());
    std::vector<SafetensorsEntry> entries = plain.entries();
    entries.push_back({"extra.count",
                       SafetensorsType(std::string("U64")),
                       {2},
                       std::as_bytes(std::span(counts))});
    write_safetensors(with_more, entries, plain.metadata());
  };
  write(file.weights);
  std::vector<Mismatch> mismatches;
  try {
    import_network(with_more, usual, file.device);
  } catch (const MismatchError& error) {
    mismatches = error.mismatches();
  }
  REQUIRE(mismatches.size() == 1);
  CHECK(has(mismatches, Mismatch::Kind::unexpected, "extra.count", "U64[2]"));

  // It does not hide the prefix that the weights share.
  TensorMap wrapped;
  for (const auto& [name, tensor] : file.weights) wrapped.emplace("module." + name, tensor);
  write(wrapped);
  ImportOptions options = usual;
  options.ignore = {"extra."};
  const Model model = import_network(with_more, options, file.device).model;
  CHECK(model.parameters.size() == file.import(file.weights, usual).model.parameters.size());
}

TEST_CASE("weights in eight bits become the floats that they stand for; whole numbers are refused",
          "[import]") {
  const PublicFile file("public_dit.safetensors");
  save_tensors(file.path(), file.weights, file.metadata);
  const SafetensorsFile plain(file.path());
  const std::string name = "final_layer.linear.bias";
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(plain.find(name)->shape.elements()));
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(0x30 + i);
  const std::filesystem::path path = file.folder / "small.safetensors";
  const auto write = [&](const char* type) {
    std::vector<SafetensorsEntry> entries = plain.entries();
    for (SafetensorsEntry& entry : entries)
      if (entry.name == name)
        entry = {name, SafetensorsType(std::string(type)), entry.shape,
                 std::as_bytes(std::span(bytes))};
    write_safetensors(path, entries, plain.metadata());
  };
  write("F8_E4M3");
  const Model model = import_network(path, usual, file.device).model;
  const Tensor& bias = model.parameters.at(name);
  // The variance's channels are dropped: of four rows in turn the first two are kept.
  CHECK(slice_axis(bias, 0, 0, 1).item<float>() == 0.5f);
  CHECK(slice_axis(bias, 0, 1, 2).item<float>() == 0.5625f);
  CHECK(slice_axis(bias, 0, 2, 3).item<float>() == 0.75f);
  write("I8");
  const std::string why = message_of([&] { import_network(path, usual, file.device); });
  CHECK(contains(why, "have I8, want a floating type"));
}

TEST_CASE("a network with one time ignores the second where zeros are allowed for it", "[import]") {
  const PublicFile file("public_dit.safetensors");
  const TensorMap plain = without(file.weights, "h_embedder.");
  const std::vector<Mismatch> missing = file.mismatches(plain, usual);
  CHECK(missing.size() == 4);
  CHECK(has(missing, Mismatch::Kind::missing, "r_embedder.mlp.0.weight", "second-time"));

  ImportOptions options = usual;
  options.fill = {Fill::second_time};
  const Model model = file.import(plain, options).model;
  const Tensor t = file.values.at("t");
  CHECK(largest_difference(file.output(model, t, file.values.at("r")), file.values.at("plain")) <
        1e-5);
  CHECK(largest_difference(file.output(model, t, zeros_like(t)), file.values.at("plain")) < 1e-5);

  SECTION("it is no average velocity") {
    options.prediction = Prediction::average_velocity;
    CHECK(contains(file.refusal(plain, options), "second time"));
    options.fill = {};
    const std::vector<Mismatch> found = file.mismatches(plain, options);
    CHECK(found.size() == 4);
    CHECK(has(found, Mismatch::Kind::missing, "r_embedder.mlp.0.weight", "the second time"));
    CHECK_FALSE(has(found, Mismatch::Kind::missing, "r_embedder.mlp.0.weight", "fill"));
    CHECK_NOTHROW(file.import(file.weights, options));
  }

  SECTION("time and velocity may be reversed") {
    options.data_at_one = true;
    const Model reversed = file.import(plain, options).model;
    CHECK(largest_difference(file.output(reversed, 1.0 - t, t), -file.values.at("plain")) < 1e-5);
    CHECK(contains(file.refusal(file.weights, options), "data_at_one"));
    options.config =
        R"({"time_scale": 10})";  // u(z, t) is then -f(z, 10 - 10 t) in the terms of the file
    const Model scaled = file.import(plain, options).model;
    options.data_at_one = false;
    const Tensor there = file.output(file.import(plain, options).model, 1.0 - t, t);
    CHECK(largest_difference(file.output(scaled, t, t), -there) < 1e-4);
    CHECK(largest_difference(there, file.output(reversed, t, t)) > 1e-2);
  }
}

TEST_CASE("positions and a null class are filled in only where that is allowed", "[import]") {
  const PublicFile file("public_dit.safetensors");
  ImportOptions options = usual;
  CHECK(contains(file.refusal(without(file.weights, "pos_embed"), options), "image_size"));
  options.image_size = 4;
  CHECK(has(file.mismatches(without(file.weights, "pos_embed"), options), Mismatch::Kind::missing,
            "pos_embed", "positions"));
  options.fill = {Fill::positions};
  const Model computed = file.import(without(file.weights, "pos_embed"), options).model;
  CHECK(computed.info.open_class);
  CHECK(largest_difference(file.import(file.weights, options).model.parameters.at("pos_embed"),
                           file.weights.at("pos_embed").to(DType::f32)) == 0);
  // The file's are rounded to 16 bits.
  CHECK(largest_difference(computed.parameters.at("pos_embed"),
                           file.weights.at("pos_embed").to(DType::f32)) < 1e-3);

  options = usual;
  options.num_classes = 4;
  CHECK(has(file.mismatches(file.weights, options), Mismatch::Kind::shape,
            "y_embedder.embedding_table.weight", "null-class"));
  options.num_classes = {};
  options.fill = {Fill::null_class};
  const Model model = file.import(file.weights, options).model;
  CHECK(num_classes(model.info.network) == 4);
  CHECK_FALSE(model.info.open_class);
  const Tensor table = model.parameters.at("y_embedder.embedding_table.weight");
  CHECK(table.shape() == Shape{5, 16});
  CHECK(max(abs(slice_axis(table, 0, 4, 5))).item<float>() == 0);
  options.open_class = true;
  CHECK(contains(message_of<Error>([&] { file.import(file.weights, options); }), "leave one out"));
}

TEST_CASE("everything that does not fit is told at once, key by key", "[import]") {
  const PublicFile file("public_dit.safetensors");
  TensorMap tensors = file.weights;
  tensors.erase("blocks.1.attn.proj.bias");
  tensors["projector.weight"] = zeros({2, 3}, DType::f32, file.device);
  tensors["blocks.0.mlp.fc2.weight"] = zeros({16, 63}, DType::f32, file.device);
  tensors["t_embedder.mlp.2.bias"] = zeros({16}, DType::i32, file.device);
  tensors["r_embedder.mlp.0.bias"] = zeros({16}, DType::f32, file.device);
  ImportOptions options{.num_heads = 2};
  const std::vector<Mismatch> all = file.mismatches(tensors, options);
  CHECK(all.size() == 7);
  CHECK(has(all, Mismatch::Kind::missing, "blocks.1.attn.proj.bias", "[16]"));
  CHECK(has(all, Mismatch::Kind::unexpected, "projector.weight", "f32[2, 3]"));
  CHECK(has(all, Mismatch::Kind::shape, "blocks.0.mlp.fc2.weight", "have [16, 63], want [16, 64]"));
  CHECK(has(all, Mismatch::Kind::dtype, "t_embedder.mlp.2.bias", "have i32"));
  CHECK(has(all, Mismatch::Kind::repeated, "r_embedder.mlp.0.bias", "second"));
  CHECK(has(all, Mismatch::Kind::shape, "final_layer.linear.weight", "drop-variance"));
  CHECK(has(all, Mismatch::Kind::shape, "final_layer.linear.bias", "drop-variance"));

  SECTION("unwanted keys are left out, others renamed, on demand") {
    TensorMap other = without(file.weights, "h_embedder.");
    for (const auto& [name, tensor] : file.weights)
      if (name.starts_with("h_embedder."))
        other.emplace("delta_embedder." + name.substr(11), tensor);
    other["projector.weight"] = zeros({2, 3}, DType::f32, file.device);
    options = usual;
    options.rename = {{"delta_embedder.", "r_embedder."}};
    options.ignore = {"projector."};
    const Model model = file.import(other, options).model;
    CHECK(largest_difference(file.output(model, file.values.at("t"), file.values.at("r")),
                             file.values.at("both")) < 1e-5);
  }

  SECTION("long lists are cut, with their count") {
    for (int i = 0; i < 30; ++i)
      tensors["extra." + std::to_string(i)] = zeros({1}, DType::f32, file.device);
    const std::string message = file.refusal(tensors, options);
    CHECK(contains(message, "31 unexpected"));
    CHECK(contains(message, "... and 21 more: unexpected"));
    CHECK(std::count(message.begin(), message.end(), '\n') == 17);
  }
}

TEST_CASE("what is no diffusion transformer, or no network at all, is refused", "[import]") {
  const PublicFile file("public_dit.safetensors");
  CHECK(contains(file.refusal({{"layer.weight", zeros({2, 3}, DType::f32, file.device)}}, {}),
                 "x_embedder.proj.weight"));
  CHECK(contains(file.refusal(file.weights, {.drop_variance = true}), "num_heads"));
  CHECK(contains(file.refusal(file.weights, {.num_heads = 3}), "num_heads"));
  CHECK(contains(file.refusal(file.weights, {.num_heads = 2, .config = "[1]"}), "JSON"));
  CHECK(contains(file.refusal(file.weights, {.num_heads = 2, .config = R"({"magic": 1})"}),
                 "'magic'"));
  CHECK(contains(file.refusal(file.weights, {.num_heads = 2, .config = R"({"depth": "two"})"}),
                 "'depth'"));
  TensorMap oblong = file.weights;
  oblong["pos_embed"] = zeros({1, 5, 16}, DType::f32, file.device);
  CHECK(contains(file.refusal(oblong, usual), "square"));
  // Sizes far beyond any network, in tensors that hold nothing.
  const auto nothing = [&](Shape shape) {
    return Tensor::from(std::vector<float>(), std::move(shape), file.device);
  };
  TensorMap absurd = file.weights;
  absurd["x_embedder.proj.weight"] = nothing({std::int64_t(1) << 40, 0, 2, 2});
  CHECK(contains(file.refusal(absurd, usual), "x_embedder.proj.weight"));
  absurd = file.weights;
  absurd["pos_embed"] = nothing({1, std::int64_t(1) << 46, 0});
  CHECK(contains(file.refusal(absurd, usual), "image_size"));
  const auto no_bytes = [&](Shape shape) {
    return Tensor::from(std::vector<std::uint8_t>(), std::move(shape), file.device);
  };
  absurd["pos_embed"] = no_bytes({1, (std::int64_t(1) << 50) - 1, 0});
  CHECK(contains(file.refusal(absurd, usual), "no square"));
  absurd = file.weights;
  absurd["blocks.0.mlp.fc1.weight"] = no_bytes({(std::int64_t(1) << 50) - 1, 0});
  CHECK(has(file.mismatches(absurd, usual), Mismatch::Kind::shape, "blocks.0.mlp.fc1.weight",
            "have"));
  absurd = file.weights;
  absurd["y_embedder.embedding_table.weight"] = nothing({std::int64_t(1) << 46, 0});
  CHECK(contains(file.refusal(absurd, usual), "num_classes"));
}

TEST_CASE("a network that predicts noise is imported, and no sampler pretends to follow it",
          "[import]") {
  const PublicFile file("public_dit.safetensors");
  ImportOptions options = usual;
  options.prediction = Prediction::noise;
  const ModelInfo info = file.import(file.weights, options).model.info;
  CHECK(info.prediction == Prediction::noise);
  CHECK_THROWS_AS(default_sampler(info), Error);
}

TEST_CASE("fluxion import writes a model that can be sampled, or says line by line why not",
          "[import][cli]") {
  const PublicFile file("public_dit.safetensors");
  save_tensors(file.path(), file.weights, file.metadata);
  const ProgramRun refused = run_program(
      "import public.safetensors --predicts average-velocity --heads 2", file.folder.path());
  CHECK(refused.code == 1);
  CHECK(refused.out.empty());
  CHECK(refused.error.starts_with("fluxion: public.safetensors"));
  CHECK(contains(refused.error, "\n  shape      final_layer.linear.weight"));
  CHECK_FALSE(std::filesystem::exists(file.folder / "model.safetensors"));
  CHECK(run_program("import public.safetensors", file.folder.path()).code == 2);

  const ProgramRun imported = run_program(
      "import public.safetensors --predicts average-velocity --heads 2 --drop-variance --out "
      "model.safetensors",
      file.folder.path());
  INFO(imported.error);
  REQUIRE(imported.code == 0);
  CHECK(contains(imported.out, "'h_embedder.' became 'r_embedder.'"));
  CHECK(run_program("sample --model model.safetensors --count 3 --npy samples.npy",
                    file.folder.path())
            .code == 0);
}

TEST_CASE("what is imported and exported draws what is sampled directly, bit for bit",
          "[import][export][cli]") {
  const PublicFile file("public_dit.safetensors");
  save_tensors(file.path(), file.weights, file.metadata);
  const std::string import = "import public.safetensors --heads 2 --drop-variance ";
  REQUIRE(run_program(import + "--predicts average-velocity --out average.safetensors",
                      file.folder.path())
              .code == 0);
  // (Of a velocity, the second time is nothing that the network knows.)
  PublicFile plain("public_dit.safetensors");
  plain.weights = without(plain.weights, "module.h_embedder.");
  save_tensors(plain.path(), plain.weights, plain.metadata);
  const ProgramRun imported = run_program(
      "import public.safetensors --heads 2 --drop-variance --predicts velocity --fill second-time "
      "--out " +
          (file.folder / "velocity.safetensors").string(),
      plain.folder.path());
  INFO(imported.error);
  REQUIRE(imported.code == 0);

  const auto drawn = [&](const std::string& arguments) {
    const ProgramRun run = run_program(
        "sample --threads 1 --count 5 --seed 3 --npy x.npy " + arguments, file.folder.path());
    INFO(run.error);
    REQUIRE(run.code == 0);
    std::ifstream samples(file.folder / "x.npy", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(samples), {});
  };
  std::set<std::string> all;
  for (const std::string how :
       {"--model average.safetensors", "--model average.safetensors --steps 3",
        "--model velocity.safetensors --steps 4",
        "--model velocity.safetensors --sampler heun --steps 3 --guidance 2",
        "--model velocity.safetensors --sampler ddim --steps 3 --eta 0.5"}) {
    INFO(how);
    const ProgramRun exported = run_program("export --out x.fxn " + how, file.folder.path());
    INFO(exported.error);
    REQUIRE(exported.code == 0);
    const std::string direct = drawn(how);
    CHECK(drawn("--model x.fxn") == direct);
    all.insert(direct);
  }
  CHECK(all.size() == 5);  // each of them is another sampler
}
