#include "models/data/npz_data.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "models/data/array_words.h"
#include "models/data/labels_beside.h"
#include "models/data/split_names.h"
#include "models/files/lower_case.h"
#include "models/files/npy.h"
#include "models/files/zip.h"

namespace fluxion {

namespace {

enum class Role { samples, labels, other };
enum class Part { whole, train, test, validation };

struct Meaning {
  Role role = Role::other;
  Part part = Part::whole;
};

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

Part part_of(const std::string& word) {
  switch (part_named(word)) {
    case PartName::training:
      return Part::train;
    case PartName::held_out:
    case PartName::perhaps_held_out:
      return held_out_rank(word) < held_out_rank("val") ? Part::test : Part::validation;
    default:
      return Part::whole;
  }
}

Meaning meaning_of(std::string_view key) {
  Meaning meaning;
  for (const std::string& word : words_of_name(key)) {
    if (is_one_of(word, {"name", "names", "weight", "weights", "mean", "std"})) return {};
    if (const Part part = part_of(word); part != Part::whole) meaning.part = part;
    // image_labels are labels.
    if (means_labels(word)) meaning.role = Role::labels;
    if (means_samples(word) && meaning.role != Role::labels) meaning.role = Role::samples;
  }
  return meaning;
}

struct NamedArray {
  std::string key;
  const ZipMember* member;
  std::optional<NpyHeader> header;  // empty: it can't be read
  std::string reason;               // why not
  Meaning meaning;

  bool is(Role role, Part part) const {
    return header && meaning.role == role && meaning.part == part;
  }
};

// The name of the array in a member: its file's name without .npy. Empty for other members, and for
// what macOS and hidden files add to archives.
std::string key_of(const ZipMember& member) {
  std::string_view name = member.name;
  if (name.starts_with("__MACOSX/")) return "";
  if (const auto slash = name.rfind('/'); slash != name.npos) name.remove_prefix(slash + 1);
  if (name.starts_with('.') || !lower_case(name).ends_with(".npy")) return "";
  return std::string(name.substr(0, name.size() - 4));
}

class NpzFile {
 public:
  explicit NpzFile(const std::filesystem::path& path, std::optional<std::uint64_t> memory = {})
      : name_(path.string()),
        memory_(memory),
        file_(std::make_shared<const MappedFile>(path)),
        archive_(file_->bytes(), name_) {
    for (const ZipMember& member : archive_.members()) {
      const std::string key = key_of(member);
      if (key.empty()) continue;
      NamedArray array{key, &member, {}, {}, meaning_of(key)};
      try {
        array.header = parse_npy_header(archive_.prefix(member, npy_start_bytes), member.size,
                                        name_ + ": " + key);
      } catch (const FormatError& error) {
        array.reason = error.what();
      }
      arrays_.push_back(std::move(array));
    }
  }

  const std::vector<NamedArray>& arrays() const { return arrays_; }
  const std::string& name() const { return name_; }

  std::string name_of(const NamedArray& array) const { return name_ + ": " + array.key; }

  SourceArray open(const NamedArray& array, const WantedType& wanted = {}) const {
    if (!array.header) throw FormatError(array.reason);
    if (wanted) wanted(array.header->type);
    const ZipMember& member = *array.member;
    if (member.method == 0) {
      SourceArray stored = npy_in(archive_.in_place(member), file_, name_of(array), memory_);
      file_->check_whole();
      if (stored.owner == file_) stored.file = file_;
      return stored;
    }
    require_memory(unpacking_bytes(member.size), name_of(array), memory_);
    const auto bytes = std::make_shared<const std::vector<std::byte>>(archive_.unpack(member));
    file_->check_whole();
    return npy_in(*bytes, bytes, name_of(array), memory_);
  }

  std::vector<std::int32_t> labels(const NamedArray& array, std::int64_t count) const {
    const std::string name = name_of(array);
    return labels_in(name, open(array, labels_wanted(name, count)), count, memory_);
  }

  // "images u8[60000, 28, 28], names (text)", or the reason why each can't be read.
  std::string listed() const {
    if (arrays_.empty()) return "no arrays";
    std::string list;
    for (const NamedArray& array : arrays_)
      list += (list.empty() ? "" : ", ") + array.key +
              (array.header ? " " + to_string(array.header->type) : " (not readable)");
    return list;
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw FormatError(name_ + ": " + what + " (it holds " + listed() +
                      "); numpy.savez(FILE, images=.., labels=..) names them");
  }

 private:
  std::string name_;
  std::optional<std::uint64_t> memory_;  // that unpacking an array may take
  std::shared_ptr<const MappedFile> file_;
  ZipArchive archive_;
  std::vector<NamedArray> arrays_;
};

// Which arrays make the set.
struct Choice {
  const NamedArray* samples = nullptr;
  const NamedArray* labels = nullptr;
  Part part = Part::whole;
};

const NamedArray* only_one(const NpzFile& file, Role role, Part part) {
  const NamedArray* found = nullptr;
  for (const NamedArray& array : file.arrays()) {
    if (!array.is(role, part)) continue;
    if (found != nullptr)
      file.refuse("both " + found->key + " and " + array.key + " could be the " +
                  (role == Role::samples ? "samples" : "labels"));
    found = &array;
  }
  return found;
}

bool has_samples(const NpzFile& file, Part part) {
  return std::any_of(file.arrays().begin(), file.arrays().end(),
                     [&](const NamedArray& array) { return array.is(Role::samples, part); });
}

// An array that can't be read, if its name says that it is wanted, is the reason to tell.
void refuse_unreadable(const NpzFile& file, Role role, Part part) {
  for (const NamedArray& array : file.arrays())
    if (!array.header && array.meaning.role == role && array.meaning.part == part)
      throw FormatError(array.reason);
}

const NamedArray* array_of_key(const NpzFile& file, std::string_view key) {
  for (const NamedArray& array : file.arrays())
    if (array.key == key) return &array;
  return nullptr;
}

// No name says which array holds the samples: arr_0, with arr_1 for its labels, or the only array
// that could.
Choice unnamed_choice(const NpzFile& file) {
  Choice choice;
  const NamedArray *first = array_of_key(file, "arr_0"), *second = array_of_key(file, "arr_1");
  if (first != nullptr && file.arrays().size() == (second != nullptr ? 2 : 1)) {
    if (!first->header) throw FormatError(first->reason);
    if (second != nullptr &&
        !(second->header && first->header->type.shape.rank() > 0 &&
          looks_like_labels(second->header->type, first->header->type.shape[0])))
      file.refuse("arr_1 holds no labels of arr_0, and nothing says what the arrays are");
    return {first, second, Part::whole};
  }
  for (const NamedArray& array : file.arrays()) {
    if (array.meaning.role == Role::labels || !array.header || array.header->type.shape.rank() < 2)
      continue;
    if (choice.samples != nullptr)
      file.refuse("nothing says which of its arrays holds the samples");
    choice.samples = &array;
    choice.part = array.meaning.part;
  }
  if (choice.samples == nullptr) {
    for (const NamedArray& array : file.arrays())
      if (!array.header) throw FormatError(array.reason);
    file.refuse("none of its arrays holds samples");
  }
  return choice;
}

Choice choose(const NpzFile& file, Split split, bool labels) {
  Choice choice;
  const bool parts = has_samples(file, Part::train) || has_samples(file, Part::test) ||
                     has_samples(file, Part::validation);
  if (split == Split::test) {
    choice.part = has_samples(file, Part::test) ? Part::test : Part::validation;
    if (!has_samples(file, choice.part))
      throw NoTestPart("data set " + file.name() +
                       ": holds no held-out part, as x_test and y_test would be");
  } else {
    choice.part = has_samples(file, Part::train) ? Part::train : Part::whole;
    refuse_unreadable(file, Role::samples, Part::train);
  }
  refuse_unreadable(file, Role::samples, choice.part);
  choice.samples = only_one(file, Role::samples, choice.part);
  if (choice.samples == nullptr && parts) file.refuse("it has no part to train on");
  if (choice.samples == nullptr) choice = unnamed_choice(file);
  if (!labels) {
    choice.labels = nullptr;
  } else if (choice.labels == nullptr) {
    refuse_unreadable(file, Role::labels, choice.part);
    choice.labels = only_one(file, Role::labels, choice.part);
  }
  return choice;
}

// What no part of the set uses.
void warn_of_rest(const NpzFile& file, const Choice& choice, std::vector<std::string>& warnings) {
  const Part held_out = has_samples(file, Part::test) ? Part::test : Part::validation;
  std::string rest;
  for (const NamedArray& array : file.arrays()) {
    const bool used = &array == choice.samples || &array == choice.labels ||
                      (array.meaning.role != Role::other && array.meaning.part == held_out);
    if (!used) rest += (rest.empty() ? "" : ", ") + array.key;
  }
  if (!rest.empty()) warnings.push_back(file.name() + ": not used: " + rest);
}

// Parts have the same classes, though a small one may lack the last.
std::vector<std::string> classes_of(const NpzFile& file, const std::vector<std::int32_t>& labels) {
  std::int64_t largest = *std::max_element(labels.begin(), labels.end());
  for (const Part part : {Part::train, Part::test, Part::validation})
    for (const NamedArray& array : file.arrays()) {
      if (!array.is(Role::labels, part) || array.header->type.shape.rank() == 0) continue;
      for (const std::int32_t label : file.labels(array, array.header->type.shape[0]))
        largest = std::max<std::int64_t>(largest, label);
    }
  return numbered_classes(static_cast<std::int32_t>(largest + 1));
}

}  // namespace

bool is_npz(std::span<const std::byte> bytes, const std::string& name) {
  const ZipArchive archive(bytes, name);
  return std::any_of(archive.members().begin(), archive.members().end(),
                     [](const ZipMember& member) { return !key_of(member).empty(); });
}

std::unique_ptr<DataSet> npz_data(const std::filesystem::path& path,
                                  const DataSetOptions& options) {
  const NpzFile file(path, options.memory_limit);
  if (file.arrays().empty()) throw FormatError(file.name() + ": a zip archive without .npy arrays");
  const Choice choice = choose(file, options.split, options.labels);
  ArrayContent content = sample_content(file.name_of(*choice.samples), file.open(*choice.samples),
                                        options.memory_limit);
  if (choice.labels != nullptr) {
    content.labels = file.labels(*choice.labels, content.count);
    content.class_names = classes_of(file, content.labels);
  } else if (options.labels && choice.part == Part::whole) {
    const std::filesystem::path labels = labels_beside(path, content.count, options.memory_limit);
    if (!labels.empty()) content.labels = read_labels(labels, content.count, options.memory_limit);
  }
  if (options.split == Split::train) warn_of_rest(file, choice, content.warnings);
  return array_set(file.name(), std::move(content), options);
}

SourceArray open_labels(const std::filesystem::path& path, const WantedType& wanted,
                        std::optional<std::uint64_t> memory) {
  if (!is_zip(MappedFile(path).bytes())) return open_npy(path, memory, wanted);
  const NpzFile file(path, memory);
  if (file.arrays().size() != 1) file.refuse("of a file of labels, one array is wanted");
  return file.open(file.arrays().front(), wanted);
}

}  // namespace fluxion
