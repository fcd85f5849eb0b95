// The classes of a model, of samples and of a classifier, brought to those of the data that they
// are compared with.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cli/command_line.h"
#include "models/evaluation/classifier.h"
#include "models/model_file.h"

namespace fluxion::cli {

// The classes that samples are judged by: those of the data, or of the classifier where the data
// have none.
struct JudgedClasses {
  std::string of;                  // for people
  std::int64_t count = 0;          // 0: none
  std::vector<std::string> names;  // empty: numbers
  std::vector<std::string> marks;  // DataSet::class_marks

  std::string text() const;
  // By name, or by number where names are no numbers; -1: there is none.
  std::int32_t find(const std::string& text) const;
  std::string name(std::int32_t number) const;
};

// What each of `count` classes is among the judged ones, -1 for none: by name; by number with
// `relabel`, and where one of them has no names. Throws Error where relabel finds another count.
std::vector<std::int32_t> judged_numbers(const std::vector<std::string>& names, std::int64_t count,
                                         const JudgedClasses& judged, const std::string& what,
                                         bool relabel);

// The classes of a model that samples are drawn of, each with its judged number. Empty: left open.
using DrawnClasses = std::vector<std::pair<std::int32_t, std::int32_t>>;

// chosen: a class of the model by name or number, "balanced" or "none". Classes that are not judged
// are left out of the balanced ones with a warning; throws Error where the model lacks a judged
// class, where the chosen one is not judged, or where names have changed places.
DrawnClasses drawn_classes(const std::string& chosen, const ModelInfo& info,
                           const std::string& model, const JudgedClasses& judged, bool relabel,
                           const Streams& streams);

// What the classifier's classes are among the judged ones. Throws Error where it lacks one of
// those, or names have changed places.
std::vector<std::int32_t> classifier_numbers(const ClassifierInfo& info, const std::string& file,
                                             const JudgedClasses& judged, bool relabel);

// The judged classes that the classifier has seen no sample of.
std::vector<std::int32_t> unseen_by(const ClassifierInfo& info,
                                    const std::vector<std::int32_t>& numbers);
void warn_of_unseen(const std::vector<std::int32_t>& unseen, const JudgedClasses& judged,
                    const Streams& streams);
// Nothing is drawn to be judged by what the classifier has never seen; throws Error if the only
// class is one of those, and was asked for.
void leave_out_unseen(const std::vector<std::int32_t>& unseen, const JudgedClasses& judged,
                      bool one_asked, DrawnClasses& classes);

}  // namespace fluxion::cli
