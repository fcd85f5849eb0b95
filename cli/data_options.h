// The options of a command that takes a data set.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "cli/command_line.h"
#include "models/data/data_set.h"

namespace fluxion::cli {

struct DataOptions {
  std::string data = "glyphs";
  std::optional<std::int64_t> image_size;  // empty: 16 for glyphs, else the set's own
  std::optional<std::int64_t> channels;    // empty: the set's own
  bool flip = false, no_labels = false;
  Split split = Split::train;
  // Those of DataSetOptions; no options of their own.
  std::optional<std::uint64_t> memory_bytes_limit;
  bool by_number = false;
};

// --data, --image-size, --channels, --flip and --no-labels, in a group "Data". What `options` holds
// is the default.
void add_data_options(const Parser& parser, DataOptions& options);

// The set, with a progress line (unless quiet) while a large folder is read, and with its warnings
// shown.
std::unique_ptr<DataSet> open_data_set(const DataOptions& options, const Streams& streams,
                                       bool quiet = false);

// The first few of the set's warnings, from number `first` on, and how many more there are. Those
// of a damaged image come when a batch meets it.
void show_warnings(const DataSet& data, const Streams& streams, std::size_t first = 0);

}  // namespace fluxion::cli
