#include "cli/data_options.h"

#include <algorithm>
#include <chrono>

#include "cli/command.h"
#include "cli/progress.h"

namespace fluxion::cli {

namespace {

constexpr std::int64_t glyph_size = 16;
constexpr std::size_t warnings_shown = 5;
constexpr const char* group = "Data";

std::string names_of_built_in_sets() {
  std::string names;
  for (const DataSetDescription& set : built_in_data_sets())
    names += (names.empty() ? "" : ", ") + set.name;
  return names;
}

}  // namespace

void add_data_options(const Parser& parser, DataOptions& options) {
  parser
      .add_option("--data", options.data,
                  "Built-in set (" + names_of_built_in_sets() +
                      "), or a path: a folder of PNG and JPEG images (sub-folders are classes), a "
                      ".npy or .npz file, a folder with IDX files (MNIST) or with"
                      " CIFAR-10's .bin files")
      .type_name("NAME|PATH")
      .show_default()
      .group(group);
  parser
      .add_number("--image-size", options.image_size, whole(4, 512),
                  "Height and width of images: resized, centre cropped; glyphs are drawn from 8 on "
                  "(default: 16 for glyphs, else the set's own)")
      .type_name("N")
      .group(group);
  parser
      .add_number("--channels", options.channels, either(1, 3),
                  "1: make images grey, 3: make them RGB (default: the set's own)")
      .type_name("N")
      .group(group);
  parser.add_flag("--flip", options.flip, "Mirror each image left to right with probability 1/2")
      .group(group);
  parser.add_flag("--no-labels", options.no_labels, "Leave the classes of the set out")
      .group(group);
}

std::unique_ptr<DataSet> open_data_set(const DataOptions& options, const Streams& streams,
                                       bool quiet) {
  std::unique_ptr<DataSet> data;
  {
    ProgressLine line(streams);
    const auto start = std::chrono::steady_clock::now();
    const auto progress = [&](std::int64_t done, std::int64_t total) {
      // What is read in a moment needs no line.
      if (quiet || std::chrono::steady_clock::now() - start < std::chrono::milliseconds(500) ||
          !line.due())
        return;
      line.show("reading " + options.data + ": " + grouped(done) + " of " + grouped(total) +
                " files");
    };
    data = make_data_set(
        options.data,
        {.image_size = options.image_size.value_or(options.data == "glyphs" ? glyph_size : 0),
         .split = options.split,
         .channels = options.channels.value_or(0),
         .flip = options.flip,
         .labels = !options.no_labels,
         .by_number = options.by_number,
         .progress = progress,
         .memory_limit = options.memory_bytes_limit});
  }
  show_warnings(*data, streams);
  return data;
}

void show_warnings(const DataSet& data, const Streams& streams, std::size_t first) {
  const std::vector<std::string> warnings = data.warnings();
  if (first >= warnings.size()) return;
  const std::size_t last = std::min(warnings.size(), first + warnings_shown);
  for (std::size_t i = first; i < last; ++i)
    streams.error << "warning    " << printable(warnings[i], 500) << "\n";
  if (last < warnings.size())
    streams.error << "warning    " << grouped(static_cast<std::int64_t>(warnings.size() - last))
                  << " more like these\n";
  streams.error << std::flush;
}

}  // namespace fluxion::cli
