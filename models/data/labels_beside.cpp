#include "models/data/labels_beside.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "models/data/array_words.h"
#include "models/data/arrays.h"
#include "models/data/npz_data.h"
#include "models/files/file_kind.h"
#include "models/files/gz.h"
#include "models/files/idx.h"

namespace fluxion {

namespace {

namespace fs = std::filesystem;

constexpr std::array idx_words = {"idx1", "idx2", "idx3", "idx4", "ubyte"};
constexpr std::array format_words = {"gz", "idx", "npy", "npz", "uint8", "u8", "u1", "of", "for"};

template <class Words>
bool is_among(const Words& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// What a file holds; inside of gzip, what was compressed.
FileKind kind_of(const fs::path& path) {
  constexpr std::size_t start_bytes = 1024;
  const MappedFile file(path);
  const FileKind kind = describe_file(file.bytes()).kind;
  return kind == FileKind::gzip
             ? describe_file(gunzip_prefix(file.bytes(), start_bytes, path.string())).kind
             : kind;
}

// By its name alone.
bool is_called_array(const fs::path& path) {
  const fs::path plain = path.extension() == ".gz" ? path.stem() : path.filename();
  const std::string extension = plain.extension().string();
  return extension == ".npy" || extension == ".npz" || array_file_name(plain).idx;
}

// The content says whether a file is an array; where it is damaged, the name. Throws IoError where
// the file can't be read.
bool holds_array(const fs::path& path) {
  try {
    const FileKind kind = kind_of(path);
    return kind == FileKind::npy || kind == FileKind::idx || kind == FileKind::zip ||
           is_called_array(path);
  } catch (const FormatError&) {
    return is_called_array(path);
  }
}

// Of a file whose name does not say what of: one that is no labels is something else.
bool has_labels(const fs::path& path, std::int64_t count, std::optional<std::uint64_t> memory) {
  try {
    return !read_labels(path, count, memory).empty();
  } catch (const IoError&) {
    throw;
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error&) {
    return false;
  }
}

// Of files that differ in their format alone: the one that is stored like the images.
fs::path stored_alike(const std::vector<fs::path>& files, const fs::path& images) {
  const auto like = std::find_if(files.begin(), files.end(), [&](const fs::path& file) {
    return (file.extension() == ".gz") == (images.extension() == ".gz");
  });
  return like == files.end() ? files.front() : *like;
}

}  // namespace

ArrayFileName array_file_name(const fs::path& path) {
  ArrayFileName result;
  for (const std::string& word : words_of_name(path.filename().string())) {
    if (means_samples(word)) {
      result.images = true;
    } else if (means_labels(word)) {
      result.labels = true;
    } else if (is_among(idx_words, word)) {
      result.idx = true;
    } else if (!is_among(format_words, word)) {
      result.words.push_back(word);
    }
  }
  std::sort(result.words.begin(), result.words.end());
  return result;
}

fs::path labels_beside(const fs::path& images, std::int64_t count,
                       std::optional<std::uint64_t> memory) {
  fs::path documented = images;
  if (documented.extension() == ".gz") documented.replace_extension();
  documented.replace_extension(".labels.npy");
  std::error_code error;
  if (fs::is_regular_file(documented, error)) return documented;

  const ArrayFileName wanted = array_file_name(images);
  std::vector<fs::path> named, nameless;  // after these images, and after none
  const fs::path folder = images.parent_path().empty() ? fs::path(".") : images.parent_path();
  fs::directory_iterator place(folder, error);
  for (; !error && place != fs::directory_iterator(); place.increment(error)) {
    const fs::path file = images.parent_path() / place->path().filename();
    std::error_code unknown;
    if (file == images || file.filename().native().starts_with('.') ||
        !fs::is_regular_file(file, unknown))
      continue;
    const ArrayFileName name = array_file_name(file);
    if (!name.labels) continue;
    if (name.words == wanted.words) {
      if (holds_array(file)) named.push_back(file);
    } else if (name.words.empty()) {
      if (holds_array(file)) nameless.push_back(file);
    }
  }
  if (error) throw IoError("reading the folder " + folder.string() + ": " + error.message());
  std::sort(named.begin(), named.end());
  std::sort(nameless.begin(), nameless.end());
  const auto stem = [](const fs::path& path) {
    return path.extension() == ".gz" ? path.stem().string() : path.filename().string();
  };
  const bool one_name = std::all_of(named.begin(), named.end(), [&](const fs::path& file) {
    return stem(file) == stem(named.front());
  });
  if (!named.empty() && one_name) return stored_alike(named, images);
  if (!named.empty())
    throw Error("data set " + images.string() + ": its labels may be " +
                named[0].filename().string() + " or " + named[1].filename().string() +
                "; leave one of them there, or leave the classes out (--no-labels)");
  for (const fs::path& file : nameless)
    if (has_labels(file, count, memory))
      throw Error("data set " + images.string() + ": " + file.filename().string() +
                  " beside it holds as many labels, and its name does not say of what; call it " +
                  documented.filename().string() +
                  " if they are its own, or leave the classes out (--no-labels)");
  return {};
}

std::vector<std::int32_t> read_labels(const fs::path& path, std::int64_t count,
                                      std::optional<std::uint64_t> memory) {
  const WantedType wanted = labels_wanted(path.string(), count);
  const SourceArray array = kind_of(path) == FileKind::idx
                                ? SourceArray::of(read_idx(path, memory, wanted))
                                : open_labels(path, wanted, memory);
  return labels_in(path.string(), array, count, memory);
}

}  // namespace fluxion
