#include "models/training/pairs.h"

#include <algorithm>
#include <cmath>

#include "engine/export/sample_noise.h"
#include "engine/platform/file.h"
#include "engine/platform/machine.h"
#include "models/data/checksum.h"
#include "models/samplers/default_sampler.h"
#include "models/samplers/stepper.h"

namespace fluxion {
namespace {

// A stop loses what was drawn since the last file.
constexpr std::uint64_t most_in_file = 16384;
constexpr std::int64_t most_made = 1'000'000'000'000;
// Keeps the noise of pairs apart from that of pictures and samples of the same seed.
constexpr std::uint64_t pair_seed = 0x7061697273;

SamplerOptions sampler_of(const ModelInfo& info, const PairOptions& options,
                          const std::string& teacher) {
  SamplerOptions sampler = default_sampler(info);
  if (options.sampler != "own") {
    sampler.kind = sampler_kind_from(options.sampler);
    if (options.steps == 0) sampler.steps = usual_steps(sampler.kind);
  }
  if (options.steps > 0) sampler.steps = options.steps;
  check(sampler);
  if (make_stepper(sampler).draws_noise)
    throw Error("pairs: " + to_string(sampler.kind) + " draws noise on its way, so a sample of " +
                teacher +
                " does not follow from the noise that it began with; --pair-sampler euler, heun or "
                "dopri5 would, where the model has a velocity");
  return sampler;
}

void check_disk(const std::filesystem::path& folder, std::uint64_t bytes) {
  std::filesystem::path there = folder;
  std::error_code missing;
  while (!there.empty() && !std::filesystem::exists(there, missing) && there.has_parent_path() &&
         there.parent_path() != there)
    there = there.parent_path();
  const std::optional<std::uint64_t> room =
      free_disk_bytes(there.empty() || !std::filesystem::exists(there, missing) ? "." : there);
  if (!room || *room >= bytes) return;
  throw IoError("pairs: the disk of " + folder.string() + " has " + std::to_string(*room >> 20) +
                " MiB left, and the pairs take " + std::to_string((bytes >> 20) + 1) +
                " MiB; fewer --pairs would fit");
}

}  // namespace

std::string teacher_checksum(const std::filesystem::path& path) {
  check_holds_model(path);
  const MappedFile file(model_file(path));
  Checksum checksum;
  checksum.add(file.bytes());
  file.check_whole();
  return checksum.text();
}

PairOptions pair_options(const MethodOptions& options, std::uint64_t seed) {
  return {.count = options.whole("pairs"),
          .sampler = options.text("pair-sampler"),
          .steps = options.whole("pair-steps"),
          .seed = seed};
}

PairsPlan plan_pairs(const std::filesystem::path& folder, const std::filesystem::path& teacher,
                     const PairOptions& options) {
  const ModelInfo info = read_model_info(teacher);
  if (options.count < 1 || options.count > most_made)
    throw Error("pairs: wants 1 to 1e12, got " + std::to_string(options.count));
  if (!info.source.empty())
    throw Error("pairs: " + teacher.string() + " begins with points of " + info.source +
                ", and pairs are of standard normal noise");
  PairsPlan plan;
  plan.sampler = sampler_of(info, options, teacher.string());
  const std::int64_t classes = num_classes(info.network);
  PairsInfo& pairs = plan.info;
  pairs.count = options.count;
  pairs.sample_shape = sample_shape(info.network);
  pairs.teacher = teacher_checksum(teacher);
  pairs.sampler = to_string(plan.sampler.kind) + " " + std::to_string(plan.sampler.steps);
  pairs.seed = options.seed;
  pairs.dataset = info.dataset.empty() ? "pairs" : info.dataset;
  if (classes > 0) {
    pairs.class_names = info.class_names.empty()
                            ? numbered_classes(static_cast<std::int32_t>(classes))
                            : info.class_names;
    pairs.class_marks = info.class_marks;
  }
  pairs.per_file = 1;
  const std::uint64_t each = pairs.bytes_of(0);
  // Training holds all files open, of which a process may usually have 1024.
  constexpr std::uint64_t most_files = 512;
  const auto count = static_cast<std::uint64_t>(pairs.count);
  pairs.per_file = static_cast<std::int64_t>(
      std::max({std::min(options.file_bytes / each, most_in_file),
                (count + most_files - 1) / most_files, std::uint64_t{1}}));

  std::error_code missing;
  const bool others = is_pairs_folder(folder);
  const auto refuse = [&] {
    throw Error("pairs: " + folder.string() +
                " holds other pairs than these, of another teacher, number, sampler or seed: "
                "remove it, choose another --out, or train on them: --data " +
                folder.string() + " without --teacher");
  };
  if (!others) check_disk(folder, each * static_cast<std::uint64_t>(pairs.count));
  for (std::int64_t file = 0; file < pairs.files(); ++file) {
    plan.bytes += pairs.bytes_of(file);
    const std::filesystem::path path = folder / pairs_file_name(pairs, file);
    if (std::filesystem::exists(path, missing)) {
      const SafetensorsFile there(path);
      if (pairs_info_of(there, path.string()) != pairs) refuse();
      check_pairs_file(there, pairs, file, path.string());
      plan.present += pairs.pairs_in(file);
    } else {
      plan.files_to_come.push_back(file);
      plan.bytes_to_come += pairs.bytes_of(file);
    }
  }
  if (others && plan.present == 0) refuse();
  check_disk(folder, plan.bytes_to_come);
  return plan;
}

bool make_pairs(const std::filesystem::path& folder, const std::filesystem::path& teacher,
                const PairsPlan& plan, const PairOptions& options, const Device& device,
                const std::function<void(std::int64_t done)>& progress,
                const std::stop_token& stop) {
  if (plan.files_to_come.empty()) return true;
  const Model model = read_model(teacher, device);
  const PairsInfo& info = plan.info;
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure)
    throw IoError("pairs: can't make the folder " + folder.string() + ": " + failure.message());
  for (const auto& entry : std::filesystem::directory_iterator(folder, failure))
    if (const std::string name = entry.path().filename().string();
        name.starts_with(".pairs-") && name.ends_with(".part"))
      remove_abandoned_file(entry.path());
  const Sampler sampler(model.info.network, model.parameters, plan.sampler);
  const std::vector<std::int32_t> classes = trained_classes(model.info);
  const Tensor key = noise_keys(options.seed + pair_seed, device).of_start;
  SampleNoise noise(info.sample_shape, DType::f32, device);
  const auto elements = static_cast<std::size_t>(info.sample_shape.elements());
  std::int64_t done = plan.present;
  for (const std::int64_t file : plan.files_to_come) {
    const std::int64_t first = file * info.per_file, rows = info.pairs_in(file);
    std::vector<float> from, to;
    std::vector<std::int32_t> labels;
    for (std::int64_t begin = 0; begin < rows; begin += options.batch) {
      if (stop.stop_requested()) return false;
      const std::int64_t used = std::min(options.batch, rows - begin);
      // Every batch has one size, so that one compiled step serves all.
      std::vector<float> z(static_cast<std::size_t>(options.batch) * elements, 0.0f);
      noise.draw(key, first + begin, used,
                 std::span(z).first(static_cast<std::size_t>(used) * elements));
      std::vector<std::int32_t> batch_labels(static_cast<std::size_t>(options.batch), 0);
      for (std::int64_t i = 0; i < used && !classes.empty(); ++i) {
        const auto number = static_cast<std::size_t>(first + begin + i);
        batch_labels[static_cast<std::size_t>(i)] = classes[number % classes.size()];
      }
      const Tensor start =
          Tensor::from(z, with_leading_axis(options.batch, info.sample_shape), device);
      const std::vector<float> drawn =
          sampler(start,
                  classes.empty() ? Tensor() : Tensor::from(batch_labels, {options.batch}, device))
              .to_host<float>();
      const auto kept = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(used) * elements);
      if (!std::all_of(drawn.begin(), drawn.begin() + kept,
                       [](float value) { return std::isfinite(value); }))
        throw Error("pairs: " + teacher.string() + " draws samples that are not finite");
      from.insert(from.end(), z.begin(), z.begin() + kept);
      to.insert(to.end(), drawn.begin(), drawn.begin() + kept);
      labels.insert(labels.end(), batch_labels.begin(), batch_labels.begin() + used);
      done += used;
      if (progress) progress(done);
    }
    const Shape all = with_leading_axis(rows, info.sample_shape);
    std::map<std::string, Tensor> tensors = {{"noise", Tensor::from(from, all, device)},
                                             {"sample", Tensor::from(to, all, device)}};
    if (!info.class_names.empty()) tensors.emplace("label", Tensor::from(labels, {rows}, device));
    save_tensors(folder / pairs_file_name(info, file), tensors, pairs_metadata(info, file));
  }
  return true;
}

}  // namespace fluxion
