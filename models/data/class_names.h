// Classes are known by their names. Their numbers belong to one data set or one network; two of
// these are brought together by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fluxion {

// "0" to count - 1: the names of classes without names.
std::vector<std::string> numbered_classes(std::int32_t count);

// The name as a model file keeps it, in UTF-8: of one that is no UTF-8, bytes above 0x7f become
// \xNN.
std::string class_text(const std::string& name);

// The class that a person or a file of labels means: the one of that name or, where no class has a
// number for a name, the one with that number. Empty: there is none.
std::optional<std::int32_t> find_class(const std::vector<std::string>& names,
                                       const std::string& text);
// The same, and Cat for cat where that is one class alone.
std::optional<std::int32_t> find_class_in_any_case(const std::vector<std::string>& names,
                                                   const std::string& text);

// Where each of `classes` is among `names`; -1: it is not there.
std::vector<std::int32_t> places_of(const std::vector<std::string>& classes,
                                    const std::vector<std::string>& names);

// "bird, cat, dog, eel, fox and 7 more", "0 to 9".
std::string class_list(const std::vector<std::string>& names);

// How two lists differ: "A has bird, which B lacks, and B has birds, which A lacks". Empty if they
// hold the same names, in whatever order.
std::string class_difference(const std::string& a, const std::vector<std::string>& names_of_a,
                             const std::string& b, const std::vector<std::string>& names_of_b);

// Names that changed places: "cat holds what was dog", told by the marks of the classes' contents
// (DataSet::class_marks) at two times. Empty if there are none, as where marks are not known.
std::string exchanged_classes(const std::vector<std::string>& names_before,
                              const std::vector<std::string>& marks_before,
                              const std::vector<std::string>& names_now,
                              const std::vector<std::string>& marks_now);

// Whether marks are known at both times and none is the same: these are other data.
bool are_other_data(const std::vector<std::string>& marks_before,
                    const std::vector<std::string>& marks_now);

}  // namespace fluxion
