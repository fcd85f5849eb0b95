// The one exception family. Every message says what was being done, with what, and what would be
// right.
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>

namespace fluxion {

// Where the caller stood. Public functions take it as a defaulted last argument.
using Location = std::source_location;

std::string to_string(const Location& where);  // "file.cpp:12"

// Base of everything the library throws; thrown itself for misuse that no narrower class names.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
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

// A file's or a message's content is not what its format allows.
class FormatError : public Error {
 public:
  using Error::Error;
};

// The caller asked, through a stop token, for the work to end.
class Cancelled : public Error {
 public:
  using Error::Error;
};

}  // namespace fluxion
