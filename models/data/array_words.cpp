#include "models/data/array_words.h"

#include <algorithm>
#include <array>

#include "models/data/split_names.h"
#include "models/files/lower_case.h"

namespace fluxion {

namespace {

constexpr std::array sample_words = {"x",       "xs",       "image",    "images", "img",
                                     "imgs",    "picture",  "pictures", "photos", "data",
                                     "pixels",  "sample",   "samples",  "point",  "points",
                                     "feature", "features", "input",    "inputs"};
constexpr std::array label_words = {"y",    "ys",     "label",   "labels", "lbl",
                                    "lbls", "target", "targets", "class",  "classes"};

bool is_part_of_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_capital(char c) { return lower_case(c) != c; }
bool is_small(char c) { return c >= 'a' && c <= 'z'; }
bool is_axis(char c) { return c == 'x' || c == 'y'; }
bool is_part(const std::string& word) { return part_named(word) != PartName::none; }

}  // namespace

std::vector<std::string> words_of_name(std::string_view name) {
  std::vector<std::string> words(1);
  char before = ' ';
  for (const char c : name) {
    if (!is_part_of_word(c) || (is_capital(c) && is_small(before))) words.emplace_back();
    if (is_part_of_word(c)) words.back() += lower_case(c);
    before = c;
  }
  std::vector<std::string> result;
  for (const std::string& word : words) {
    if (word.empty()) continue;
    const std::string rest = word.substr(1), start = word.substr(0, word.size() - 1);
    if (is_axis(word.front()) && is_part(rest)) {
      result.push_back(word.substr(0, 1));
      result.push_back(rest);
    } else if (is_axis(word.back()) && is_part(start)) {
      result.push_back(start);
      result.push_back(word.substr(word.size() - 1));
    } else {
      result.push_back(word);
    }
  }
  return result;
}

bool means_samples(std::string_view word) {
  return std::find(sample_words.begin(), sample_words.end(), word) != sample_words.end();
}

bool means_labels(std::string_view word) {
  return std::find(label_words.begin(), label_words.end(), word) != label_words.end();
}

}  // namespace fluxion
