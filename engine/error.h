// The exceptions that the library throws. Every message says what was being done, with what, and
// what would be right.
#pragma once

#include <cstdint>
#include <optional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace fluxion {

// The caller's file and line. Public functions take it as a defaulted last argument.
using Location = std::source_location;

std::string to_string(const Location& where);  // "file.cpp:12"

// What a failed call leaves behind.
enum class Aftermath : std::uint8_t {
  nothing_written,  // every tensor is as it was before; the call may be made again
  state_lost,       // donated arguments were being overwritten: their values are gone
  device_dead,      // nothing on the device can be used any more
};
std::string_view to_string(Aftermath aftermath);  // "nothing written", "state lost", "device dead"

// Base of all exceptions of the library; thrown itself for misuse that no class below names.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;

  // An error that states no aftermath has left nothing written.
  Aftermath aftermath() const noexcept { return aftermath_.value_or(Aftermath::nothing_written); }
  bool states_aftermath() const noexcept { return aftermath_.has_value(); }
  void state_aftermath(Aftermath aftermath) noexcept { aftermath_ = aftermath; }
  // Appends to the message, or leaves it as it is if there is no memory for that.
  void add_words(std::string_view words) noexcept;

 private:
  std::optional<Aftermath> aftermath_;
};

// Shapes, axes or element counts that do not fit together.
class ShapeError : public Error {
 public:
  using Error::Error;
};

// Element types that do not fit the operation or each other.
class DTypeError : public Error {
 public:
  using Error::Error;
};

// A device is missing, lost, mixed up, or can't do what is asked.
class DeviceError : public Error {
 public:
  using Error::Error;
};

// An allocation failed or would have exceeded the given limit.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

// The operating system refused to read or write.
class IoError : public Error {
 public:
  using Error::Error;
};

// The content of a file or a message violates its format.
class FormatError : public Error {
 public:
  using Error::Error;
};

// The caller requested a stop through a stop token.
class Cancelled : public Error {
 public:
  using Error::Error;
};

// Call it in a catch block: rethrows the exception as an Error. One that states no aftermath gets
// this one; std::bad_alloc becomes OutOfMemory, and any other exception Error.
[[noreturn]] void rethrow_stating(Aftermath aftermath);

}  // namespace fluxion
