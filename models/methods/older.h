// The objectives of files from before methods were rows of a table.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "models/methods/method.h"

namespace fluxion {

// {"kind": "meanflow", "p": 1.0, ..}
bool is_older_objective(const nlohmann::json& object);

// The method that computes the same, bit for bit. Throws FormatError for an unknown kind and for a
// member of the wrong type.
MethodConfig older_objective(const nlohmann::json& object, const MethodTable& table);

}  // namespace fluxion
