#include "models/data/npy_data.h"

#include <string>
#include <utility>

#include "models/data/arrays.h"
#include "models/data/labels_beside.h"

namespace fluxion {

std::unique_ptr<DataSet> npy_data(const std::filesystem::path& path,
                                  const DataSetOptions& options) {
  const std::string name = path.string();
  if (options.split == Split::test)
    throw NoTestPart("data set " + name +
                     ": one array has no held-out part; give the path of another");
  ArrayContent content =
      sample_content(name, open_npy(path, options.memory_limit), options.memory_limit);
  if (options.labels) {
    const std::filesystem::path labels = labels_beside(path, content.count, options.memory_limit);
    if (!labels.empty()) content.labels = read_labels(labels, content.count, options.memory_limit);
  }
  return array_set(name, std::move(content), options);
}

}  // namespace fluxion
