#include "models/data/npy_data.h"

#include <string>
#include <utility>

#include "models/data/arrays.h"
#include "models/data/npz_data.h"

namespace fluxion {

std::unique_ptr<DataSet> npy_data(const std::filesystem::path& path,
                                  const DataSetOptions& options) {
  const std::string name = path.string();
  if (options.split == Split::test)
    throw NoTestPart("data set " + name +
                     ": one array has no held-out part; give the path of another");
  ArrayContent content = sample_content(name, open_npy(path));
  if (options.labels) add_labels_beside(path, content);
  return array_set(name, std::move(content), options);
}

}  // namespace fluxion
