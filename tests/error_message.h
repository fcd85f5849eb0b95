// What an error says.
#pragma once

#include <string>
#include <utility>

#include "engine/error.h"

namespace fluxion::testing {

// The message of the Exception that `act` throws, "" if it throws nothing. An exception of another
// type passes through, and fails the test.
template <class Exception = Error, class Act>
std::string message_of(Act&& act) {
  try {
    std::forward<Act>(act)();
  } catch (const Exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace fluxion::testing
