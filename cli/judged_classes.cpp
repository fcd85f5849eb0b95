#include "cli/judged_classes.h"

#include <algorithm>

#include "cli/command.h"
#include "engine/error.h"
#include "models/data/class_names.h"

namespace fluxion::cli {

namespace {

constexpr const char* ways_out =
    "; --relabel takes the classes in their order, --class none leaves them open";

}  // namespace

std::string JudgedClasses::text() const {
  return names.empty() ? "0 to " + std::to_string(count - 1) : class_list(names);
}

std::int32_t JudgedClasses::find(const std::string& text) const {
  if (!names.empty()) return find_class(names, text).value_or(-1);
  const std::int64_t number = integer_in(text).value_or(-1);
  return number >= 0 && number < count ? static_cast<std::int32_t>(number) : -1;
}

std::string JudgedClasses::name(std::int32_t number) const {
  return names.empty() ? std::to_string(number) : names.at(static_cast<std::size_t>(number));
}

std::vector<std::int32_t> judged_numbers(const std::vector<std::string>& names, std::int64_t count,
                                         const JudgedClasses& judged, const std::string& what,
                                         bool relabel) {
  if (!relabel && !names.empty() && !judged.names.empty()) return places_of(names, judged.names);
  if (relabel && count != judged.count)
    throw Error("eval: --relabel takes classes in their order, and " + what + " has " +
                std::to_string(count) + ", " + judged.of + " has " + std::to_string(judged.count));
  std::vector<std::int32_t> numbers;
  for (std::int64_t i = 0; i < count; ++i)
    numbers.push_back(i < judged.count ? static_cast<std::int32_t>(i) : -1);
  return numbers;
}

DrawnClasses drawn_classes(const std::string& chosen, const ModelInfo& info,
                           const std::string& model, const JudgedClasses& judged, bool relabel,
                           const Streams& streams) {
  const std::int64_t classes = num_classes(info.network);
  if (chosen == "none") check_open_class(info);
  if (chosen == "none" || (chosen == "balanced" && classes == 0)) return {};
  std::vector<std::int32_t> wanted = trained_classes(info);
  if (chosen != "balanced") try {
      wanted = {class_of(info, chosen)};
    } catch (const Error& error) {
      throw Error("eval: --" + std::string(error.what()));
    }
  DrawnClasses result;
  if (judged.count == 0) {
    for (const std::int32_t number : wanted) result.emplace_back(number, number);
    return result;
  }
  const bool named = std::ssize(info.class_names) == classes;
  const std::vector<std::string> names = named ? info.class_names : std::vector<std::string>();
  const std::vector<std::int32_t> numbers = judged_numbers(names, classes, judged, model, relabel);
  const bool by_name = named && !judged.names.empty() && !relabel;
  std::vector<std::string> drawn, left_out;
  for (const std::int32_t number : wanted) {
    const std::int32_t judged_number = numbers[static_cast<std::size_t>(number)];
    if (judged_number >= 0) result.emplace_back(number, judged_number);
    if (judged_number < 0 && !by_name)
      throw Error("eval: " + model + ": a sample was asked to be of class " +
                  std::to_string(number) + ", " + judged.of + " has the classes " + judged.text());
    if (by_name)
      (judged_number >= 0 ? drawn : left_out).push_back(names[static_cast<std::size_t>(number)]);
  }
  if (!by_name) return result;
  if (chosen != "balanced" && !left_out.empty())
    throw Error("eval: --class " + chosen + ": " + judged.of + " has no such class, it has " +
                judged.text());
  if (chosen == "balanced" && std::ssize(drawn) != judged.count) {
    std::vector<std::string> all = drawn;
    all.insert(all.end(), left_out.begin(), left_out.end());
    throw Error("eval: the classes of " + judged.of + " are not those of the model: " +
                class_difference("the model", all, judged.of, judged.names) + ways_out);
  }
  if (const std::string exchanged =
          exchanged_classes(info.class_names, info.class_marks, judged.names, judged.marks);
      !exchanged.empty())
    throw Error("eval: the classes of " + judged.of + " are not those of the model: " + exchanged +
                ways_out);
  const auto is_number = [](const std::string& name) { return integer_in(name).has_value(); };
  if (are_other_data(info.class_marks, judged.marks) &&
      std::ranges::all_of(judged.names, is_number))
    streams.error << "warning    " << printable(judged.of)
                  << " is not what the model was trained on, and its classes are numbers, "
                     "taken to mean the same\n";
  if (!left_out.empty())
    streams.error << "warning    " << printable(judged.of) << " has no class "
                  << printable(class_list(left_out), 500) << ", which the model has: not drawn\n";
  return result;
}

std::vector<std::int32_t> classifier_numbers(const ClassifierInfo& info, const std::string& file,
                                             const JudgedClasses& judged, bool relabel) {
  if (info.class_names.empty() && info.classes < judged.count)
    throw Error("eval: " + file + " knows " + std::to_string(info.classes) +
                " classes, the data have " + std::to_string(judged.count));
  const std::vector<std::int32_t> numbers =
      judged_numbers(info.class_names, info.classes, judged, file, false);
  const auto known =
      std::ranges::count_if(numbers, [](std::int32_t number) { return number >= 0; });
  std::string why;
  if (known < judged.count) {
    why = class_difference(file, info.class_names, judged.of, judged.names);
  } else if (!info.class_names.empty()) {
    why = exchanged_classes(info.class_names, info.class_marks, judged.names, judged.marks);
  }
  if (why.empty()) return numbers;
  if (relabel) return judged_numbers(info.class_names, info.classes, judged, file, true);
  throw Error("eval: the classes of " + judged.of + " are not those of the classifier: " + why +
              "; --retrain trains it again, --relabel takes the classes in their order");
}

std::vector<std::int32_t> unseen_by(const ClassifierInfo& info,
                                    const std::vector<std::int32_t>& numbers) {
  std::vector<std::int32_t> result;
  for (const std::int32_t own : info.unseen)
    if (const std::int32_t number = numbers[static_cast<std::size_t>(own)]; number >= 0)
      result.push_back(number);
  return result;
}

void leave_out_unseen(const std::vector<std::int32_t>& unseen, const JudgedClasses& judged,
                      bool one_asked, DrawnClasses& classes) {
  const auto is_unseen = [&](const auto& pair) {
    return std::ranges::count(unseen, pair.second) > 0;
  };
  if (one_asked && std::ranges::any_of(classes, is_unseen))
    throw Error("eval: the classifier has seen no sample of class " +
                judged.name(classes.front().second) + " of " + judged.of +
                ", so it can't judge it");
  std::erase_if(classes, is_unseen);
}

void warn_of_unseen(const std::vector<std::int32_t>& unseen, const JudgedClasses& judged,
                    const Streams& streams) {
  if (unseen.empty()) return;
  std::vector<std::string> names;
  for (const std::int32_t number : unseen) names.push_back(judged.name(number));
  streams.error << "warning    the classifier has seen no sample of class "
                << printable(class_list(names), 500) << ": it can't tell it\n";
}

}  // namespace fluxion::cli
