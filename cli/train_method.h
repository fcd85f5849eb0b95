// The training method of `fluxion train`: --method, and an option for each that a method of the
// table has.
#pragma once

#include "cli/train_options.h"

namespace fluxion::cli {

// Throws Error for a method that has an option by the name of one of `fluxion train`.
void check_option_names(const MethodTable& methods);

void add_method_options(const Parser& parser, TrainOptions& options);

// A line for each method: its name and what it trains.
std::string method_list(const MethodTable& methods);

// Gives a value to every option of the chosen method.
void resolve_method(TrainOptions& options, SampleKind kind);

// The library's configuration of resolved options.
MethodConfig method_for(const TrainOptions& options);

// Adds the method and its options to settings, and removes what they hold of other methods.
void set_method(nlohmann::json& settings, const MethodConfig& method, const MethodTable& methods);

// Why an option changes nothing here, "without classes"; "" where it does, or is no method's.
std::string why_unread(const MethodConfig& method, bool has_classes, const MethodTable& methods,
                       const std::string& name);

// Throws Error for an option among `given` that the chosen method lacks, or that is for classes
// where there are none.
void check_method_read(const MethodConfig& method, bool has_classes, const MethodTable& methods,
                       const std::set<std::string>& given);

}  // namespace fluxion::cli
