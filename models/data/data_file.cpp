#include "models/data/data_file.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "models/data/idx_images.h"
#include "models/data/npy_data.h"
#include "models/data/npz_data.h"
#include "models/files/file_kind.h"
#include "models/files/gz.h"
#include "models/files/lower_case.h"

namespace fluxion {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t start_bytes = 1024;
constexpr std::size_t most_files_looked_at = 100;
constexpr std::size_t cifar10_record = 3073, cifar100_record = 3074;

[[noreturn]] void refuse(const fs::path& path, const std::string& what, const std::string& advice) {
  throw FormatError("data set " + path.string() + ": it is " + what +
                    (advice.empty() ? "" : ": " + advice));
}

bool named(const fs::path& path, std::string_view ending) {
  return lower_case(path.filename().string()).ends_with(ending);
}

// Formats without a sign of their own are known by the ending of their name.
[[noreturn]] void refuse_unknown(const fs::path& path, std::size_t size) {
  if (size == 0) refuse(path, "an empty file", "");
  if (named(path, ".bin") && (size % cifar10_record == 0 || size % cifar100_record == 0))
    refuse(path, "one of CIFAR's binary files", "give the folder that holds them all");
  if (named(path, ".tar")) refuse(path, "a tar archive", "unpack it, and give the folder in it");
  if (named(path, ".mat"))
    refuse(path, "a MATLAB file (version 4, or damaged)",
           "numpy.save(\"x.npy\", scipy.io.loadmat(FILE)[\"NAME\"]) saves one of its arrays");
  if (named(path, ".pkl") || named(path, ".pickle") || named(path, ".pt") || named(path, ".pth"))
    refuse(path, "a pickle of a kind that is not known, or damaged",
           "load it in Python, and numpy.save(\"x.npy\", array)");
  refuse(path, "none of the files that are read",
         "a .npy or .npz file, an IDX file, a folder of pictures (docs/data.md)");
}

// Where a folder holds no pictures and no folders, the first of its files that is known says why.
void check_files(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  fs::directory_iterator place(folder, error);
  for (; !error && place != fs::directory_iterator(); place.increment(error)) {
    const fs::path& path = place->path();
    if (path.filename().native().starts_with('.')) continue;
    std::error_code kind_error;
    if (place->is_directory(kind_error) || named(path, ".png") || named(path, ".jpg") ||
        named(path, ".jpeg"))
      return;
    if (place->is_regular_file(kind_error)) files.push_back(path);
  }
  std::sort(files.begin(), files.end());
  if (files.size() > most_files_looked_at) files.resize(most_files_looked_at);
  for (const fs::path& path : files) {
    FileDescription found;
    try {
      const MappedFile file(path);
      found = describe_file(file.bytes());
      if (found.kind == FileKind::gzip)
        found = describe_file(gunzip_prefix(file.bytes(), start_bytes, path.string()));
      if (found.kind == FileKind::zip) found = describe_zip(file.bytes(), path.string());
    } catch (const Error&) {
      continue;  // whatever it is, it does not tell
    }
    const std::string name = path.filename().string();
    switch (found.kind) {
      case FileKind::npy:
      case FileKind::zip:
      case FileKind::idx:
        throw FormatError("data set " + folder.string() +
                          ": a folder without pictures that holds " + name + ", " + found.what +
                          ": give the file of samples itself");
      case FileKind::foreign:
      case FileKind::checkpoint:
        if (found.is_text) continue;
        throw FormatError("data set " + folder.string() +
                          ": a folder without pictures that holds " + name + ", " + found.what +
                          (found.advice.empty() ? "" : ": " + found.advice));
      default:
        continue;
    }
  }
}

}  // namespace

std::unique_ptr<DataSet> data_file(const fs::path& path, const DataSetOptions& options) {
  FileDescription found;
  std::size_t size = 0;
  {
    const MappedFile file(path);
    size = file.bytes().size();
    found = describe_file(file.bytes());
    if (found.kind == FileKind::gzip) {
      const std::vector<std::byte> start = gunzip_prefix(file.bytes(), start_bytes, path.string());
      const FileDescription inside = describe_file(start);
      if (inside.kind != FileKind::npy && inside.kind != FileKind::idx)
        refuse(path, inside.what.empty() ? found.what : inside.what + ", compressed with gzip",
               inside.what.empty() || inside.advice.empty() || inside.kind == FileKind::zip
                   ? found.advice
                   : "unpack it (gunzip FILE); " + inside.advice);
      found = inside;
    }
    if (found.kind == FileKind::zip && !is_npz(file.bytes(), path.string()))
      found = describe_zip(file.bytes(), path.string());
  }
  switch (found.kind) {
    case FileKind::npy:
      return npy_data(path, options);
    case FileKind::zip:
      return npz_data(path, options);
    case FileKind::idx:
      return idx_images(path, options);
    case FileKind::unknown:
      refuse_unknown(path, size);
    default:
      refuse(path, found.what, found.advice);
  }
}

void check_known_folders(const fs::path& folder) {
  std::error_code error;
  const auto holds = [&](const char* file) { return fs::is_regular_file(folder / file, error); };
  const auto refuse_version = [&](const std::string& what, const std::string& advice) {
    throw FormatError("data set " + folder.string() + ": holds " + what + ": " + advice);
  };
  if (holds("data_batch_1") && holds("test_batch"))
    refuse_version("CIFAR-10's Python version, pickles, which can run code",
                   "the binary version is read (cifar-10-binary.tar.gz)");
  if ((holds("train") && holds("test") && holds("meta")) ||
      (holds("train.bin") && holds("test.bin") && holds("fine_label_names.txt")))
    refuse_version("CIFAR-100, which is not read as it is",
                   "write its pictures into a folder, with a sub-folder a class");
  check_files(folder);
}

}  // namespace fluxion
