#include "cli/train_pairs.h"

#include <filesystem>

#include "cli/progress.h"
#include "cli/train_method.h"
#include "engine/error.h"
#include "engine/platform/file.h"
#include "engine/platform/interrupt.h"
#include "models/objectives/coupling.h"
#include "models/training/pairs.h"

namespace fluxion::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t points_at_once = 4096, images_at_once = 64;

// Pairs that are made already; empty: they are to be made.
bool has_pairs(const TrainOptions& options) {
  std::error_code missing;
  return fs::is_directory(options.data, missing) && is_pairs_folder(options.data);
}

// A run's folder may have moved since, with its pairs in it.
void find_moved_pairs(TrainOptions& options) {
  const fs::path place = options.resume->empty() ? options.out : *options.resume;
  const fs::path beside = (fs::is_directory(place) ? place : place.parent_path()) / "pairs";
  std::error_code missing;
  if (!fs::exists(options.data, missing) && is_pairs_folder(beside))
    options.data = fs::absolute(beside).lexically_normal().string();
}

}  // namespace

int prepare_pairs(TrainOptions& options, const std::set<std::string>& given, const Device& device,
                  const Streams& streams) {
  if (!method_named(options.method, options.methods)->needs_pairs) return 0;
  if (options.resume) {
    find_moved_pairs(options);
    return 0;
  }
  const std::string start = "train: --method " + options.method;
  const std::string teacher = options.method_values.texts["teacher"].value_or("");
  // The pairs may be those that a run with this configuration has made.
  const bool made = has_pairs(options) && !given.contains("teacher");
  if (!teacher.empty() && given.contains("data") && !made)
    throw Error(start + " trains on the pairs that --teacher makes; leave out --data");
  if (teacher.empty() || made) {
    for (const char* name : {"pairs", "pair-sampler", "pair-steps"})
      if (given.contains(name))
        throw Error("train: --" + std::string(name) +
                    " has no effect without --teacher, of which pairs are made; leave it out");
    if (!made)
      throw Error(start +
                  " learns from pairs of noise and sample: --teacher MODEL makes them, --data "
                  "FOLDER takes pairs that are made");
    return 0;
  }

  if (options.coupling != to_string(CouplingKind::independent))
    throw Error(start +
                " trains on pairs of sample and noise, which no coupling changes; leave out " +
                "--coupling");
  for (const char* name : {"flip", "image-size", "channels"})
    if (given.contains(name))
      throw Error(start + " trains on pairs as its teacher draws them; leave out --" + name);
  // (Those of a configuration are for other data.)
  options.flip = false;
  options.image_size.reset();
  options.channels.reset();
  const ModelInfo info = read_model_info(teacher);
  const bool images = sample_shape(info.network).rank() == 3;
  resolve_method(options, images ? SampleKind::images : SampleKind::points);
  const MethodConfig method = method_for(options);
  // Before pairs are drawn, which takes a while.
  check_method_read(method, num_classes(info.network) > 0, options.methods, given);
  PairOptions wanted = pair_options(method.options, options.seed);
  wanted.batch = std::min(wanted.count, images ? images_at_once : points_at_once);
  const fs::path out = fs::absolute(options.out).lexically_normal(), folder = out / "pairs";
  std::error_code failure;
  fs::create_directories(out, failure);
  if (failure)
    throw IoError("train: can't make the folder " + out.string() + ": " + failure.message());
  const FolderLock lock(out);
  const PairsPlan plan = plan_pairs(folder, teacher, wanted);
  if (!options.quiet) {
    streams.error << "pairs      " + grouped(wanted.count) + " of " + printable(teacher) +
                         ", drawn with " + plan.info.sampler + " steps: " + bytes_text(plan.bytes) +
                         " in " + folder.string() +
                         (plan.present > 0 ? ", " + grouped(plan.present) + " of them there\n"
                                           : "\n")
                  << std::flush;
  }
  int signal = 0;
  bool whole = false;
  {
    ProgressLine line(streams);
    InterruptGuard interrupt;
    whole = make_pairs(
        folder, teacher, plan, wanted, device,
        [&](std::int64_t done) {
          interrupt.signal();
          if (!options.quiet && line.due())
            line.show("drawing pairs: " + grouped(done) + " of " + grouped(wanted.count));
        },
        interrupt.token());
    signal = interrupt.signal();
  }
  options.data = folder.string();
  // (A signal during the last batch finds all pairs there.)
  if (whole && signal == 0) return 0;
  if (!options.quiet)
    streams.error
        << (whole ? "interrupted when all pairs were drawn; the same command trains on them\n"
                  : "interrupted before all pairs were drawn; the same command goes on\n");
  return 128 + signal;
}

}  // namespace fluxion::cli
