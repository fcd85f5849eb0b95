#include "engine/error.h"

#include <new>

namespace fluxion {

std::string to_string(const Location& where) {
  const std::string_view path = where.file_name();
  const std::size_t slash = path.find_last_of("/\\");
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1)) + ":" +
         std::to_string(where.line());
}

std::string_view to_string(Aftermath aftermath) {
  switch (aftermath) {
    case Aftermath::nothing_written:
      return "nothing written";
    case Aftermath::state_lost:
      return "state lost";
    case Aftermath::device_dead:
      return "device dead";
  }
  return "";
}

void Error::add_words(std::string_view words) noexcept {
  try {
    std::runtime_error& message = *this;
    message = std::runtime_error(std::string(what()).append(words));
  } catch (...) {
  }
}

void rethrow_stating(Aftermath aftermath) {
  const auto stating = [aftermath](auto error) {
    error.state_aftermath(aftermath);
    return error;
  };
  try {
    throw;
  } catch (Error& error) {
    if (!error.states_aftermath()) error.state_aftermath(aftermath);
    throw;
  } catch (const std::bad_alloc&) {
    throw stating(OutOfMemory("an allocation on the host failed"));
  } catch (const std::exception& error) {
    throw stating(Error(error.what()));
  } catch (...) {
    throw stating(Error("an exception of an unknown type was thrown"));
  }
}

}  // namespace fluxion
