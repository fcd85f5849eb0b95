// A file descriptor that closes itself, and paths that the system can take.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>

#include "engine/error.h"

namespace fluxion {

// The system would read such a path up to its first NUL.
inline void refuse_nul(const std::filesystem::path& path, const char* doing) {
  const std::size_t end = path.native().find('\0');
  if (end != std::string::npos)
    throw IoError(std::string(doing) + " " + path.native().substr(0, end) +
                  "..: a path can't hold the character NUL");
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }
  int release() { return std::exchange(value_, -1); }
  void reset(int value) { const Descriptor before(std::exchange(value_, value)); }

 private:
  int value_;
};

}  // namespace fluxion
