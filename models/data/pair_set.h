// Pairs of noise and the sample that a trained model draws from it, on disk: a folder of files
// pairs-00000-of-00007.safetensors, each with tensors noise and sample, f32 [n, ..sample shape],
// and label, i32 [n], where there are classes. Each says in its metadata ("fluxion.pairs") which
// part of which pairs it holds (models/training/pairs.h makes them).
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/data/data_set.h"
#include "models/files/safetensors.h"

namespace fluxion {

// What all files of a folder of pairs say alike.
struct PairsInfo {
  std::int64_t count = 0, per_file = 0;  // pairs; the last file may hold fewer
  Shape sample_shape;
  std::string teacher;  // checksum of its file
  std::string sampler;  // that drew the samples, with its steps: "euler 50"
  std::uint64_t seed = 0;
  // Of the teacher: what it was trained on, and its classes, all of them; empty: none.
  std::string dataset;
  std::vector<std::string> class_names, class_marks;
  bool operator==(const PairsInfo&) const = default;

  std::int64_t files() const { return (count + per_file - 1) / per_file; }
  std::int64_t pairs_in(std::int64_t file) const;
  std::uint64_t bytes_of(std::int64_t file) const;  // of its tensors
};
std::string pairs_file_name(const PairsInfo& info, std::int64_t file);
// Metadata of a file of pairs, and back. Throws FormatError.
Metadata pairs_metadata(const PairsInfo& info, std::int64_t file);
PairsInfo pairs_info_of(const SafetensorsFile& file, const std::string& where);
// Throws FormatError unless the file holds that part of these pairs, whole and finite.
void check_pairs_file(const SafetensorsFile& file, const PairsInfo& info, std::int64_t number,
                      const std::string& where);

bool is_pairs_folder(const std::filesystem::path& folder);
// Each sample goes with its noise (DataSet::has_noise). Throws IoError where files are missing,
// FormatError for one that does not fit, Error for options that would change samples.
std::unique_ptr<DataSet> pair_set(const std::filesystem::path& folder,
                                  const DataSetOptions& options = {});

}  // namespace fluxion
