#include "models/data/split_names.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "models/files/lower_case.h"

namespace fluxion {

namespace {

constexpr std::array training_words = {"train", "training", "trn", "trainval"};
// In the order in which one is chosen.
constexpr std::array held_out_words = {"test", "testing", "t10k", "val", "validation"};
constexpr std::array perhaps_words = {"tests",      "tst",     "valid",       "validate",
                                      "dev",        "devel",   "development", "eval",
                                      "evaluation", "heldout", "holdout"};
// What is said beside the word: "training_set", "images_val".
constexpr std::array additions = {"set",    "data",   "dataset",  "split",  "part",
                                  "folder", "images", "image",    "imgs",   "img",
                                  "photos", "pics",   "pictures", "samples"};

// Lower case, without what separates words.
std::string bare(const std::string& name) {
  std::string result;
  for (const char c : name)
    if (c != '_' && c != '-' && c != ' ' && c != '.') result += lower_case(c);
  return result;
}

template <class Words>
int place_among(const Words& words, std::string_view word) {
  const auto found = std::find(words.begin(), words.end(), word);
  return found == words.end() ? -1 : static_cast<int>(found - words.begin());
}

struct Known {
  PartName part = PartName::none;
  int rank = 0;
};

Known known(std::string_view word) {
  if (place_among(training_words, word) >= 0) return {PartName::training, 0};
  if (const int rank = place_among(held_out_words, word); rank >= 0)
    return {PartName::held_out, rank};
  if (const int rank = place_among(perhaps_words, word); rank >= 0)
    return {PartName::perhaps_held_out, static_cast<int>(held_out_words.size()) + rank};
  return {};
}

// The word as it is; else without a year, or without one of the additions.
Known known_part(const std::string& name) {
  std::string word = bare(name);
  if (const Known found = known(word); found.part != PartName::none) return found;
  constexpr std::size_t year = 4;
  if (word.size() > year && std::all_of(word.end() - year, word.end(),
                                        [](unsigned char c) { return c >= '0' && c <= '9'; }))
    word.resize(word.size() - year);
  if (const Known found = known(word); found.part != PartName::none) return found;
  for (const std::string_view addition : additions) {
    const std::string_view text = word;
    if (text.ends_with(addition))
      if (const Known found = known(text.substr(0, text.size() - addition.size()));
          found.part != PartName::none)
        return found;
    if (text.starts_with(addition))
      if (const Known found = known(text.substr(addition.size())); found.part != PartName::none)
        return found;
  }
  return {};
}

}  // namespace

PartName part_named(const std::string& name) { return known_part(name).part; }

int held_out_rank(const std::string& name) { return known_part(name).rank; }

}  // namespace fluxion
