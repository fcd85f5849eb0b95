#include "engine/error.h"

#include <string_view>

namespace fluxion {

std::string to_string(const Location& where) {
  const std::string_view path = where.file_name();
  const std::size_t slash = path.find_last_of("/\\");
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1)) + ":" +
         std::to_string(where.line());
}

}  // namespace fluxion
