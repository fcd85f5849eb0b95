// Makes pairs of noise and sample with a trained model, on disk (models/data/pair_set.h): what
// reflow and its distillation train on (Liu et al. 2022, "Flow Straight and Fast").
#pragma once

#include <filesystem>
#include <functional>
#include <stop_token>

#include "models/data/pair_set.h"
#include "models/methods/method.h"
#include "models/samplers/sampler_options.h"

namespace fluxion {

struct PairOptions {
  std::int64_t count = 50000;
  std::string sampler = "own";  // of the teacher's file, or a name of sampler_names()
  std::int64_t steps = 0;       // 0: those of the file, or what is usual for the sampler
  std::uint64_t seed = 0;       // of the noise
  std::int64_t batch = 256;     // samples drawn at once
  std::uint64_t file_bytes = std::uint64_t{32} << 20;  // at most, or a pair
};
// What the options of a method that needs pairs say.
PairOptions pair_options(const MethodOptions& options, std::uint64_t seed);

// Of a model file, or of that in the folder of a run, as PairsInfo::teacher has it. Throws IoError.
std::string teacher_checksum(const std::filesystem::path& path);

struct PairsPlan {
  PairsInfo info;
  SamplerOptions sampler;
  std::uint64_t bytes = 0;          // of all files
  std::uint64_t bytes_to_come = 0;  // of those that are not there yet
  std::int64_t present = 0;         // pairs that are there
  std::vector<std::int64_t> files_to_come = {};
};
// Reads the teacher and looks at what the folder, which need not exist, holds already. Throws Error
// where no pairs can be made of this model: its sampler draws noise on its way, or others than
// these lie there; IoError, FormatError for a file that can't be read, and where the disk has no
// room.
PairsPlan plan_pairs(const std::filesystem::path& folder, const std::filesystem::path& teacher,
                     const PairOptions& options);

// Makes what is not there, file by file, each in one piece: what a stop or a crash leaves is gone
// on from. The noise of a pair depends on the seed and its number alone. Returns whether all are
// there: false after a stop. Throws Error for samples that are not finite.
bool make_pairs(const std::filesystem::path& folder, const std::filesystem::path& teacher,
                const PairsPlan& plan, const PairOptions& options, const Device& device,
                const std::function<void(std::int64_t done)>& progress = {},
                const std::stop_token& stop = {});

}  // namespace fluxion
